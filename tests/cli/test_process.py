"""The command as a process: its environment, signals, exit codes and streams."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import trustme

from tests.emulator.support import query, usersig
from tests.programs import PIPE, ForkedProgram

from .migrating import read_until

pytestmark = pytest.mark.processes

Start = Callable[..., ForkedProgram]


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Start ``python -m tim_async``; the end of the test stops it."""
    with contextlib.ExitStack() as started:

        def run(
            *args: str, env: dict[str, str] | None = None, code: str | None = None, stdout: int = PIPE
        ) -> ForkedProgram:
            program = ("-m", "tim_async") if code is None else ("-c", code)
            process = ForkedProgram(*program, *args, env={**environment, **(env or {})}, stdout=stdout, stderr=PIPE)
            return started.enter_context(process)

        yield run


def real(environment: dict[str, str], *args: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it in a new interpreter, for tests of its start-up."""
    program = ("-m", "tim_async") if code is None else ("-c", code)
    command = [sys.executable, *program, *args]
    return subprocess.run(command, check=False, env=environment, capture_output=True, encoding="utf-8")


PROGRAM = """
import asyncio, logging, sys
from tim_async import TIMClient
if sys.argv[1:]:
    logging.basicConfig(format="mine: %(message)s")
async def main():
    for _ in range(2):
        async with TIMClient.from_env() as tim:
            await tim.get_all_c2c_unread_msg_num("alice")
asyncio.run(main())
"""


@pytest.mark.parametrize("program", ["command", "library", "program that logs"])
def test_tim_log_shows_each_request_once(start: Start, reach: dict[str, str], program: str) -> None:
    """Without the key or a signature; a program that has set up logging keeps its handlers and its format."""
    arguments = {"command": ("unread", "alice"), "library": (), "program that logs": ("basic",)}[program]
    with start(
        *arguments, env={**reach, "TIM_LOG": "Debug"}, code=None if program == "command" else PROGRAM
    ) as process:
        _, said = process.communicate()
    assert process.returncode == 0
    lines = [line for line in said.splitlines() if "attempt 1: done" in line]
    assert len(lines) == (1 if program == "command" else 2)
    start_of = "mine: " if program == "program that logs" else r"\d{4}-\d\d-\d\d [\d:,]+ DEBUG tim_async: "
    assert all(re.match(f"{start_of}get_c2c_unread_msg_num: ", line) for line in lines)
    assert reach["TIM_SECRET_KEY"] not in said
    assert "usersig" not in said


def test_a_level_that_does_not_exist_is_wrong_usage(start: Start) -> None:
    with start("unread", "alice", env={"TIM_LOG": "loud"}) as process:
        _, said = process.communicate()
    assert process.returncode == 2
    assert "TIM_LOG in the environment is 'loud'; the levels are debug, info, warning, error" in said


def exports(said: str) -> dict[str, str]:
    return dict(re.findall(r"^  export (\w+)=(\S+)$", said, re.MULTILINE))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_the_emulator_by_hand(start: Start, number: signal.Signals, code: int) -> None:
    """It prints its URL and credentials, serves them, and prints a report of the calls when it ends."""
    emulator = start("emulator", "--port", "0")
    env = exports(read_until(emulator, "receipts"))
    assert set(env) == {"TIM_BASE_URL", "TIM_SDK_APP_ID", "TIM_SECRET_KEY", "TIM_IDENTIFIER"}
    client = start("unread", "alice", "--json", env=env)
    out, err = client.communicate()
    assert (json.loads(out)["all_c2c_unread_msg_num"], err, client.returncode) == (5, "", 0)
    emulator.send_signal(number)
    out, err = emulator.communicate()
    assert emulator.returncode == code
    assert out.splitlines()[-1].split()[:2] == ["get_c2c_unread_msg_num", "1"]
    assert "Traceback" not in err


def test_the_emulator_with_faults(start: Start) -> None:
    """The options are in effect, and the report is one JSON document."""
    emulator = start("emulator", "--port", "0", "--fault", "10003@get_c2c_unread_msg_num", "--empty", "--json")
    env = exports(read_until(emulator, "TIM_IDENTIFIER"))
    client = start("unread", "administrator", env=env)
    out, err = client.communicate()
    assert (out, client.returncode) == ("", 1)
    assert "10003" in err
    emulator.send_signal(signal.SIGTERM)
    out, _ = emulator.communicate()
    assert json.loads(out)["total"]["faults"] == {"code 10003": 1}


def test_the_emulator_with_given_app_and_identifiers(start: Start, tmp_path: Path) -> None:
    """It writes an environment file for --credentials and shells, readable only for its owner."""
    file, key = tmp_path / "emulator.env", "5bd2850f" * 8
    app = ("--sdk-app-id", "1400000007", "--secret-key", key, "--identifier", "root", "--identifier", "second")
    emulator = start("emulator", "--port", "0", "--empty", "--json", *app, "--env-file", str(file))
    said = read_until(emulator, "TIM_IDENTIFIER")
    assert list(tmp_path.iterdir()) == [file]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    sourced = subprocess.run(
        ["sh", "-c", 'set -a; . "$0"; env', file], capture_output=True, text=True, check=True, env={}
    ).stdout.splitlines()
    assert f"TIM_SECRET_KEY={key}" in sourced
    assert "TIM_IDENTIFIER=root" in sourced
    for line in said.strip().splitlines()[-4:]:
        assert line.strip().removeprefix("export ") in file.read_text(encoding="utf-8")
    for who in ("root", "second"):
        client = start("unread", who, "--credentials", str(file), "--json", env={"TIM_IDENTIFIER": who})
        out, err = client.communicate()
        assert (json.loads(out)["all_c2c_unread_msg_num"], err) == (0, "")
    emulator.send_signal(signal.SIGTERM)
    out, _ = emulator.communicate()
    assert json.loads(out)["total"]["succeeded"] == 2


def test_the_emulator_with_options_of_strictness(start: Start, tmp_path: Path) -> None:
    """The options are in effect, and it serves HTTPS with a certificate."""
    authority = trustme.CA()
    pem = tmp_path / "cert.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    tls = ("--tls-cert", str(pem))
    emulator = start("emulator", "--port", "0", *tls, "--integer-read-time", "--refuse-unknown-fields")
    env = exports(read_until(emulator, "receipts"))
    assert env["TIM_BASE_URL"].startswith("https://127.0.0.1:")
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    caller = http.client.HTTPSConnection(urlsplit(env["TIM_BASE_URL"]).netloc, context=trusted, timeout=60)
    params = urlencode(query(usersig=usersig(issued_at=int(time.time()))))
    codes = []
    for more in ({"MsgReadTime": 1_700_000_000}, {"MsgReadedTime": "1700000000"}):
        body = json.dumps({"Report_Account": "alice", "Peer_Account": "bob", **more})
        caller.request("POST", f"/v4/openim/admin_set_msg_read?{params}", body)
        codes.append(json.loads(caller.getresponse().read())["ErrorCode"])
    caller.close()
    assert codes == [0, 90001]
    emulator.send_signal(signal.SIGTERM)
    out, err = emulator.communicate()
    assert out.endswith("admin_set_msg_read: 1 request with the undocumented field MsgReadedTime\n")
    assert "Traceback" not in err


def test_an_env_file_that_cannot_be_written(start: Start, tmp_path: Path) -> None:
    emulator = start("emulator", "--port", "0", "--env-file", str(tmp_path / "none" / "emulator.env"))
    out, err = emulator.communicate()
    assert (out, emulator.returncode) == ("", 1)
    assert "cannot write" in err
    assert "No such file or directory" in err


def test_an_env_file_that_is_a_pipe_stays_one(start: Start, tmp_path: Path) -> None:
    """It is written to, as by a shell's ``>``."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    emulator = start("emulator", "--port", "0", "--env-file", str(pipe))
    assert "TIM_SECRET_KEY=" in pipe.read_text(encoding="utf-8")
    assert pipe.is_fifo()
    emulator.send_signal(signal.SIGTERM)
    emulator.communicate()
    assert emulator.returncode == 0


@pytest.mark.parametrize(
    "args",
    [
        ("--fault", "sometimes"),
        ("--fault", "http-100"),
        ("--latency", "nan"),
        ("--jitter", "inf"),
        ("--secret-key", ""),
        ("--identifier", ""),
        ("--fault", "10002@nothing"),
        ("--window", "round"),
        ("--tls-key", __file__),
        ("--tls-cert", __file__),
        ("--tls-cert", "/nowhere"),
        ("--sdk-app-id", "0"),
    ],
)
def test_invalid_options_of_the_emulator(start: Start, args: tuple[str, ...]) -> None:
    process = start("emulator", "--port", "0", *args)
    out, err = process.communicate()
    assert (out, process.returncode) == ("", 2)
    assert "Traceback" not in err


def test_a_port_that_is_taken(start: Start) -> None:
    first = start("emulator", "--port", "0")
    url = exports(read_until(first, "TIM_IDENTIFIER"))["TIM_BASE_URL"]
    second = start("emulator", "--port", url.rpartition(":")[2])
    _, err = second.communicate()
    assert second.returncode == 1
    assert err.startswith("Error: cannot listen at port")
    assert "Traceback" not in err


def test_ctrl_c_while_waiting_for_an_answer(start: Start) -> None:
    """Exit code 130, no data, no traceback."""
    emulator = start("emulator", "--port", "0", "--fault", "delay-60")
    env = exports(read_until(emulator, "TIM_IDENTIFIER"))
    # A waiting client prints nothing, so the test makes it print when it sends.
    waiting = "import aiohttp, sys\n"
    waiting += "real = aiohttp.ClientSession.post\n"
    waiting += "def post(*args, **given):\n print('sent', file=sys.stderr, flush=True)\n return real(*args, **given)\n"
    waiting += "aiohttp.ClientSession.post = post\nfrom tim_async.cli import main\nsys.exit(main())"
    client = start("unread", "alice", code=waiting, env=env)
    read_until(client, "sent")
    client.send_signal(signal.SIGINT)
    out, err = client.communicate()
    assert (client.returncode, out, err.strip()) == (130, "", "")


@pytest.mark.parametrize("wanted", ["Emulator at", "started: "])
def test_ctrl_c_in_the_demo(start: Start, wanted: str) -> None:
    """Exit code 130 without a traceback, be it between its commands or in one of them."""
    demo = start("demo")
    read_until(demo, wanted)
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate()
    assert demo.returncode == 130
    assert "lost" not in out
    assert "Traceback" not in err
    assert "Error" not in err


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(environment: dict[str, str], missing: str) -> None:
    """One line names the package to install."""
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom tim_async.cli import main\nsys.exit(main())"
    done = real(environment, "demo", code=code)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"tim-async needs the package {missing}: pip install 'tim-async[cli]'\n"


def test_another_missing_module_is_not_blamed_on_the_extra(environment: dict[str, str]) -> None:
    code = "import sys; sys.modules['tim_async.cli.calls'] = None\nfrom tim_async.cli import main\nsys.exit(main())"
    assert "ModuleNotFoundError" in real(environment, code=code).stderr


def test_a_stream_without_utf8(environment: dict[str, str]) -> None:
    """Names that it cannot encode are shown as code points."""
    env = {**environment, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = real(env, "demo", "--rows", "3", "--limit", "5000")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "0 lost, 0 wrong, 0 refused" in done.stdout
