"""The public names and the pinned parameters of the client's methods; importing has no side effects."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tim_async
from tim_async import TIMClient

NAMES = [
    "APIError",
    "AccountNotFound",
    "Attempt",
    "AuthError",
    "BadResponse",
    "Batch",
    "C2CUnread",
    "ClientClosed",
    "ConnectFailed",
    "ConnectionLost",
    "Contact",
    "Done",
    "EndpointStats",
    "Failed",
    "Finding",
    "GroupMsgReceiptDetail",
    "GroupMsgReceipts",
    "GroupNotFound",
    "InvalidRequest",
    "ItemError",
    "Lane",
    "Lookup",
    "PartialFailure",
    "PermissionDenied",
    "QuotaExhausted",
    "RateLimited",
    "Receipt",
    "ReceiptUnavailable",
    "RecentContactList",
    "RecentContactPage",
    "RequestTimeout",
    "RetryPolicy",
    "ServerBusy",
    "TIMClient",
    "TIMError",
    "TransportError",
    "doctor",
    "http_status",
    "retry_after",
]


def test_the_public_names_are_these() -> None:
    assert vars(tim_async)["__all__"] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_can_be_imported_and_is_documented(name: str) -> None:
    """It is in dir() of the package, too."""
    found = getattr(tim_async, name)
    assert found.__name__ == name
    assert name in dir(tim_async)
    assert inspect.getdoc(found)


def test_the_names_under_type_checking_are_the_public_names() -> None:
    """They are the same objects, from the same modules."""
    tree = ast.parse(Path(tim_async.__file__).read_text())
    seen = {
        (alias.name, alias.asname, node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert {name for name, _, _ in seen} == {*NAMES}
    for name, public, module in seen:
        assert public == name, "re-exported by that name"
        assert getattr(importlib.import_module(f"tim_async.{module}"), name) is getattr(tim_async, name)


def test_a_star_import_imports_exactly_the_public_names() -> None:
    space: dict[str, object] = {}
    exec("from tim_async import *", space)
    assert {*space} - {"__builtins__"} == {*NAMES}


NOTHING = "Nothing"
"""A name that does not exist; a type checker would report it as an attribute."""


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        getattr(tim_async, NOTHING)
    with pytest.raises(ImportError):
        exec("from tim_async import Nothing")


def test_the_pinned_methods_of_a_client_keep_their_parameters() -> None:
    """The reference lists all methods."""
    pinned = {
        "aclose": [],
        "admin_set_msg_read": ["report_account", "peer_account", "msg_read_time"],
        "call": ["command", "body", "repeatable"],
        "get_all_c2c_unread_msg_num": ["to_account"],
        "get_c2c_unread_msg_num": ["to_account", "peer_accounts"],
        "get_group_msg_receipt": ["group_id", "msg_seqs"],
        "get_group_msg_receipt_detail": ["group_id", "msg_seq", "read", "cursor", "count"],
        "get_recent_contact_list": ["from_account", "page"],
        "on_alert": ["event"],
        "set_rate": ["method", "rate", "bulk_share"],
        "set_unread_msg_num": ["group_id", "member_account", "unread_msg_num"],
        "stats": [],
        "with_options": ["max_wait", "timeout", "lane", "retry"],
    }
    assert {name: [*inspect.signature(getattr(TIMClient, name)).parameters][1:] for name in pinned} == pinned
    plain = {
        name
        for name, method in inspect.getmembers(TIMClient, inspect.isfunction)
        if not name.startswith("_") and not inspect.iscoroutinefunction(method)
    }
    assert plain == {"on_alert", "set_rate", "stats", "with_options"}


def test_the_default_time_out_is_above_the_three_seconds_of_the_service() -> None:
    """The service answers within three seconds, so a shorter time-out would lose answers."""
    assert inspect.signature(TIMClient).parameters["timeout"].default > 3


def test_importing_has_no_side_effects() -> None:
    """No event loop, no logging configuration, no environment variable read, no HTTP client imported too early."""
    program = """
import os, sys, logging
class Watched(dict):
    def get(self, name, default=None):
        if str(name).startswith("TIM_"): raise SystemExit(f"{name} was read")
        return super().get(name, default)
os.environ = Watched(os.environ)
import tim_async
import asyncio
from tim_async import TIMClient
assert asyncio.events._get_running_loop() is None
assert asyncio.get_event_loop_policy()._local._loop is None
assert not logging.getLogger().handlers and not logging.getLogger("tim_async").handlers
assert logging.getLogger("tim_async").level == logging.NOTSET
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(tim_async.__file__).parents[1],
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
