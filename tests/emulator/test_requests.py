"""The requirements on every call: method, path, query, signature, a JSON object."""

from __future__ import annotations

import json

from tim_async.emulator import Emulator
from tim_async.endpoints import ENDPOINTS

from .support import C2C_UNREAD, Caller, Clock, query, usersig


async def test_every_endpoint_of_the_client_is_served_under_its_own_name(call: Caller) -> None:
    for endpoint in ENDPOINTS:
        assert await call.code(endpoint.command, {}) != 60008
    assert list(call.service.report().endpoints) == [endpoint.name for endpoint in ENDPOINTS]


async def test_a_well_formed_call_succeeds_at_both_ends_of_random(call: Caller) -> None:
    call.service.state.add_account("a")
    for random in ("0", "4294967295"):
        assert await call.code(C2C_UNREAD, {"To_Account": "a"}, query(random=random)) == 0


async def test_an_invalid_query_is_refused(call: Caller) -> None:
    wrong: list[tuple[dict[str, str | None], int]] = [
        ({"sdkappid": None}, 60012),
        ({"sdkappid": "1400000001"}, 60006),
        ({"sdkappid": "0x1"}, 60006),
        ({"identifier": None}, 60004),
        ({"identifier": "someone"}, 70013),
        ({"identifier": "someone", "usersig": usersig("someone")}, 60010),
        ({"usersig": None}, 70002),
        ({"random": None}, 60002),
        ({"random": "-1"}, 60002),
        ({"random": "4294967296"}, 60002),
        ({"random": "1.5"}, 60002),
        ({"random": "\u0663"}, 60002),
        ({"random": "9" * 5000}, 60002),
        ({"contenttype": None}, 60002),
        ({"contenttype": "xml"}, 60002),
    ]
    body = {"To_Account": "administrator"}
    assert [(changes, await call.code(C2C_UNREAD, body, query(**changes))) for changes, _ in wrong] == wrong


async def test_names_in_the_query_are_case_sensitive(call: Caller) -> None:
    params = {("SdkAppId" if name == "sdkappid" else name): value for name, value in query().items()}
    assert await call.code(C2C_UNREAD, {"To_Account": "administrator"}, params) == 60012


async def test_a_command_that_does_not_exist_is_refused(call: Caller) -> None:
    for path in ("", "v4/openim/nothing", "v5/openim/admin_set_msg_read", C2C_UNREAD.upper()):
        assert (path, await call.code(path, {})) == (path, 60008)


async def test_any_method_but_post_is_refused(call: Caller) -> None:
    async with call.session.get(f"{call.service.url}/{C2C_UNREAD}", params=query()) as response:
        assert (await response.json())["ErrorCode"] == 60002


async def test_a_body_that_is_no_json_object_is_refused(call: Caller) -> None:
    for data in (b"", b"{", b"[]", b"null", b'"{}"', b"3", b"\xff", b"[" * 100_000, b"9" * 5000):
        status, body = await call.raw(C2C_UNREAD, data)
        assert (data, status, json.loads(body)["ErrorCode"]) == (data, 200, 60003)


async def test_a_body_that_only_some_parsers_accept_is_refused(call: Caller) -> None:
    """NaN and Infinity are no JSON, and JSON is UTF-8 without a byte order mark."""
    text = '{"To_Account": "a"%s}'
    for more, encoding in (
        (', "more": NaN', "utf-8"),
        (', "more": [-Infinity]', "utf-8"),
        ("", "utf-16"),
        ("", "utf-8-sig"),
    ):
        _, body = await call.raw(C2C_UNREAD, (text % more).encode(encoding))
        assert (more, encoding, json.loads(body)["ErrorCode"]) == (more, encoding, 60003)


async def test_each_administrator_may_call_and_the_first_is_the_default(call: Caller, clock: Clock) -> None:
    async with Emulator(admins=("first", "second"), clock=clock) as service:
        assert service.identifier == "first"
        caller = Caller(service, call.session)
        for name in ("first", "second"):
            params = query(identifier=name, usersig=usersig(name))
            assert await caller.code(C2C_UNREAD, {"To_Account": name}, params) == 0


async def test_no_refusal_repeats_the_query(call: Caller) -> None:
    sig = usersig(secret_key="another")
    answer = await call.answer(C2C_UNREAD, {"To_Account": "a"}, query(usersig=sig))
    assert sig not in str(answer)
