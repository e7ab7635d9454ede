"""The page of ``--ui`` over HTTP: access, content and buttons.  See `in_browser.py`."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import socket
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from redis import RedisError
from yarl import URL

from tests.cli.conftest import Run, environment, run  # noqa: F401 - fixtures
from tests.cli.test_quota import UNREAD, Hand
from tests.programs import PIPE, ForkedProgram
from tests.store import Store
from tim_async import RetryPolicy, TIMClient, TIMError
from tim_async._quota_view import look
from tim_async._redis_clients import connect
from tim_async.cli._page import history
from tim_async.cli._page.emulator import EmulatorSubject
from tim_async.cli._page.quota import QuotaSubject
from tim_async.cli._page.server import serve_page
from tim_async.cli._page.subject import Snapshot
from tim_async.cli.failures import Failure
from tim_async.cli.faultspec import fault_text, parse_fault
from tim_async.emulator import Emulator

from .conftest import Served

FILES = ("", "page.css", "page.js", "icon.svg", "data")


async def raw(served: Served, request: str) -> str:
    """Send a raw request, and read the whole response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(served.url).port)
    writer.write(request.replace("\n", "\r\n").encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return answer


# Access


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_answered_with_the_headers_that_protect_it(served: Served, name: str) -> None:
    async with served.session.get(served.url + name) as answer:
        body = await answer.text()
    assert answer.status == 200
    assert body
    assert answer.headers["Content-Type"].endswith("; charset=utf-8")
    check_headers(answer.headers)
    if not name:
        # No external resources, and nothing that the policy would refuse.
        assert re.findall(r'(?:src|href)="([^"]*)"', body) == ["icon.svg", "page.css", "page.js"]
        assert not re.search(r"<style|style=|<script>|\son\w+=", body)


def check_headers(headers: Any) -> None:
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert not [name for name in headers if name.lower().startswith("access-control")]


async def test_without_the_token_there_is_nothing(served: Served) -> None:
    """Nor with a wrong one; the same for existing and other paths, and for actions."""
    token = URL(served.url).parts[1]
    for wrong in ("", "x/", f"{token}x/", f"{token[:-1]}/", f"{token.swapcase()}/", "ü/", f"/{token}/", token):
        for name in (*FILES, "act"):
            for method in ("GET", "POST", "OPTIONS"):
                async with served.session.request(
                    method, f"{served.origin}/{wrong}{name}", headers={"Origin": served.origin}, json={"clear": None}
                ) as answer:
                    assert (answer.status, token in await answer.text()) == (404, False)
                    check_headers(answer.headers)
    others = set()
    for _ in range(5):
        async with serve_page(EmulatorSubject(served.service, None), 0) as url:
            others.add(URL(url).parts[1])
    assert len(others | {token}) == 6
    assert all(len(other) >= 32 for other in others)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "[::1]"]
)
async def test_another_host_is_refused(served: Served, host: str) -> None:
    """For example of a rebound name, with the right port and a matching origin."""
    for name in FILES:
        for port in ("", f":{URL(served.url).port}"):
            headers = {"Host": host + port, "Origin": f"http://{host}{port}"}
            async with served.session.get(served.url + name, headers=headers) as answer:
                assert answer.status == 403
                check_headers(answer.headers)
            async with served.session.post(f"{served.url}act", headers=headers, json={"inject": "10002"}) as answer:
                assert answer.status == 403
    assert served.service.faults == ()


async def test_this_machine_may_have_other_names_and_ports(served: Served) -> None:
    """A tunnel has another port."""
    for host in (served.host, "127.0.0.1:9", "localhost", "LocalHost:8099"):
        for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
            async with served.session.get(served.url, headers=headers) as answer:
                assert answer.status == 200


async def test_requests_with_no_host_or_two_are_refused(served: Served) -> None:
    path = URL(served.url).path
    for head in ("HTTP/1.0", f"HTTP/1.0\nHost: {served.host}\nHost: evil.example", "HTTP/1.0\nHost: "):
        assert re.match(r"HTTP/1\.\d 40[03] ", await raw(served, f"GET {path} {head}\n\n"))


async def test_another_origin_is_refused(served: Served) -> None:
    """A page of another site, of another port of this machine or of a file has no effect."""
    port = URL(served.url).port or 0
    origins = ("http://evil.example", "null", f"https://{served.host}", f"http://localhost:{port}", "http://127.0.0.1")
    for origin in (*origins, f"http://127.0.0.1:{port + 1}", "", f"{served.origin}/", f"{served.origin}.evil.example"):
        headers = {"Origin": origin}
        for name in FILES:
            async with served.session.get(served.url + name, headers=headers) as answer:
                assert answer.status == 403
                check_headers(answer.headers)
        for method in ("POST", "OPTIONS"):
            async with served.session.request(
                method, f"{served.url}act", headers=headers, json={"inject": "10002"}
            ) as answer:
                assert answer.status == 403
    assert served.service.faults == ()


