from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Range(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("key", "proof", "features", "pieces")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    proof: bytes
    features: _containers.RepeatedScalarFieldContainer[str]
    pieces: int
    def __init__(self, key: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., features: _Optional[_Iterable[str]] = ..., pieces: _Optional[int] = ...) -> None: ...

class Bitfield(_message.Message):
    __slots__ = ("kind", "chunk", "data", "more")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[Bitfield.Kind]
        ALL: _ClassVar[Bitfield.Kind]
        RAW: _ClassVar[Bitfield.Kind]
        RUNS: _ClassVar[Bitfield.Kind]
    NONE: Bitfield.Kind
    ALL: Bitfield.Kind
    RAW: Bitfield.Kind
    RUNS: Bitfield.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    kind: Bitfield.Kind
    chunk: int
    data: bytes
    more: bool
    def __init__(self, kind: _Optional[_Union[Bitfield.Kind, str]] = ..., chunk: _Optional[int] = ..., data: _Optional[bytes] = ..., more: _Optional[bool] = ...) -> None: ...

class Have(_message.Message):
    __slots__ = ("ranges",)
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[Range]
    def __init__(self, ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ...) -> None: ...

class NotHave(_message.Message):
    __slots__ = ("ranges",)
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[Range]
    def __init__(self, ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ...) -> None: ...

class IndexRequest(_message.Message):
    __slots__ = ("cids",)
    CIDS_FIELD_NUMBER: _ClassVar[int]
    cids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, cids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class IndexNode(_message.Message):
    __slots__ = ("cid", "missing")
    CID_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    cid: bytes
    missing: bool
    def __init__(self, cid: _Optional[bytes] = ..., missing: _Optional[bool] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("id", "first", "count")
    ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    id: int
    first: int
    count: int
    def __init__(self, id: _Optional[int] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("id", "index", "length")
    ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    id: int
    index: int
    length: int
    def __init__(self, id: _Optional[int] = ..., index: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class PieceRun(_message.Message):
    __slots__ = ("id", "first", "lengths")
    ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    id: int
    first: int
    lengths: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[int] = ..., first: _Optional[int] = ..., lengths: _Optional[_Iterable[int]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("id", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: int
    reason: int
    def __init__(self, id: _Optional[int] = ..., reason: _Optional[int] = ...) -> None: ...

class BitfieldRequest(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: int
    def __init__(self, chunk: _Optional[int] = ...) -> None: ...

class Choke(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Unchoke(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Frame(_message.Message):
    __slots__ = ("hello", "bitfield", "have", "not_have", "index_request", "index_node", "request", "piece", "cancel", "reject", "choke", "unchoke", "bitfield_request", "piece_run", "trailing")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BITFIELD_FIELD_NUMBER: _ClassVar[int]
    HAVE_FIELD_NUMBER: _ClassVar[int]
    NOT_HAVE_FIELD_NUMBER: _ClassVar[int]
    INDEX_REQUEST_FIELD_NUMBER: _ClassVar[int]
    INDEX_NODE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    CHOKE_FIELD_NUMBER: _ClassVar[int]
    UNCHOKE_FIELD_NUMBER: _ClassVar[int]
    BITFIELD_REQUEST_FIELD_NUMBER: _ClassVar[int]
    PIECE_RUN_FIELD_NUMBER: _ClassVar[int]
    TRAILING_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    bitfield: Bitfield
    have: Have
    not_have: NotHave
    index_request: IndexRequest
    index_node: IndexNode
    request: Request
    piece: Piece
    cancel: Cancel
    reject: Reject
    choke: Choke
    unchoke: Unchoke
    bitfield_request: BitfieldRequest
    piece_run: PieceRun
    trailing: int
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., bitfield: _Optional[_Union[Bitfield, _Mapping]] = ..., have: _Optional[_Union[Have, _Mapping]] = ..., not_have: _Optional[_Union[NotHave, _Mapping]] = ..., index_request: _Optional[_Union[IndexRequest, _Mapping]] = ..., index_node: _Optional[_Union[IndexNode, _Mapping]] = ..., request: _Optional[_Union[Request, _Mapping]] = ..., piece: _Optional[_Union[Piece, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., choke: _Optional[_Union[Choke, _Mapping]] = ..., unchoke: _Optional[_Union[Unchoke, _Mapping]] = ..., bitfield_request: _Optional[_Union[BitfieldRequest, _Mapping]] = ..., piece_run: _Optional[_Union[PieceRun, _Mapping]] = ..., trailing: _Optional[int] = ...) -> None: ...
