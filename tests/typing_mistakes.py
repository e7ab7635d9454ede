"""Mistakes of a user.  mypy and pyright report a comment that hides no error, so they must find each of them."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

# ruff: noqa: T201 - as a user would

from __future__ import annotations

import tim_async
from tim_async import TIMClient
from tim_async.blocking import Portal


async def calls(tim: TIMClient) -> None:
    """Arguments, results and names."""
    await tim.set_unread_msg_num("g", "alice", "3")  # type: ignore[arg-type]
    await tim.get_c2c_unread_msg_num("alice", [1])  # type: ignore[list-item]
    await tim.admin_set_msg_read("alice", "bob", 1700000000)  # type: ignore[call-arg]
    text: str = await tim.get_all_c2c_unread_msg_num("alice")  # type: ignore[assignment]
    print(text)
    print((await tim.get_c2c_unread_msg_num("alice", ["b"])).totals)  # type: ignore[attr-defined]
    print(tim.nothing)  # type: ignore[attr-defined]
    print(tim_async.Nonsense)  # type: ignore[attr-defined]


def without_a_loop(portal: Portal) -> None:
    """What a portal hands on is checked as by a direct call."""
    portal.run(TIMClient.set_unread_msg_num, "g", "alice", "3")  # type: ignore[arg-type]
    portal.run(TIMClient.set_unread_msg_num, "g", "alice")  # type: ignore[call-arg]
    portal.run(TIMClient.stats)  # type: ignore[arg-type]
    text: str = portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")  # type: ignore[assignment]
    print(text)


def options() -> None:
    """Of the constructor, which `from_env` takes, too."""
    TIMClient(sdk_app_id="1", secret_key="k")  # type: ignore[arg-type]
    TIMClient.from_env(timeout="5")  # type: ignore[arg-type]
    TIMClient.from_env(time_out=5)  # type: ignore[call-arg]
    TIMClient.from_env(on_attempt=lambda attempt: attempt.took.seconds)  # type: ignore[attr-defined]


def batches(tim: TIMClient, texts: list[tuple[str, str, str]], names: list[str]) -> None:
    """Rows that are not the method's parameters."""
    tim.batch.map(tim.set_unread_msg_num, [("g", "alice")])  # type: ignore[type-var]
    tim.batch.map(tim.set_unread_msg_num, texts)  # type: ignore[type-var]
    tim.batch.map(tim.get_all_c2c_unread_msg_num, names)  # type: ignore[type-var]
    tim.batch.map(lambda account: tim.get_c2c_unread_msg_num(account, ["bob"]), [(1,)])  # type: ignore[type-var]
    tim.batch.map(lambda account: tim.get_c2c_unread_msg_num(account, ["bob"]), [("a", "b")])  # type: ignore[type-var]