async def test_what_a_form_of_another_page_could_send_changes_nothing(served: Served) -> None:
    """No origin, another content type than JSON, another method, a too large body."""
    mine = {"Origin": served.origin, "Content-Type": "application/json"}
    body = '{"inject": "10002"}'
    cases: list[tuple[str, dict[str, str], Any, int]] = [
        ("POST", {"Content-Type": "application/json"}, body, 403),
        ("POST", {**mine, "Content-Type": "text/plain"}, body, 415),
        ("POST", {**mine, "Content-Type": "application/x-www-form-urlencoded"}, body, 415),
        ("GET", mine, body, 405),
        ("PUT", mine, body, 405),
        ("POST", mine, body + " " * 1000, 400),
        ("POST", mine, io.BytesIO(bytes(2_000_000)), 413),
        ("POST", mine, "", 400),
        ("POST", mine, "[" * 1000, 400),
        ("POST", mine, '"inject"', 400),
    ]
    for method, headers, data, status in cases:
        async with served.session.request(method, f"{served.url}act", headers=headers, data=data) as answer:
            assert (answer.status, method, headers) == (status, method, headers)
            check_headers(answer.headers)
    for name in FILES:
        async with served.session.post(served.url + name, headers=mine, data=body) as answer:
            assert answer.status == 405
    assert served.service.faults == ()


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "..%2f..%2fpyproject.toml",
        "%2e%2e/_page/server.py",
        "..\\..\\x",
        "./page.html",
        "page.html",
        "page.css/",
        "page.css%00",
        "server.py",
        "/etc/passwd",
        "data/../server.py",
        "act/",
    ],
)
async def test_no_other_file_is_served(served: Served, path: str) -> None:
    """With any spelling of the path after the token."""
    before = URL(served.url).path
    for target in (before + path, served.url + path):
        answer = await raw(served, f"GET {target} HTTP/1.0\nHost: {served.host}\n\n")
        assert re.match(r"HTTP/1\.\d (400|403|404) ", answer), answer
        assert "root:" not in answer
        assert "import" not in answer


# Content


async def test_the_data_are_the_report(served: Served) -> None:
    """After refusals, faults, error codes and unknown commands; requests to the page do not count."""
    served.service.fault(code=10002, times=3, endpoint="set_unread_msg_num")
    served.service.fault(drop="after", times=1)
    async with served.session.get(served.service.url + "/<img src=x>") as answer:
        await answer.read()
    once = RetryPolicy(attempts=1)
    async with TIMClient(**served.service.client_options(), rates={"set_unread_msg_num": 1000}, retry=once) as tim:
        calls: list[Any] = [tim.set_unread_msg_num("@TGS#public", "alice", 3) for _ in range(60)]
        calls += [tim.get_all_c2c_unread_msg_num("alice"), tim.get_group_msg_receipt("@TGS#none", [1])]
        calls += [tim.call("v4/group_open_http_svc/get_group_msg_receipt", {"\x1b": 1})]
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert all(one is None or isinstance(one, int | TIMError) for one in found)
    report = served.service.report()
    data = await served.until(report.total.calls)
    tables = {table["title"]: table for table in data["tables"]}
    names = ["calls", "succeeded", "refused", "faults", "retried", "fullest_sliding_second", "calls_per_second"]

    def row(name: str, one: Any) -> list[Any]:
        values = {attribute: getattr(one, attribute) for attribute in names}
        return [name, *{**values, "faults": sum(one.faults.values())}.values()]

    assert report.total.refused > 0
    assert len(report.endpoints) == 4
    assert tables["Calls"]["rows"] == [row(name, one) for name, one in report.endpoints.items()]
    assert tables["Calls"]["sum"] == row("all", report.total)
    counts = [cell for row in tables["Calls"]["rows"] for cell in row[1:]]
    assert not [cell for cell in counts if isinstance(cell, bool)]  # which equals 0 or 1, and is shown as a word
    codes = [[row[0], int(row[1]), row[3]] for row in tables["Error codes"]["rows"]]
    assert codes == [
        [n, code, count] for n, one in report.endpoints.items() for code, count in sorted(one.codes.items())
    ]
    assert all(row[2] for row in tables["Error codes"]["rows"] if row[1] in ("10002", "60007"))
    assert sum(row[2] for row in tables["Injected faults"]["rows"]) == sum(report.total.faults.values()) == 4
    assert tables["Undocumented fields"]["rows"] == [["get_group_msg_receipt", "\\x1b", 1]]
    charts = {chart["key"]: chart for chart in data["charts"]}
    assert {*charts} == {"set_unread_msg_num", "get_c2c_unread_msg_num", "get_group_msg_receipt"}
    for name, chart in charts.items():
        past, at = chart["past"], data["at"]
        assert {len(values) for values in past.values()} == {len(at)}
        assert (chart["limit"], at[-1]) == (40, 0)
        for value, count in (("refused", report.endpoints[name].refused), ("passed", report.endpoints[name].calls)):
            times = zip(pairwise(at), past[value][1:], strict=True)
            total = sum((after - before) * (rate or 0) for (before, after), rate in times)
            assert total == pytest.approx(count - (value == "passed") * report.endpoints[name].refused, rel=0.5)
        assert f"{report.endpoints[name].refused:,} refused" in chart["note"]
    assert served.service.secret_key not in json.dumps(data)
    assert "usersig" not in json.dumps(data).lower()


