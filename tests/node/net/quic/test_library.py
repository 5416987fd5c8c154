"""What shoal uses of qh3 behind its public face, held here: a release that changes it fails."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from shoal.node.environment import Place
from shoal.node.net.quic.happenings import Ended, Event, IdAdded, StreamData, StreamFinished
from shoal.node.net.quic.library import FAILURES, Engine, read_header
from shoal.node.net.quic.mutual import MutualContext
from shoal.wire.ids import PeerId
from shoal.wire.keys import PrivateKey
from shoal.wire.tls_certificate import OwnCertificate, check_certificate, make_certificate

NOW = 1_800_000_000.0
WINDOW = 128 * 1024
CLIENT, SERVER = ("192.0.2.1", 1), ("192.0.2.2", 2)
ALICE = PrivateKey(hashlib.sha256(b"alice").digest())
BOB = PrivateKey(hashlib.sha256(b"bob").digest())
ALICES = make_certificate(ALICE, hashlib.sha256(b"1").digest(), NOW)
BOBS = make_certificate(BOB, hashlib.sha256(b"2").digest(), NOW)


class Pair:
    """Two engines and the wire between them."""

    def __init__(self, client: OwnCertificate = ALICES, server: OwnCertificate = BOBS) -> None:
        self.now = 1.0
        self.seen: dict[str, PeerId] = {}
        self._server_certificate = server
        self.client = Engine(
            client=True,
            certificate=client,
            judge=self._judge("client"),
            window=WINDOW,
            datagram=1280,
        )
        self.client.connect(SERVER, self.now)
        self.server: Engine | None = None
        self.bytes = {"client": 0, "server": 0}

    def _judge(self, name: str) -> Callable[[bytes], None]:
        def judge(certificate: bytes) -> None:
            self.seen[name] = check_certificate(certificate, NOW).peer_id

        return judge

    def run(self, rounds: int = 100) -> None:
        for _ in range(rounds):
            self.now += 0.005
            for datagram in self.client.transmit(self.now, 1000):
                self.bytes["client"] += len(datagram)
                self.to_server(datagram)
            for datagram in self.server.transmit(self.now, 1000) if self.server else []:
                self.bytes["server"] += len(datagram)
                self.client.receive(datagram, len(datagram), SERVER, self.now)
            for engine in filter(None, (self.client, self.server)):
                if engine.timer is not None and engine.timer <= self.now:
                    engine.handle_timer(self.now)

    def to_server(self, datagram: bytes, place: Place = CLIENT) -> None:
        if self.server is None:
            header = read_header(datagram)
            assert header is not None
            self.server = Engine(
                client=False,
                certificate=self._server_certificate,
                judge=self._judge("server"),
                window=WINDOW,
                datagram=1280,
                original=header.destination,
            )
        self.server.receive(datagram, len(datagram), place, self.now)

    @property
    def both(self) -> tuple[Engine, Engine]:
        assert self.server is not None
        return self.client, self.server


def taken(engine: Engine) -> list[Event]:
    found: list[Event] = []
    while (event := engine.take()) is not None:
        if not isinstance(event, IdAdded):
            found.append(event)
    return found


def test_the_version_is_one_that_was_looked_at() -> None:
    assert version("qh3").startswith("2.1."), "look at library.py and mutual.py before widening"


def test_both_sides_prove_who_they_are() -> None:
    pair = Pair()
    pair.run(10)
    client, server = pair.both
    assert client.established
    assert server.established
    assert pair.seen == {"client": BOB.peer_id, "server": ALICE.peer_id}
    assert client.exporter == server.exporter
    assert len(client.exporter) == 32
    other = Pair()
    other.run(10)
    assert other.client.exporter != client.exporter


def foreign() -> OwnCertificate:
    """Make a self-signed certificate that proves nobody."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    like = x509.load_pem_x509_certificate(ALICES.certificate)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = key.private_bytes(encoding, form, serialization.NoEncryption())
    return OwnCertificate(made.public_bytes(encoding), private)


def of_another() -> OwnCertificate:
    """Present Bob's certificate, as everybody can, without its key."""
    return replace(BOBS, key=ALICES.key)


@pytest.mark.parametrize("make", [foreign, of_another])
def test_a_client_that_proves_nothing_is_refused(make: Callable[[], OwnCertificate]) -> None:
    pair = Pair(client=make())
    pair.run(50)
    client, server = pair.both
    assert not server.established
    assert any(isinstance(event, Ended) for event in taken(client))


@pytest.mark.parametrize("make", [foreign, of_another])
def test_a_server_that_proves_nothing_is_refused(make: Callable[[], OwnCertificate]) -> None:
    pair = Pair(server=make())
    pair.run(50)
    client, server = pair.both
    assert not client.established
    assert not server.established


