"""Generate the protobuf modules and their stubs from the `.proto` files beside this one.

`python -m shoal.wire.proto [FOLDER]` writes into FOLDER, or in place.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent


def generate(target: Path) -> int:
    """Write one module and one stub per `.proto` file to `target`; return protoc's status."""
    import grpc_tools
    from grpc_tools import protoc

    sources = sorted(str(path.name) for path in HERE.glob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={HERE}",
            f"--proto_path={well_known}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            *sources,
        ]
    )
    return int(status)


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE))