async def test_the_past_is_kept_for_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older snapshots are dropped, and those before the clock was set back.  An unexpected error is shown."""
    monkeypatch.setattr(history, "INTERVAL", 0.0)
    clock = [1000.0, 1001.0, 1300.0, 1301.0, 1302.0, 500.0, 501.0]
    pasts: list[list[float]] = []
    enough = asyncio.Event()

    class Clocked(EmulatorSubject):
        async def snapshot(self) -> Snapshot:
            if len(clock) < 7:
                pasts.append(kept.document()["at"])
            if not clock:
                if kept.document()["trouble"]:
                    enough.set()
                raise RuntimeError("the clock has no more times")
            return Snapshot(clock.pop(0))

    async with Emulator() as service:
        kept = history.History(Clocked(service, None))
        async with kept.running():
            await enough.wait()
            assert "unexpected RuntimeError: the clock has no more times" in kept.document()["trouble"]
    assert pasts[:7] == [[0], [-1, 0], [-300, -299, 0], [-300, -1, 0], [-2, -1, 0], [0], [-1, 0]]


async def test_many_concurrent_requests(served: Served) -> None:
    """None of the requests counts as a call."""
    answers = await asyncio.gather(*(served.data() for _ in range(200)))
    assert all(answer["name"] == "Emulator" for answer in answers)
    assert served.service.report().total.calls == 0


# Buttons


async def test_faults_are_injected_and_cleared(served: Served) -> None:
    """With the syntax of ``--fault``; earlier faults can be cleared, too."""
    served.service.fault(code=10002, probability=0.25)
    for text in ("http-502=10%@set_unread_msg_num", "drop-after", "10002=25%"):
        assert await served.act({"inject": text}) == (204, "")
    faults = (await served.data())["faults"]
    assert [fault["text"] for fault in faults["active"]] == [
        "10002=25%",
        "http-502=10%@set_unread_msg_num",
        "drop-after",
        "10002=25%",
    ]
    assert "get_group_msg_receipt" in faults["endpoints"]
    assert [fault.kind for fault in served.service.faults] == [
        "code 10002",
        "status 502",
        "dropped after",
        "code 10002",
    ]
    assert await served.act({"clear": "10002=25%"}) == (204, "")
    assert [fault.kind for fault in served.service.faults] == ["status 502", "dropped after", "code 10002"]
    assert await served.act({"clear": None}) == (204, "")
    assert (await served.data())["faults"]["active"] == []
    status, said = await served.act({"clear": "drop-after"})
    assert (status, "was already cleared" in said) == (400, True)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ({"inject": "nonsense"}, "unknown fault 'nonsense'"),
        ({"inject": "10002=200%"}, "probability must be above 0 and at most 1, not 2.0"),
        ({"inject": "10002@no_such"}, "no_such"),
        ({"inject": "<script>"}, "unknown fault '<script>'"),
        ({"inject": 10002}, "unknown action"),
        ({"explode": True}, "unknown action"),
        ({}, "unknown action"),
    ],
)
async def test_a_refused_action_has_a_reason(served: Served, action: Any, said: str) -> None:
    status, text = await served.act(action)
    assert status == 400
    assert said in text
    assert served.service.faults == ()


async def test_faults_are_bounded(served: Served) -> None:
    """Because each call tries all of them."""
    for _ in range(100):
        served.service.fault(code=10002)
    status, text = await served.act({"inject": "10002"})
    assert (status, "100 faults are injected already" in text) == (400, True)


@pytest.mark.parametrize(
    "text",
    [
        "10002",
        "10002=2.5%",
        "http-502=10%@set_unread_msg_num",
        "drop-before",
        "drop-after=1%",
        "truncate",
        "delay-0.25",
    ],
)
async def test_the_text_of_a_fault_is_that_of_its_option(text: str) -> None:
    assert fault_text(Emulator().fault(**parse_fault(text))) == text


# A shared quota


async def test_a_quota_is_shown_as_the_terminal_shows_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints, members and remarks; an outage of the store is shown until it ends; there are no actions."""
    monkeypatch.setattr(history, "INTERVAL", 0.02)
    connected = connect(store.url)

    async def read() -> Any:
        try:
            return await look(connected, "tim_async")
        except RedisError as error:  # as the command does, with another text
            raise Failure(f"away: {type(error).__name__}") from None

    with store.client() as redis:
        hand = Hand(redis, UNREAD)
        for number in range(25):
            hand.member(f"web-{number:02}:7:aa", 100, out=2, age=10)
        hand.member("job:9:cc", 0, limit=50, binding=0)
        hand.waiting("job:9:cc", 1e12 + 4)
        hand.state(out=50, cooling=7, refused=3, refused_at=hand.now + 100_000_000)
        async with aiohttp.ClientSession() as session, serve_page(QuotaSubject(await read(), read), 0) as url:
            served = Served(Emulator(), url, session)
            hand.member("web-00:7:aa", 500, out=2, age=10)
            while "500" not in (row := (data := await served.data())["tables"][1]["rows"][0]) and row[1] == 0.0:
                pass
            endpoints, members = data["tables"]
            assert (data["name"], data["address"], data["note"]) == ("Shared quota", store.url, "App 1400000000.")
            assert endpoints["rows"][0][0] == "get_c2c_unread_msg_num"
            assert endpoints["rows"][0][3:] == [50, 7, 0, 1, 26, "3 refused in the last second"]
            assert members["rows"][0][0] == "web-00:7:aa"
            assert (members["rows"][0][2], members["rows"][0][3]) == (1.0, 2)
            assert members["rows"][-1][0] == "6 others"
            assert (data["charts"][0]["limit"], data["faults"]) == (200, None)
            assert (await served.act({"clear": None}))[0] == 400
            store.kill()
            while not (data := await served.data())["trouble"]:
                pass
            assert data["trouble"].startswith("away")
            assert data["tables"][0] == endpoints or data["tables"][0]["rows"]
            store.start()
            while (data := await served.data())["trouble"]:
                pass
            assert data["tables"][0]["none"].startswith("No quota in the namespace tim_async was used")
    await connected.aclose()


