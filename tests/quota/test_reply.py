"""Reading replies of ``quota.lua``."""

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
    """Never another exception, whatever a store, a proxy or another program answers."""
    with pytest.raises(ValueError):
        read_reply(data)


REQUIRED = {"number": 7, "epoch": "1750000000000000", "now": "1750000000000001", "limit": 200, "rate": 150.5, "cuts": 2,
            "members": 3, "place": 1}  # fmt: skip


@given(
    changed=st.dictionaries(
        st.sampled_from([*Reply._fields]), NUMBERS | ANYTHING | st.lists(st.tuples(NUMBERS, NUMBERS), max_size=2)
    )
)
def test_the_times_and_rates_of_a_reply_are_finite(changed: dict[str, Any]) -> None:
    """Python's JSON reader accepts Infinity and NaN, which would stop all calls for ever."""
    with contextlib.suppress(ValueError):
        reply = read_reply(json.dumps({**REQUIRED, **changed}))
        waits = [wait for wait, _ in reply.permits]
        assert all(math.isfinite(span) for span in (reply.now, reply.opens, reply.settling, reply.again, *waits))
        assert reply.stale or 0 < reply.rate < math.inf
        assert reply.stale or 0 < reply.limit < math.inf


def test_every_field_of_a_reply_is_read() -> None:
    """From microseconds to seconds; an empty list is left out, since cjson writes it as {}."""
    head = Reply(7, "1750000000000000", 1750000000.000001, 200.0, 150.5, 2, 3, 1)
    assert read_reply(json.dumps(REQUIRED)) == head
    assert read_reply(json.dumps({**REQUIRED, "rate": 0.5})) == head._replace(rate=0.5)
    more = {"opens": 1500000, "settling": 450000, "slot_bound": True, "again": 250000, "over": True,
            "permits": [[2000, 1], [5000, 4]]}  # fmt: skip
    assert read_reply(json.dumps({**REQUIRED, **more}).encode()) == head._replace(
        opens=1.5, settling=0.45, slot_bound=True, again=0.25, over=True, permits=((0.002, 1), (0.005, 4))
    )


def test_a_stale_reply_has_only_a_number() -> None:
    assert read_reply('{"number":9}') == Reply(9)
    assert read_reply('{"number":9}').stale
    assert not read_reply(json.dumps(REQUIRED)).stale


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_reply_without_a_required_field_is_rejected(missing: str) -> None:
    fields = {name: value for name, value in REQUIRED.items() if name != missing}
    if missing != "epoch":
        with pytest.raises(ValueError, match=r"^the store's reply is not that of quota\.lua$"):
            read_reply(json.dumps(fields))


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate", 0), ("rate", -1), ("rate", math.inf), ("limit", 0), ("limit", math.nan), ("limit", math.inf),
     *((name, math.nan) for name in ("opens", "settling", "again", "now"))],
)  # fmt: skip
def test_an_impossible_rate_or_time_is_rejected(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"^the store's reply has an impossible rate or time$"):
        read_reply(json.dumps({**REQUIRED, field: value}))
