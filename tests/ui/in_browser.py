"""The page of ``--ui`` in a real Chromium: ``nox -f .ci/noxfile.py -s browser``; it fails where there is none.

With ``SHOTS=FOLDER`` in the environment, pictures of the pages are kept there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.cli.test_quota import UNREAD, Hand
from tests.store import Store
from tim_async import RetryPolicy, TIMClient
from tim_async._quota_view import look
from tim_async._redis_clients import connect
from tim_async.cli._page.emulator import EmulatorSubject
from tim_async.cli._page.quota import QuotaSubject
from tim_async.cli._page.server import serve_page
from tim_async.emulator import Emulator, fill_example

from .chromium import Chromium, Tab

WIDTHS = (360, 768, 1280)

# The smallest size and contrast of the visible texts; the contrast with their background is that of WCAG 2.
LEGIBLE = """
(() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([red, green, blue]) => [red, green, blue]
    .map((value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const found = channels(getComputedStyle(element).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  let [size, contrast, texts] = [Infinity, Infinity, 0];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, noscript")) continue;
    const style = getComputedStyle(element);
    const [text, below] = [light(channels(style.color)), light(ground(element))];
    const least = (Math.max(text, below) + 0.05) / (Math.min(text, below) + 0.05);
    [size, contrast, texts] = [Math.min(size, parseFloat(style.fontSize)), Math.min(contrast, least), texts + 1];
  }
  return { size, contrast, texts };
})()
"""
# Elements that overflow the page or a scrolling part of it, except for the headings that are hidden on phones.
OUTSIDE = """
[...document.querySelectorAll("main *")].filter((element) => {
  const { left, right } = element.getBoundingClientRect();
  const scrolls = !(element instanceof SVGElement) && getComputedStyle(element).overflowX !== "visible";
  return !element.closest("thead")
    && (left < -0.5 || right > innerWidth + 0.5 || (scrolls && element.scrollWidth > element.clientWidth + 1));
}).map((element) => element.outerHTML)
"""
# The texts of the tables.
TABLES = """
Object.fromEntries([...document.querySelectorAll("table")].map((table) => [table.caption.textContent,
  [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))]))