# The commands


def test_options_that_contradict_each_other(run: Run) -> None:  # noqa: F811 - a fixture
    for args, said in (
        (("emulator", "--ui-port", "8100"), "--ui-port needs --ui"),
        (("quota", "redis://h", "--ui-port", "8100"), "--ui-port needs --ui"),
        (("quota", "redis://h", "--ui", "--watch"), "--ui cannot be combined with --watch or --json"),
        (("quota", "redis://h", "--ui", "--json"), "--ui cannot be combined with --watch or --json"),
    ):
        result = run(*args)
        assert (result.exit_code, said in result.stderr) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("emulator", "--port", "0", "--ui", "--ui-port", port)
    assert result.exit_code == 1
    assert f"cannot serve the page on port {port}" in result.stderr
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.processes
async def test_a_command_serves_its_page_and_ends_with_ctrl_c(
    environment: dict[str, str],  # noqa: F811 - a fixture
    store: Store,
) -> None:
    """Despite a browser's idle connection and an endless request; requests to the page are no calls."""
    with store.client() as redis:
        Hand(redis, UNREAD).member("web-1:7:aa", 100)
    for args, title in ((("emulator", "--port", "0"), "Emulator"), (("quota", store.url), "Shared quota")):
        with ForkedProgram("-m", "tim_async", *args, "--ui", env=environment, stdout=PIPE, stderr=PIPE) as command:
            assert command.stderr is not None
            line = await asyncio.to_thread(command.stderr.readline)
            url = URL(re.findall(r"http://\S+?/\S+/", line)[0])
            async with aiohttp.ClientSession() as session, session.get(url / "data") as answer:
                assert (await answer.json())["name"] == title
                _, writer = await asyncio.open_connection("127.0.0.1", url.port)
                head = f"POST {url.path}act HTTP/1.1\r\nHost: {url.authority}\r\nOrigin: {url.origin()}\r\n"
                writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n".encode())
                await writer.drain()
                command.send_signal(signal.SIGINT)
                out, said = await asyncio.to_thread(command.communicate)
                writer.close()
            assert (command.returncode, out) == (130, "")
            assert "Traceback" not in said
            assert environment.get("TIM_SECRET_KEY", "0123456789abcdef" * 4) not in line
