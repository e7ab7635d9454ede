"""Replies of ``quota.lua``, and what is none."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hypotheses import at_most
from tim_async._limiter.reply import Reply, read_reply

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
NUMBERS = st.integers(0, 10**7) | st.sampled_from([10**400, float("inf"), float("nan"), -1, None, "1"])


@at_most(30)
@given(ANYTHING.map(json.dumps) | st.text() | st.binary() | ANYTHING)
def test_garbage_is_a_value_error(data: Any) -> None:
    """Whatever a store, a proxy or another program answers: never another exception."""
    with pytest.raises(ValueError):
        read_reply(data)


LEAST = {"number": 7, "epoch": "1750000000000000", "now": "1750000000000001", "limit": 200, "rate": 150.5, "cuts": 2,
         "members": 3, "place": 1}  # fmt: skip


@given(
    changed=st.dictionaries(
        st.sampled_from([*Reply._fields]), NUMBERS | ANYTHING | st.lists(st.tuples(NUMBERS, NUMBERS), max_size=2)
    )
)
def test_a_reply_has_no_time_that_cannot_be(changed: dict[str, Any]) -> None:
    """Infinity and NaN, which JSON does not know and Python's reader takes, would stop all calls for ever."""
    with contextlib.suppress(ValueError):
        reply = read_reply(json.dumps({**LEAST, **changed}))
        waits = [wait for wait, _ in reply.permits]
        assert all(math.isfinite(span) for span in (reply.now, reply.opens, reply.settling, reply.again, *waits))
        assert reply.stale or 0 < reply.rate < math.inf
        assert reply.stale or 0 < reply.limit < math.inf


def test_a_reply_is_read_whole() -> None:
    """Spans of time are microseconds there and seconds here; cjson writes an empty list as {}, so it is left out."""
    head = Reply(7, "1750000000000000", 1750000000.000001, 200.0, 150.5, 2, 3, 1)
    assert read_reply(json.dumps(LEAST)) == head
    assert read_reply(json.dumps({**LEAST, "rate": 0.5})) == head._replace(rate=0.5)
    more = {"opens": 1500000, "settling": 450000, "slot_bound": True, "again": 250000, "over": True,
            "permits": [[2000, 1], [5000, 4]]}  # fmt: skip
    assert read_reply(json.dumps({**LEAST, **more}).encode()) == head._replace(
        opens=1.5, settling=0.45, slot_bound=True, again=0.25, over=True, permits=((0.002, 1), (0.005, 4))
    )


def test_a_request_that_came_too_late_has_only_a_number_for_an_answer() -> None:
    assert read_reply('{"number":9}') == Reply(9)
    assert read_reply('{"number":9}').stale
    assert not read_reply(json.dumps(LEAST)).stale


@pytest.mark.parametrize("missing", LEAST)
def test_a_reply_of_another_program_is_named(missing: str) -> None:
    fields = {name: value for name, value in LEAST.items() if name != missing}
    if missing != "epoch":
        with pytest.raises(ValueError, match=r"^the store's reply is not that of quota\.lua$"):
            read_reply(json.dumps(fields))


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate", 0), ("rate", -1), ("rate", math.inf), ("limit", 0), ("limit", math.nan), ("limit", math.inf),
     *((name, math.nan) for name in ("opens", "settling", "again", "now"))],
)  # fmt: skip
def test_a_time_that_cannot_be_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"^the store's reply has an impossible rate or time$"):
        read_reply(json.dumps({**LEAST, field: value}))