"""


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Chromium]:
    async with Chromium(tmp_path / "profile") as running:
        yield running


async def check_layouts(browser: Chromium, url: str, ready: str, name: str) -> None:
    """Check each width, light and dark: no horizontal scrolling, legible texts, no complaints."""
    for dark in (False, True):
        for width in WIDTHS:
            tab = await browser.open(url, width=width, dark=dark)
            await tab.until(ready)
            if shots := os.environ.get("SHOTS"):
                await tab.screenshot(Path(shots) / f"{name}-{width}-{'dark' if dark else 'light'}.png")
            sizes = await tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert sizes[0] <= sizes[1] == width
            assert await tab.evaluate(OUTSIDE) == []
            legible = await tab.evaluate(LEGIBLE)
            assert legible["texts"] > 30
            assert legible["size"] >= 12
            assert legible["contrast"] >= 4.5
            grounds = await tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert grounds == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
            assert tab.complaints == []


async def tree(tab: Tab) -> list[tuple[str, str]]:
    """Return the roles and names in the accessibility tree."""
    nodes = (await tab.call("Accessibility.getFullAXTree"))["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and "role" in node
    ]


def shown(value: float) -> str:
    return f"{value:,}"


async def test_after_ten_thousand_calls_the_page_shows_the_report(browser: Chromium) -> None:
    async with Emulator(limit=None) as service:
        fill_example(service.state)
        service.fault(code=10002, probability=0.02, endpoint="set_unread_msg_num")
        async with serve_page(EmulatorSubject(service, None), 0) as url:
            tab = await browser.open(url)
            options: dict[str, Any] = {"rates": {"set_unread_msg_num": 100_000, "get_c2c_unread_msg_num": 100_000}}
            async with TIMClient(**service.client_options(), **options, retry=RetryPolicy(attempts=1)) as tim:
                for _ in range(50):
                    calls: list[Any] = [tim.set_unread_msg_num("@TGS#public", "alice", 3) for _ in range(100)]
                    calls += [tim.get_all_c2c_unread_msg_num("alice") for _ in range(100)]
                    await asyncio.gather(*calls, return_exceptions=True)
            report = service.report()
            assert report.total.calls == 10_000
            await tab.until("document.querySelector('.sum')?.cells[1].textContent === '10,000'")
            tables = await tab.evaluate(TABLES)
            names = ("calls", "succeeded", "refused", "retried", "fullest_sliding_second")
            wanted = [*report.endpoints.items(), ("all", report.total)]
            assert [[row[i] for i in (0, 1, 2, 3, 5, 6)] for row in tables["Calls"]] == [
                [name, *(shown(getattr(one, attribute)) for attribute in names)] for name, one in wanted
            ]
            assert [row[4] for row in tables["Calls"]] == [shown(sum(one.faults.values())) for _, one in wanted]
            assert [row[7] for row in tables["Calls"]] == [f"{one.calls_per_second:,.1f}" for _, one in wanted]
            count = report.endpoints["set_unread_msg_num"].codes[10002]
            assert tables["Injected faults"] == [["set_unread_msg_num", "code 10002", shown(count)]]
            assert [row[1] for row in tables["Error codes"]] == ["10002"]
            assert [row[3] for row in tables["Error codes"]] == [shown(count)]
            assert service.report().total.calls == 10_000
            assert tab.complaints == []
            assert {one for one in tab.requested if not one.startswith(url)} == set()


async def test_it_is_legible_at_every_width(browser: Chromium) -> None:
    """With refusals, faults, a long name and an unknown command; the accessibility tree has the same."""
    async with Emulator(limit=100) as service:
        fill_example(service.state)
        service.fault(code=10002, probability=0.05)
        service.fault(status=502, endpoint="get_group_msg_receipt_detail", probability=0.5)
        once = RetryPolicy(attempts=1)
        async with serve_page(EmulatorSubject(service, 100), 0) as url:
            rates = {"set_unread_msg_num": 150}
            async with TIMClient(**service.client_options(), rates=rates, retry=once) as tim:
                calls: list[Any] = [tim.set_unread_msg_num("@TGS#public", "alice", 3) for _ in range(600)]
                calls += [tim.get_group_msg_receipt_detail("@TGS#public", 116) for _ in range(20)]
                calls += [tim.call("v4/openim/" + "W" * 90, {})]
                await asyncio.gather(*calls, return_exceptions=True)
            total = f"{service.report().total.calls:,}"
            assert service.report().total.refused
            ready = f"document.querySelector('.sum')?.cells[1].textContent === '{total}'"
            await check_layouts(browser, url, ready, "emulator")
            for width in (360, 1280):
                tab = await browser.open(url, width=width)
                await tab.until("document.querySelector('.sum')")
                told = await tree(tab)
                headings = [name for role, name in told if role == "heading"]
                assert {"Emulator", "Calls per second", "set_unread_msg_num", "Faults", "Calls"} <= {*headings}
                assert ("columnheader", "refused") in told
                assert ("rowheader", "set_unread_msg_num") in told
                assert len([role for role, _ in told if role == "table"]) == 3
                assert [name for role, name in told if role == "image" and "the limit is 100" in name]
                buttons = [name for role, name in told if role == "button"]
                assert {"Inject", "Clear all faults"} < {*buttons}
                assert len({*buttons}) == len(buttons) == 4
                assert all(name for role, name in told if role in ("combobox", "textbox"))


async def test_buttons_inject_and_clear(browser: Chromium) -> None:
    """By mouse; an error is shown, and some kinds of faults have no value."""
    async with Emulator() as service, serve_page(EmulatorSubject(service, 200), 0) as url:
        tab = await browser.open(url, width=360)
        await tab.until("!document.getElementById('faults').hidden")
        await tab.evaluate("document.forms[0].elements.endpoint.value = 'set_unread_msg_num'")
        await click(tab, "[type=submit]")
        await tab.until("document.querySelectorAll('#active li').length === 1")
        (fault,) = service.faults
        assert (fault.code, fault.probability, fault.endpoint) == (10002, 0.1, "set_unread_msg_num")
        assert await tab.evaluate("document.querySelector('#active span').textContent") == (
            "code 10002: 10 % of the calls of set_unread_msg_num"
        )
        choose = "const f = document.forms[0].elements; f.kind.value = '%s'; f.kind.dispatchEvent(new Event('change'))"
        await tab.evaluate("{" + choose % "drop-after" + "}")
        assert await tab.evaluate("document.getElementById('valued').hidden")
        await click(tab, "[type=submit]")
        await tab.until("document.querySelectorAll('#active li').length === 2")
        assert service.faults[1].drop == "after"
        await tab.evaluate("{" + choose % "delay" + "; f.share.value = '200'}")
        await click(tab, "[type=submit]")
        await tab.until("document.getElementById('result').classList.contains('refused')")
        assert "at most 1, not 2" in await tab.evaluate("document.getElementById('result').textContent")
        assert len(service.faults) == 2
        # The browser logs the status 400, too.
        complaints, tab.events["Log.entryAdded"] = tab.complaints, []
        assert ["400" in complaint["entry"]["text"] for complaint in complaints] == [True]
        await click(tab, "#active li:first-child button")
        await tab.until("document.querySelectorAll('#active li').length === 1")
        assert [fault.drop for fault in service.faults] == ["after"]
        service.fault(truncate=True)
        await tab.until("!document.getElementById('clear-all').hidden")
        await click(tab, "#clear-all")
        await tab.until("document.querySelectorAll('#active li').length === 0")
        assert [*service.faults] == []
        assert tab.complaints == []


async def click(tab: Tab, selector: str) -> None:
    """Click an element at its position, as a mouse does."""
    element = f"const e = document.querySelector('{selector}'); e.scrollIntoView({{block: 'center'}})"
    middle = "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]"
    box = await tab.evaluate(f"(() => {{{element}; {middle}}})()")
    for kind in ("mousePressed", "mouseReleased"):
        await tab.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)


async def serve_elsewhere() -> tuple[web.ServerRunner, str]:
    """Serve another page, on another port of this machine."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text="<!doctype html><link rel=icon href='data:,'>", content_type="text/html")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/"