@pytest.mark.parametrize("left_out", ["certificate", "proof", "both"])
def test_a_client_that_leaves_something_out_is_refused(
    left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair()
    context = pair.client._quic.tls
    assert isinstance(context, MutualContext)
    if left_out == "certificate":
        monkeypatch.setattr(MutualContext, "certificate", None, raising=False)
        context.__dict__.pop("certificate")
        context.certificate_private_key = None
    elif left_out == "proof":
        context.certificate_private_key = None
    else:

        def unasked(self: MutualContext, input_buf: object) -> None:
            message = input_buf.data_slice(0, input_buf.capacity)  # type: ignore[attr-defined]
            input_buf.seek(input_buf.capacity)  # type: ignore[attr-defined]
            assert self.key_schedule is not None
            self.key_schedule.update_hash(message)

        monkeypatch.setattr(MutualContext, "_client_handle_certificate_request", unasked)
    pair.run(50)
    client, server = pair.both
    assert client.established  # it cannot know yet
    assert not server.established
    assert any(isinstance(event, Ended) for event in taken(client))


def test_what_is_not_taken_is_not_asked_for_again() -> None:
    pair = Pair()
    pair.run(10)
    client, server = pair.both
    stream = client.open()
    client.send(stream, bytes(10 * WINDOW), True)
    pair.run(400)
    assert client.queued(stream) == 9 * WINDOW
    got = 0
    while got < WINDOW // 2:
        event = server.take()
        if isinstance(event, StreamData):
            got += len(event.data)
    pair.run(100)
    assert client.queued(stream) <= 9 * WINDOW - got + 2000
    while client.queued(stream):
        got += sum(len(e.data) for e in taken(server) if isinstance(e, StreamData))
        pair.run(20)
    pair.run(20)
    events = taken(server)
    got += sum(len(e.data) for e in events if isinstance(e, StreamData))
    assert got == 10 * WINDOW


def test_a_stream_that_is_over_is_heard_of_once() -> None:
    pair = Pair()
    pair.run(10)
    client, server = pair.both
    stream = client.open()
    client.send(stream, b"question", True)
    pair.run(20)
    assert StreamData(stream, b"question", True) in taken(server)
    server.send(stream, b"answer", True)
    pair.run(20)
    assert taken(client) == [StreamData(stream, b"answer", True), StreamFinished(stream)]
    assert [e for e in taken(server) if isinstance(e, StreamFinished)] == [StreamFinished(stream)]
    assert not client.send(stream, b"more", False)
    client.reset(stream)
    client.stop(stream)
    client.stop(4_000)
    assert taken(client) == []


def test_a_server_sends_little_to_an_address_that_has_not_answered() -> None:
    pair = Pair()
    first = pair.client.transmit(pair.now, 10)
    for datagram in first:
        pair.to_server(datagram, ("203.0.113.7", 9))
    received = sum(map(len, first))
    sent = 0
    assert pair.server is not None
    for _ in range(400):
        pair.now += 0.05
        timer = pair.server.timer
        if timer is not None and timer <= pair.now:
            pair.server.handle_timer(pair.now)
        sent += sum(map(len, pair.server.transmit(pair.now, 100)))
    assert 0 < sent <= 3 * received


@given(st.binary(min_size=1, max_size=1500), st.booleans())
def test_garbage_never_does_more_than_end_the_connection(data: bytes, begun: bool) -> None:
    pair = Pair()
    if begun:
        pair.run(10)
    else:
        for datagram in pair.client.transmit(pair.now, 10):
            pair.to_server(datagram)
    server = pair.server
    assert server is not None
    for engine, place in ((pair.client, SERVER), (server, CLIENT)):
        try:
            engine.receive(data, len(data), place, pair.now)
            taken(engine)
        except FAILURES:
            pass
    read_header(data)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_hostile_handshake_never_does_more_than_end_the_connection(
    where: float, flip: int
) -> None:
    """Bytes of the client's flight are changed before they are encrypted."""
    pair = Pair()
    context = pair.client._quic.tls
    assert context is not None
    handle = context.handle_message

    def tampered(message: bytes, buffers: dict[int, object], epoch: int = -1) -> None:
        handle(message, buffers, epoch)  # type: ignore[arg-type]
        for level, buffer in list(buffers.items()):
            size = buffer.tell()  # type: ignore[attr-defined]
            if level != 0 and size:
                changed = bytearray(buffer.data)  # type: ignore[attr-defined]
                changed[int(where * size)] ^= flip
                buffer.seek(0)  # type: ignore[attr-defined]
                buffer.push_bytes(bytes(changed))  # type: ignore[attr-defined]

    context.handle_message = tampered  # type: ignore[assignment, method-assign]
    with suppress(*FAILURES):
        pair.run(12)
    assert pair.server is not None
    assert not pair.server.established
