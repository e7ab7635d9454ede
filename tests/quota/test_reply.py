"""Replies of ``quota.lua``, and what is none."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async._limiter.reply import Reply, read_reply

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.integers(0, 10**7) | st.sampled_from([10**400, float("inf"), float("nan"), -1, None, "1"])


@given(ANYTHING.map(json.dumps) | st.text() | st.binary() | ANYTHING)
def test_garbage_is_a_value_error(data: Any) -> None:
    """Whatever a store, a proxy or another program answers: never another exception."""
    with pytest.raises(ValueError):
        read_reply(data)


@given(
    fields=st.fixed_dictionaries(
        {"rate": st.just(200)},
        optional={"cuts": NUMBERS, "opens": NUMBERS, "settling": NUMBERS, "over": NUMBERS, "slot_bound": ANYTHING},
    ),
    rate=st.none() | NUMBERS,
    permits=st.none() | st.lists(st.tuples(NUMBERS, NUMBERS) | st.lists(NUMBERS), max_size=2),
)
def test_a_reply_has_no_time_that_cannot_be(
    fields: dict[str, Any], rate: float | None, permits: list[Any] | None
) -> None:
    """Infinity and NaN, which JSON does not know and Python's reader takes, would stop all calls for ever."""
    document = {"cuts": 0, "opens": 0, **fields}
    document |= {} if rate is None else {"rate": rate}
    document |= {} if permits is None else {"permits": permits}
    with contextlib.suppress(ValueError):
        reply = read_reply(json.dumps(document))
        assert 0 < reply.rate < math.inf
        waits = [wait for _, wait in reply.permits]
        assert all(math.isfinite(span) for span in (reply.opens, reply.settling, reply.over, *waits))


def test_what_is_absent_is_nothing() -> None:
    """cjson writes an empty list as {}, so the script leaves it out."""
    assert read_reply(b'{"rate":200.5,"cuts":3,"opens":0}') == Reply(200.5, 3)


@pytest.mark.parametrize("number", [1, 1_796_000_000_123_457, 2**53])
def test_permits_keep_all_their_digits(number: int) -> None:
    text = json.dumps({"rate": 1, "cuts": 0, "opens": 0, "permits": [[str(number), 1500]]})
    assert read_reply(text).permits == ((number, 0.0015),)