async def test_other_pages_and_other_names_have_no_access(browser: Chromium) -> None:
    """Even with the token, no data, action, frame or script, also by a name that resolves to this machine."""
    async with Emulator() as service, serve_page(EmulatorSubject(service, 200), 0) as url:
        runner, elsewhere = await serve_elsewhere()
        tab = await browser.open(elsewhere)
        for how in ("{}", "{mode: 'no-cors'}", "{credentials: 'include'}"):
            read = f"fetch('{url}data', {how}).then((answer) => answer.text(), (error) => error.name)"
            assert await tab.evaluate(read) in ("TypeError", "")
        for headers in ("{'Content-Type': 'application/json'}", "{'Content-Type': 'text/plain'}"):
            for mode in ("cors", "no-cors"):
                options = f"{{method: 'POST', mode: '{mode}', headers: {headers}, body: '{{\"inject\": \"10002\"}}'}}"
                await tab.evaluate(f"fetch('{url}act', {options}).then(() => 0, () => 0)")
        assert service.faults == ()
        loaded = "new Promise((done) => {const e = document.createElement('%s'); e.src = '%s';"
        loaded += " e.onload = () => done(true); e.onerror = () => done(false); document.body.append(e)})"
        for tag, name in (("script", "page.js"), ("img", "icon.svg")):
            assert await tab.evaluate(loaded % (tag, url + name)) is False
        await tab.evaluate(loaded % ("iframe", url))
        blocked = [entry["entry"]["text"] for entry in tab.events["Log.entryAdded"]]
        assert [text for text in blocked if "frame" in text.lower()]
        await runner.cleanup()
        tab = await browser.open(url.replace("127.0.0.1", "evil.example"))
        assert "this page is for browsers on this machine" in await tab.evaluate("document.body.textContent")
        tab = await browser.open(url.rpartition("/")[0][:-1] + "/")
        assert "use the full URL that the command printed" in await tab.evaluate("document.body.textContent")
        assert service.report().total.calls == 0


async def test_a_quota_is_shown(browser: Chromium, store: Store) -> None:
    """Members with their shares, with long names and many members; without buttons."""
    connected = connect(store.url)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(connected.aclose)
        hand = Hand(stack.enter_context(store.client()), UNREAD)
        read = partial(look, connected, "tim_async")

        async def work() -> None:
            """Take 200 calls/s: the first member a quarter, the second three quarters, the others none."""
            for taken in range(0, 1_000_000, 5):
                for number in range(30):
                    name = f"worker-{number:02}.region-1.compute.example.internal:{1000 + number}:5f0c2a91"
                    hand.member(name, 1000 + (0, 1, 3)[number + 1 if number < 2 else 0] * taken, out=2)
                await asyncio.sleep(0.1)

        hand.state(out=60, cooling=120, lowered=1, low=80, plateau=100, changed_at=hand.now - 1_000_000)
        working = asyncio.create_task(work())
        stack.callback(working.cancel)
        while not (first := await read()).endpoints:
            pass
        url = await stack.enter_async_context(serve_page(QuotaSubject(first, read), 0))
        tab = await browser.open(url)
        shares = (
            "[...document.querySelectorAll('.figures-of:nth-child(2) tr td:nth-child(3)')].map((e) => e.textContent)"
        )
        await tab.until(f"{shares}.slice(0, 3).join() === '75 %,25 %,0 %'")
        table = (await tab.evaluate(TABLES))["Members of get_c2c_unread_msg_num"]
        assert [row[0][:9] for row in table[:2]] == ["worker-01", "worker-00"]
        assert table[-1][0] == "10 others"
        assert await tab.evaluate("document.getElementById('faults').hidden")
        assert tab.complaints == []
        await check_layouts(browser, url, "document.querySelectorAll('table').length === 2", "quota")


async def test_the_end_of_the_command_is_shown(browser: Chromium) -> None:
    """The last data stay, with their time."""
    async with Emulator() as service:
        async with serve_page(EmulatorSubject(service, 200), 0) as url:
            tab = await browser.open(url)
            await tab.until("document.getElementById('clock').textContent.startsWith('Live')")
        await tab.until("!document.getElementById('trouble').hidden")
        assert "is not responding; showing data from" in await tab.evaluate(
            "document.getElementById('trouble').textContent"
        )
