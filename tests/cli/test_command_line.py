"""The command line itself: help, options, mistakes, text for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shoal.cli import words
from shoal.cli.main import COMMANDS
from shoal.cli.output import printable
from shoal.node.events import Copy, Notice, Shared

CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
HEAVY = {"trio", "rich", "cryptography", "sqlite_utils", "httpx", "hypercorn", "starlette"}


def python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["nothing"], []])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from shoal.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, sep='\\n')"
    )
    loaded = set(python(program).splitlines())
    assert "click" in loaded
    # A mistake is told by rich; help and version need not even that.
    assert not loaded & (HEAVY if "--" in "".join(arguments) else HEAVY - {"rich"})


def test_the_help_lists_every_command(shoal: Any) -> None:
    done = shoal("--help")
    assert done.code == 0
    for name, text in COMMANDS.items():
        assert name in done.out
        assert text.split()[0] in done.out


@pytest.mark.parametrize("arguments", [(), ("dht",)])
def test_without_a_command_the_help_is_shown(shoal: Any, arguments: tuple[str, ...]) -> None:
    done = shoal(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "\nCommands:\n" in done.err
    done = shoal("--json")
    assert (done.code, done.names) == (2, ["error"])


@pytest.mark.parametrize("name", [*COMMANDS, "dht table", "dht find-peer", "dht find-providers"])
def test_every_command_has_help_and_takes_json_and_v(shoal: Any, name: str) -> None:
    done = shoal(*name.split(), "--help")
    assert done.code == 0
    if name != "dht":
        assert "--json" in done.out
        assert "-v, --verbose" in done.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing",), "nothing"),
        (("gett",), "did you mean 'get'?"),
        (("dht", "tabel"), "shoal dht --help"),
        (("get",), "shoal get --help"),
        (("get", "not-a-cid"), "not-a-cid"),
        (("get", CID, "--timeout", "0"), "timeout"),
        (("get", CID, "--links", "some"), "links"),
        (("get", CID, "--peer", "somewhere"), "somewhere"),
        (("get", CID, "--bootstrap", "/ip4/1.2.3.400/tcp/1"), "1.2.3.400"),
        (("share", "x", "--listen", "4071"), "4071"),
        (("up", "--dht", "both"), "dht"),
        (("rm", "not-a-cid"), "not-a-cid"),
        (("share", "--nonsense", "x"), "nonsense"),
    ],
)
def test_mistakes_are_told_with_code_2(
    shoal: Any, node: Any, arguments: tuple[str, ...], says: str
) -> None:
    done = shoal(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert says in done.err
    assert "Traceback" not in done.err
    done = shoal(*arguments, "--json")
    (event,) = done.events
    assert (event["event"], event["code"]) == ("error", 2)
    assert not node.opened


def test_json_stands_before_or_after_the_command(
    shoal: Any, node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shoal("--json", "id").names == ["id"]
    assert shoal("id", "--json").names == ["id"]
    monkeypatch.setenv("SHOAL_JSON", "1")
    assert shoal("id").names == ["id"]


def test_where_settings_come_from(
    shoal: Any, node: Any, ctrl_c: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.happens = [ctrl_c]
    home = tmp_path / "other"
    home.mkdir()
    (home / "config.toml").write_text('dht = "client"\nlisten = ["/ip4/127.0.0.1/tcp/1"]\n')
    monkeypatch.setenv("SHOAL_LISTEN", "/ip4/127.0.0.1/tcp/2")
    assert shoal("--home", str(home), "up").code == 0
    assert shoal("up", "--home", str(home), "--listen", "/ip4/127.0.0.1/tcp/3").code == 0
    assert [(config.dht, config.listen) for _, config, _, _ in node.opened] == [
        ("client", ("/ip4/127.0.0.1/tcp/2",)),
        ("client", ("/ip4/127.0.0.1/tcp/3",)),
    ]
    (home / "config.toml").write_text('dhd = "client"\n')
    done = shoal("--home", str(home), "ls")
    assert done.code == 2
    assert "'dht'" in done.err


def test_with_json_people_read_standard_error(shoal: Any, node: Any) -> None:
    node.running = True
    node.tells = [Shared(CID, "shoal:x", "x", 1, 1, 0.1, "/x")]
    done = shoal("--json", "share", "x", "--dht", "client")
    assert all(isinstance(event, dict) for event in done.events)
    assert "ignored" in done.err


def test_a_hostile_name_does_not_reach_the_terminal(shoal: Any, node: Any) -> None:
    evil = "a\x1b]0;owned\x07\nb\u202egpj\udcff"
    node.rows = [Copy(CID, f"/{evil}", "shared", evil, 1, 1, 1), Notice(evil)]
    done = shoal("ls")
    assert "\x1b" not in done.out + done.err
    assert "\u202e" not in done.out + done.err
    assert done.out.count("\n") == 1
    assert "\\x1b]0;owned\\x07\\nb\\u202egpj\\udcff" in done.out
    assert shoal("--json", "ls").events[0]["path"] == f"/{evil}"


def test_an_unexpected_error_is_one_sentence(tmp_path: Path) -> None:
    program = (
        "import sys; from shoal.cli import session, main\n"
        "def broken(*a, **k): raise RuntimeError('a bug')\n"
        "session.connect = broken\n"
        "main.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, "--home", str(tmp_path), "id"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("shoal: something unexpected went wrong (RuntimeError: a bug)")
    assert "Traceback" not in done.stderr
    done = subprocess.run(
        [*command, "-v", "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert json.loads(done.stdout)["code"] == 1


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    program = (
        "import sys; from contextlib import asynccontextmanager\n"
        "from shoal.cli import session, main\n"
        "from shoal.node.events import Copy\n"
        "class Node:\n"
        "    async def ls(self): return [Copy('c', '/x' * 500, 'shared')] * 5000\n"
        "@asynccontextmanager\n"
        "async def connect(home): yield Node()\n"
        "session.connect = connect\n"
        "sys.exit(main.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "--home", str(tmp_path), "--json", "ls"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 130


def test_python_m_shoal_cli_is_shoal() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shoal.cli", "--version"],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ},
    )  # fmt: skip
    assert done.stdout.startswith("shoal, version ")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "?"), (0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9996, "10.0 kB"),
        (99_960, "100 kB"), (999_499, "999 kB"), (999_600, "1.00 MB"), (1 << 30, "1.07 GB"),
        (2.5e18, "2500 PB"),
    ],
)  # fmt: skip
def test_sizes(count: float | None, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min"),
        (61, "1 min 1 s"), (3600, "1 h"), (3900, "1 h 5 min"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


def test_shares() -> None:
    assert words.percent(999, 1000) == "99 %"
    assert words.percent(1000, 1000) == "100 %"
    assert words.percent(0, 0) == "100 %"
    assert words.percent(1, None) == "?"
    assert words.count(1, "copy", "copies") == "1 copy"
    assert words.count(2, "copy", "copies") == "2 copies"


def test_what_is_printable_stays() -> None:
    assert printable("Grüße, 東京 🐟") == "Grüße, 東京 🐟"
    assert printable("a\tb") == "a\\tb"
