"""Verification and parsing of webhooks; any bad request raises `WebhookError` and nothing else."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import hmac
import json
import pickle
import re
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, MultiDict, MultiDictProxy
from starlette.datastructures import QueryParams

from tim_async.webhooks import (
    ANSWER,
    Event,
    MsgReceipt,
    MsgReport,
    ReadReceipt,
    RequestOverLimit,
    WebhookError,
    _signature,
    parse,
    verify,
)

# The vendor's own example.
TOKEN = "xxxxyyyy"
TIME = 1669872112
SIGN = "17773bc39a671d7b9aa835458704d2a6db81360a5940292b587d6d760d484061"
SIGNED = {"Sign": SIGN, "RequestTime": str(TIME)}

APP = {"SdkAppid": "1400000000", "contenttype": "json", "ClientIP": "127.0.0.1", "OptPlatform": "iOS"}

MSG_REPORT: dict[str, Any] = {
    "CallbackCommand": "C2C.CallbackAfterMsgReport",
    "Report_Account": "jared",
    "Peer_Account": "管理员",
    "LastReadTime": 1614754606,
    "UnreadMsgNum": 7,
    "EventTime": 1670574414123,
}
READ_RECEIPT: dict[str, Any] = {
    "CallbackCommand": "Group.CallbackAfterReadReceipt",
    "GroupId": "@TGS#2TTV7VSII",
    "Type": "Public",
    "GroupMsgReceiptList": [
        {"MsgSeq": 1, "ReadNum": 1, "UnreadNum": 6, "ReadReceiptMembers": [{"Member_Account": "user0"}]},
        {
            "MsgSeq": 2,
            "ReadNum": 2,
            "UnreadNum": 5,
            "ReadReceiptMembers": [{"Member_Account": "user1"}, {"Member_Account": "user2"}],
        },
    ],
    "EventTime": "1670574414123",
}
OVER_LIMIT: dict[str, Any] = {
    "CallbackCommand": "Alert.RequestOverLimit",
    "ServiceName": "openim",
    "Command": "batchsendmsg",
    "Request": 510,
    "Limit": 200,
}
ALL: list[dict[str, Any]] = [MSG_REPORT, READ_RECEIPT, OVER_LIMIT]
OTHER: dict[str, Any] = {"CallbackCommand": "Group.CallbackAfterSendMsg", "GroupId": "g", "EventTime": "soon"}


def signed(request_time: str | int, token: str = TOKEN) -> dict[str, str]:
    """Return the two signature parameters, as the service makes them."""
    return {"Sign": hashlib.sha256(f"{token}{request_time}".encode()).hexdigest(), "RequestTime": str(request_time)}


def read(fields: Mapping[str, Any], **query: str) -> Any:
    """Parse a body, with its command in the query, too, as the service sends it."""
    return parse({"CallbackCommand": str(fields["CallbackCommand"]), **APP, **query}, json.dumps(fields).encode())


def refusal(function: Callable[..., object], *arguments: Any) -> str:
    """Return the text of the WebhookError that a call raises."""
    try:
        found = function(*arguments)
    except WebhookError as failure:
        return str(failure)
    raise AssertionError(f"{arguments!r} gave {found!r}")


# Signatures.


def test_the_vendors_example_is_accepted() -> None:
    """`verify` returns True."""
    assert verify(TOKEN, SIGNED, TIME) is True
    assert signed(TIME) == SIGNED


def test_a_request_is_accepted_for_a_minute_before_and_after_its_time() -> None:
    """Exactly a minute is accepted; a later or earlier time is rejected despite its valid signature."""
    for away in (0, 0.4, -0.4, 59.9, 60, -60, 60.0, -60.0):
        assert verify(TOKEN, SIGNED, TIME + away)
    for away in (61, -61, 60.01, -60.01, 3600, -3600, 10**9, -TIME):
        said = refusal(verify, TOKEN, SIGNED, TIME + away)
        assert "RequestTime" in said
        assert ("ago" in said) == (away > 0)


def test_now_defaults_to_the_clock() -> None:
    assert verify(TOKEN, signed(int(time.time())))
    with pytest.raises(WebhookError, match="ago"):
        verify(TOKEN, SIGNED)  # the vendor's example is of 2022
    with pytest.raises(WebhookError, match="ago"):
        verify(TOKEN, SIGNED, None)


forged = st.text() | st.text("0123456789abcdef", min_size=64, max_size=64)


@given(forged.filter(lambda sign: sign != SIGN))
@example("")
@example(SIGN[:-1])
@example(SIGN + "0")
@example("2" + SIGN[1:])
@example(SIGN.upper())
@example(" " + SIGN)
@example(SIGN + "\n")
@example(SIGN + "\0")
@example(hashlib.sha256(str(TIME).encode()).hexdigest())
@example(hashlib.sha256(f"{TIME}{TOKEN}".encode()).hexdigest())
@example("\uff11\uff17\uff17\uff17\uff13")  # full-width digits
@example("f" * 100_000)
def test_a_forged_signature_is_rejected(sign: str) -> None:
    """Any text but the exact signature is rejected, another spelling of it included."""
    assert "Sign" in refusal(verify, TOKEN, {**SIGNED, "Sign": sign}, TIME)


def test_two_webhooks_of_one_second_are_both_accepted() -> None:
    """Their signatures are equal, whatever their bodies, so a repeated signature is no replay."""
    for _ in range(2):
        assert verify(TOKEN, {**SIGNED, **APP, "CallbackCommand": "x"}, TIME)


def test_a_signature_of_another_token_or_time_is_rejected() -> None:
    for token in ("xxxxyyyz", "XXXXYYYY", "xxxxyyyy ", "x", "令牌"):
        assert refusal(verify, token, SIGNED, TIME)
        assert verify(token, signed(TIME, token), TIME)
    assert refusal(verify, TOKEN, {**SIGNED, "RequestTime": str(TIME + 1)}, TIME)


def test_moving_a_digit_from_the_time_to_the_token_is_rejected() -> None:
    """Token and time are joined without a separator, so the signature stays valid; the shortened time is long past."""
    assert signed(TIME, TOKEN)["Sign"] == signed(str(TIME)[1:], TOKEN + "1")["Sign"]
    assert refusal(verify, TOKEN + "1", {**SIGNED, "RequestTime": str(TIME)[1:]}, TIME)


PLAIN = re.compile(r"[0-9]{1,15}")


@given(
    st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not PLAIN.fullmatch(text))
    | st.text(st.characters(categories=["Nd", "No"])).filter(lambda text: not text.isascii())
)
@example("")
@example(f" {TIME}")
@example(f"{TIME} ")
@example(f"{TIME}\n")
@example(f"+{TIME}")
@example(f"-{TIME}")
@example(f"{TIME}.0")
@example("1_669_872_112")
@example("1e9")
@example("nan")
@example("0" * 6 + str(TIME))
@example("9" * 16)
@example("9" * 5000)
def test_a_request_time_is_ascii_digits(request_time: str) -> None:
    """Other texts that int() accepts are rejected, even with a valid signature."""
    assert "RequestTime" in refusal(verify, TOKEN, signed(request_time), TIME)


def test_a_parameter_is_a_single_string() -> None:
    """A missing, repeated or ill-typed one is rejected, and so is text that cannot be encoded."""
    for key in ("Sign", "RequestTime"):
        assert key in refusal(verify, TOKEN, {name: text for name, text in SIGNED.items() if name != key}, TIME)
        values: list[object] = [None, 5, TIME, True, b"x", [], (), [SIGN, SIGN], [str(TIME)] * 2, [5], {}, "\ud800"]
        for value in values:
            assert key in refusal(verify, TOKEN, {**SIGNED, key: value}, TIME)


def test_parameter_names_are_case_sensitive() -> None:
    assert "Sign is missing" in refusal(verify, TOKEN, {"sign": SIGN, "RequestTime": str(TIME)}, TIME)


URL_QUERY = urlencode({"CallbackCommand": "Alert.RequestOverLimit", **APP, **SIGNED})
MAPPINGS = {
    "dict": lambda query: dict(parse_qsl(query)),
    "parse_qs": parse_qs,
    "tuples": lambda query: {key: tuple(values) for key, values in parse_qs(query).items()},
    "starlette": QueryParams,
    "aiohttp": lambda query: MultiDictProxy(MultiDict(parse_qsl(query))),
    "aiohttp, any case": lambda query: CIMultiDict(parse_qsl(query)),
}
MULTI_MAPPINGS = {name: make for name, make in MAPPINGS.items() if name != "dict"}


@pytest.mark.parametrize("make", MAPPINGS.values(), ids=MAPPINGS)
def test_query_mappings_of_web_frameworks_are_accepted(make: Any) -> None:
    assert verify(TOKEN, make(URL_QUERY), TIME)
    event = parse(make(URL_QUERY), json.dumps(OVER_LIMIT))
    assert (event.sdk_app_id, event.client_ip, event.opt_platform) == (1400000000, "127.0.0.1", "iOS")


@pytest.mark.parametrize("make", MULTI_MAPPINGS.values(), ids=MULTI_MAPPINGS)
def test_a_repeated_parameter_is_rejected(make: Any) -> None:
    """Frameworks differ in whether the first or the last one counts; equal and unsigned ones are rejected, too."""
    for again in ("Sign", "RequestTime"):
        assert f"{again} has 2 values" in refusal(verify, TOKEN, make(f"{URL_QUERY}&{again}={SIGNED[again]}"), TIME)
        assert f"{again} has 2 values" in refusal(verify, TOKEN, make(f"{again}=0&{URL_QUERY}"), TIME)
    for again in ("CallbackCommand", "SdkAppid", "ClientIP", "OptPlatform"):
        with pytest.raises(WebhookError, match=f"{again} has 2 values"):
            parse(make(f"{URL_QUERY}&{again}=1"), json.dumps(OVER_LIMIT))


MISTAKES: dict[str, list[tuple[type[Exception], list[Any]]]] = {
    # An empty token would accept any sender.  NaN is not more than a minute from any time.
    "token": [(ValueError, ["", "\ud800", "x\udcff"]), (TypeError, [None, b"xxxxyyyy", 5])],
    "now": [
        (ValueError, [float("nan"), float("inf"), -float("inf"), 1e15, 10**400, -(10**400)]),
        (TypeError, ["1669872112", True, b"1"]),
    ],
    # Above all not the query as a string, in which every name is found.
    "query": [(TypeError, [None, "Sign=x&RequestTime=1", b"Sign", [("Sign", SIGN)], 5])],
    # Nor a body that a framework has already decoded.
    "body": [(TypeError, [None, 5, {}, MSG_REPORT, [b"{}"], memoryview(b"{}")])],
}


@pytest.mark.parametrize("argument", MISTAKES)
def test_a_bad_argument_is_a_value_error_or_type_error(argument: str) -> None:
    """The error names the argument and has no context, which could show the token."""
    calls: list[tuple[Any, dict[str, Any]]] = [
        (verify, {"token": TOKEN, "query": signed(TIME, ""), "now": TIME}),
        (parse, {"query": {"CallbackCommand": "x"}, "body": b"{}"}),
    ]
    for function, arguments in calls:
        for kind, values in MISTAKES[argument] if argument in arguments else ():
            for value in values:
                with pytest.raises(kind, match=argument) as caught:
                    function(**{**arguments, argument: value})
                assert not isinstance(caught.value, UnicodeError)
                assert caught.value.__context__ is None


class Spy:
    """Records the hashes and comparisons of verify."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hashed: list[bytes] = []
        self.compared: list[tuple[bytes, bytes]] = []
        monkeypatch.setattr(_signature, "hashlib", SimpleNamespace(sha256=self._sha256))
        monkeypatch.setattr(_signature, "hmac", SimpleNamespace(compare_digest=self._compare))

    def _sha256(self, data: bytes) -> Any:
        self.hashed.append(data)
        return hashlib.sha256(data)

    def _compare(self, a: bytes, b: bytes) -> bool:
        self.compared.append((a, b))
        return hmac.compare_digest(a, b)


def test_every_request_costs_one_hash_and_one_comparison_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """For valid, forged and late requests; the sent bytes are second, since the duration depends on their length.

    The test reads private names because a duration that depends on the token cannot be measured reliably.
    """
    spy = Spy(monkeypatch)
    for sign in (SIGN, "0" * 64, "", "é", SIGN[:-1]):
        for away in (0, 61, -61, 10**6):
            spy.hashed.clear()
            spy.compared.clear()
            try:
                verify(TOKEN, {**SIGNED, "Sign": sign}, TIME + away)
            except WebhookError:
                assert (sign, away) != (SIGN, 0)
            assert spy.hashed == [f"{TOKEN}{TIME}".encode()]
            assert spy.compared == [(SIGN.encode(), sign.encode())]


def test_the_error_of_a_late_request_does_not_depend_on_its_signature() -> None:
    for away in (61, -61):
        assert refusal(verify, TOKEN, SIGNED, TIME + away) == refusal(
            verify, TOKEN, {**SIGNED, "Sign": "0" * 64}, TIME + away
        )


SECRET = "tok3nthatnobodymaysee"


def test_no_error_shows_the_token_or_the_valid_signature() -> None:
    """Not in its text, its repr, its pickle or its context."""
    queries: list[tuple[dict[str, str], float]] = [
        ({}, TIME),
        ({"RequestTime": str(TIME)}, TIME),
        ({"Sign": "0" * 64, "RequestTime": str(TIME)}, TIME),
        (signed(TIME, SECRET), TIME + 100),
        ({"Sign": "0" * 64, "RequestTime": "x"}, TIME),
    ]
    for query, now in queries:
        with pytest.raises(WebhookError) as caught:
            verify(SECRET, query, now)
        failure = caught.value
        for text in (str(failure), repr(failure), repr(vars(failure)), repr(pickle.dumps(failure))):
            assert SECRET not in text
            assert signed(TIME, SECRET)["Sign"] not in text
        assert failure.__context__ is None


QUERY_VALUE = st.none() | st.text() | st.integers() | st.binary() | st.lists(st.text(), max_size=2) | st.just(SIGN)
QUERY = st.dictionaries(
    st.sampled_from(["Sign", "RequestTime", "SdkAppid", "CallbackCommand", "ClientIP", "OptPlatform"]) | st.text(),
    QUERY_VALUE | st.text("0123456789", max_size=20) | st.text(st.characters(categories=["Nd", "Cs"])),
)


@given(token=st.text(min_size=1).filter(lambda text: text.isprintable()), query=QUERY, now=st.floats(-1e14, 1e14))
def test_a_random_query_raises_webhook_error(token: str, query: Any, now: float) -> None:
    with pytest.raises(WebhookError):
        verify(token, query, now)


@given(
    token=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    request_time=st.integers(0, 10**14),
    away=st.integers(-200, 200),
)
def test_a_valid_signature_is_accepted_for_a_minute_and_no_longer(token: str, request_time: int, away: int) -> None:
    query = signed(request_time, token)
    try:
        accepted = bool(verify(token, query, request_time + away))
    except WebhookError:
        accepted = False
    assert accepted == (abs(away) <= 60)


# Parsing.


def test_a_msg_report_is_parsed() -> None:
    """The vendor's example, with an EventTime added."""
    assert read(MSG_REPORT) == MsgReport(
        callback_command="C2C.CallbackAfterMsgReport",
        sdk_app_id=1400000000,
        client_ip="127.0.0.1",
        opt_platform="iOS",
        event_time=1670574414123,
        body=MSG_REPORT,
        report_account="jared",
        peer_account="管理员",
        last_read_time=1614754606,
        unread_msg_num=7,
    )


def test_a_read_receipt_is_parsed() -> None:
    """The vendor's example, in which EventTime is a string."""
    assert read(READ_RECEIPT) == ReadReceipt(
        callback_command="Group.CallbackAfterReadReceipt",
        sdk_app_id=1400000000,
        client_ip="127.0.0.1",
        opt_platform="iOS",
        event_time=1670574414123,
        body=READ_RECEIPT,
        group_id="@TGS#2TTV7VSII",
        type="Public",
        receipts=(
            MsgReceipt(msg_seq=1, read_num=1, unread_num=6, members=("user0",)),
            MsgReceipt(msg_seq=2, read_num=2, unread_num=5, members=("user1", "user2")),
        ),
    )


def test_an_alert_is_parsed() -> None:
    """The vendor's example, which has no ClientIP and no EventTime."""
    query = {"CallbackCommand": "Alert.RequestOverLimit", "SdkAppid": "1400000000", "OptPlatform": "RESTAPI"}
    event = parse(query, json.dumps(OVER_LIMIT))
    assert event == RequestOverLimit(
        callback_command="Alert.RequestOverLimit",
        sdk_app_id=1400000000,
        client_ip="",
        opt_platform="RESTAPI",
        event_time=None,
        body=OVER_LIMIT,
        service_name="openim",
        command="batchsendmsg",
        request=510,
        limit=200,
    )


def test_a_command_without_a_class_of_its_own_is_a_plain_event() -> None:
    """It has the whole body, of which no field is validated."""
    event = read(OTHER)
    assert type(event) is Event
    assert (event.callback_command, event.event_time, event.body) == ("Group.CallbackAfterSendMsg", None, OTHER)
    assert read({**OTHER, "EventTime": 5}).event_time == 5
    assert type(read({"CallbackCommand": "c2c.callbackaftermsgreport"})) is Event


def test_unknown_fields_are_kept_in_the_body() -> None:
    """The vendor adds fields without notice; an escaped surrogate pair is one character."""
    for fields in (*ALL, OTHER):
        assert read({**fields, "New": {"a": [1.5, None, "😀"]}}).body["New"] == {"a": [1.5, None, "😀"]}


def test_a_body_is_bytes_bytearray_or_str_escaped_or_not() -> None:
    for fields in (*ALL, OTHER):
        event = read(fields)
        query = {"CallbackCommand": fields["CallbackCommand"], **APP}
        plain = json.dumps(fields, ensure_ascii=False)
        for body in (plain, plain.encode(), bytearray(plain.encode()), json.dumps(fields), f" \n{plain}\t"):
            assert parse(query, body) == event


REMOVED = object()


def changed(fields: Mapping[str, Any], *path: Any, value: Any = REMOVED) -> dict[str, Any]:
    """A copy with one field, however deep, given another value or taken away."""
    result = copy.deepcopy(dict(fields))
    place: Any = result
    for key in path[:-1]:
        place = place[key]
    if value is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return result


ROW = ("GroupMsgReceiptList", 0)
NUMBERS: list[tuple[dict[str, Any], tuple[Any, ...], str]] = [
    (MSG_REPORT, ("LastReadTime",), "last_read_time"),
    (MSG_REPORT, ("UnreadMsgNum",), "unread_msg_num"),
    (MSG_REPORT, ("EventTime",), "event_time"),
    (READ_RECEIPT, ("EventTime",), "event_time"),
    (READ_RECEIPT, (*ROW, "MsgSeq"), "msg_seq"),
    (READ_RECEIPT, (*ROW, "ReadNum"), "read_num"),
    (READ_RECEIPT, (*ROW, "UnreadNum"), "unread_num"),
    (OVER_LIMIT, ("EventTime",), "event_time"),
    (OVER_LIMIT, ("Request",), "request"),
    (OVER_LIMIT, ("Limit",), "limit"),
]
OPTIONAL = {"event_time", "unread_msg_num"}
NAMES: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
    (MSG_REPORT, ("Report_Account",)),
    (MSG_REPORT, ("Peer_Account",)),
    (READ_RECEIPT, ("GroupId",)),
    (READ_RECEIPT, (*ROW, "ReadReceiptMembers", 0, "Member_Account")),
    (OVER_LIMIT, ("ServiceName",)),
    (OVER_LIMIT, ("Command",)),
]
NOT_NUMBERS = [True, False, -1, 1.0, 1.5, "", " 1", "1 ", "1\n", "+1", "-1", "1_0", "1.0", "\u0661", "x", [], {}, [1]]


@pytest.mark.parametrize(("fields", "path", "name"), NUMBERS)
def test_a_number_is_an_int_or_a_string_of_digits(fields: dict[str, Any], path: tuple[Any, ...], name: str) -> None:
    """The vendor's samples have both forms, even of the same field.  Only documented ones may be absent or null.

    The error names the field without its value.
    """
    for written in (1, "1", 2**63 - 1, str(2**63 - 1)):
        event = read(changed(fields, *path, value=written))
        found = getattr(event.receipts[0] if len(path) > 1 else event, name)
        assert type(found) is int
        assert found == int(written)
    undocumented = f"{path[-1]} is missing from the webhook or not as documented"
    for value in (*NOT_NUMBERS, 2**63, "9" * 20, "9" * 5000):
        assert refusal(read, changed(fields, *path, value=value)) == undocumented
    absent = [changed(fields, *path, value=None)]
    if len(path) > 1 or path[-1] in fields:
        absent.append(changed(fields, *path))
    for body in absent:
        if name in OPTIONAL:
            assert getattr(read(body), name) is None
        else:
            assert refusal(read, body) == undocumented


def test_a_count_may_be_zero_and_a_limit_must_be_positive() -> None:
    """Code that divides by the limit need not check it."""
    assert read({**MSG_REPORT, "UnreadMsgNum": 0, "LastReadTime": "0"}).unread_msg_num == 0
    assert read({**OVER_LIMIT, "Request": 0}).request == 0
    for zero in (0, "0", "000"):
        with pytest.raises(WebhookError, match="Limit"):
            read({**OVER_LIMIT, "Limit": zero})


def test_names_are_required_non_empty_strings() -> None:
    """Only the type of a group may be empty."""
    assert read({**READ_RECEIPT, "Type": ""}).type == ""
    for fields, path in NAMES:
        assert path[-1] in refusal(read, changed(fields, *path, value=""))
    for fields, path in (*NAMES, (READ_RECEIPT, ("Type",))):
        for value in (REMOVED, None, 5, True, 1.5, [], {}, ["a"], {"a": "b"}):
            assert path[-1] in refusal(read, changed(fields, *path, value=value))


def test_the_list_of_receipts_is_required_and_may_be_empty() -> None:
    assert read({**READ_RECEIPT, "GroupMsgReceiptList": []}).receipts == ()
    values: list[object] = [REMOVED, None, 5, "x", {}, [None], [5], ["x"], [[]], [{}]]
    for value in values:
        assert refusal(read, changed(READ_RECEIPT, "GroupMsgReceiptList", value=value))


def test_a_receipt_before_any_reader_has_no_members() -> None:
    """The service announces the sending of such a message, too."""
    path = (*ROW, "ReadReceiptMembers")
    empty: list[object] = [REMOVED, None, []]
    for value in empty:
        assert read(changed(READ_RECEIPT, *path, value=value)).receipts[0].members == ()
    ill_typed: list[object] = [5, "user0", {}, ["user0"], [None], [{}]]
    for wrong in ill_typed:
        with pytest.raises(WebhookError, match=r"ReadReceiptMembers|Member_Account"):
            read(changed(READ_RECEIPT, *path, value=wrong))


def test_the_commands_of_query_and_body_must_be_equal() -> None:
    """One of the two is enough; an empty one counts as missing."""
    for fields in ALL:
        command = str(fields["CallbackCommand"])
        bare = {key: value for key, value in fields.items() if key != "CallbackCommand"}
        kinds = {
            type(parse({"CallbackCommand": command}, json.dumps(bare))),
            type(parse({}, json.dumps(fields))),
            type(parse({"CallbackCommand": ""}, json.dumps(fields))),
            type(parse({"CallbackCommand": command}, json.dumps({**fields, "CallbackCommand": None}))),
        }
        assert kinds == {type(read(fields))}
        with pytest.raises(WebhookError, match="CallbackCommand"):
            parse({"CallbackCommand": command + "x"}, json.dumps(fields))
        ill_typed: list[object] = [5, True, [], {}, [command]]
        for wrong in ill_typed:
            with pytest.raises(WebhookError, match="CallbackCommand"):
                parse({"CallbackCommand": command}, json.dumps({**fields, "CallbackCommand": wrong}))
    for query in ({}, {"CallbackCommand": ""}):
        with pytest.raises(WebhookError, match="CallbackCommand is missing"):
            parse(query, b"{}")


def test_the_app_id_comes_from_the_query() -> None:
    """It is None without one, which equals no app's id."""
    assert read(MSG_REPORT, SdkAppid="0020").sdk_app_id == 20
    assert parse({}, json.dumps(MSG_REPORT)).sdk_app_id is None
    for wrong in ("", "x", "-1", " 1", "1.0", "\u0661", "9" * 20, "9" * 5000, "\ud800"):
        with pytest.raises(WebhookError, match="SdkAppid"):
            read(MSG_REPORT, SdkAppid=wrong)
    with pytest.raises(WebhookError, match="SdkAppid"):
        parse({"SdkAppid": 5}, json.dumps(MSG_REPORT))  # type: ignore[dict-item]


DEEP = 100_000
GARBAGE: list[bytes | str] = [
    b"",
    b" ",
    b"CallbackCommand=x",
    json.dumps(MSG_REPORT).encode()[:-1],  # cut
    json.dumps(MSG_REPORT) + "{}",  # followed by more
    b"[]",
    b'"x"',
    b"5",
    b"null",
    json.dumps(MSG_REPORT).encode().replace(b"jared", b"jar\xe9d"),  # not UTF-8
    json.dumps(MSG_REPORT).encode("utf-16"),
    b"\xef\xbb\xbf" + json.dumps(MSG_REPORT).encode(),  # a byte order mark
    b"\0",
    json.dumps({**OVER_LIMIT, "More": float("nan")}),
    json.dumps({**OVER_LIMIT, "More": -float("inf")}),
    json.dumps(OVER_LIMIT).replace("510", "1e999"),  # an overflow
    json.dumps(OVER_LIMIT).replace("510", "1" * 10_000),  # a huge number
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
    '{"a":' + "[" * DEEP + "]" * DEEP + "}",
    json.dumps({**MSG_REPORT, "Peer_Account": "\ud800"}),  # a lone surrogate, escaped
    json.dumps({**OTHER, "More": ["\udc00x"]}),  # a lone surrogate, in an unknown field
    json.dumps({**OTHER, "\ud800": 1}),  # a lone surrogate, in a key
    json.dumps({**MSG_REPORT, "Peer_Account": "\ud800"}, ensure_ascii=False),  # a lone surrogate, not escaped
]


def test_a_body_that_is_not_a_json_object_is_rejected() -> None:
    """For every command; the error does not show the body."""
    for body in GARBAGE:
        for fields in (*ALL, OTHER):
            assert len(refusal(parse, {"CallbackCommand": fields["CallbackCommand"]}, body)) < 100


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
COMMANDS = st.sampled_from([str(fields["CallbackCommand"]) for fields in [*ALL, OTHER]])


@given(query=QUERY, body=st.binary(max_size=50) | st.text(max_size=50) | JSON.map(json.dumps))
def test_a_random_request_is_parsed_or_raises_webhook_error(query: Any, body: bytes | str) -> None:
    try:
        assert isinstance(parse(query, body), Event)
    except WebhookError:
        return


@given(data=st.data(), command=COMMANDS)
def test_a_random_value_in_any_field_is_parsed_or_raises_webhook_error(data: st.DataObject, command: str) -> None:
    """The fields of a parsed event have their documented types."""
    fields = copy.deepcopy(next(fields for fields in [*ALL, OTHER] if fields["CallbackCommand"] == command))
    place: Any = fields
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        if not place[key] or not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    try:
        event = parse({"CallbackCommand": command}, json.dumps(fields))
    except WebhookError:
        return
    assert event.callback_command == command
    for name in ("event_time", "last_read_time", "request", "limit"):
        assert type(getattr(event, name, None)) in {int, type(None)}
    for name in ("report_account", "peer_account", "group_id", "type", "service_name", "command"):
        assert isinstance(getattr(event, name, ""), str)


# Events.

EVENTS = [read(fields) for fields in [*ALL, OTHER]]


def test_events_are_immutable_and_compare_hash_copy_and_pickle() -> None:
    """So they can go into sets, queues and other processes.  The repr leaves out the body."""
    for event in EVENTS:
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.sdk_app_id = 5
        with pytest.raises((AttributeError, TypeError)):
            event.anything = 5
        for other in (pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event)):
            assert (type(other), other, hash(other)) == (type(event), event, hash(event))
        assert dataclasses.replace(event, body={}) != event
        assert len({event, *EVENTS}) == len(EVENTS)
        assert isinstance(event, Event)
        start = f"{type(event).__name__}(callback_command={event.callback_command!r}, sdk_app_id=1400000000,"
        assert repr(event).startswith(start)
        assert "body" not in repr(event)
        assert "Account'" not in repr(event)


def test_events_can_be_constructed_and_matched() -> None:
    """By keyword only; the command is that of the class."""
    event = RequestOverLimit(service_name="openim", command="sendmsg", request=170, limit=200)
    assert (event.callback_command, event.sdk_app_id, event.body) == ("Alert.RequestOverLimit", None, {})
    match event:
        case RequestOverLimit(command="sendmsg", limit=limit):
            assert limit == 200
        case _:
            pytest.fail("not matched")
    with pytest.raises(TypeError):
        MsgReceipt(1, 2, 3)  # type: ignore[call-arg]


def test_an_alert_names_the_path_of_its_endpoint() -> None:
    """The path has one version, whether or not the service sends it."""
    for service, command, path in (
        ("openim", "admin_set_msg_read", "v4/openim/admin_set_msg_read"),
        ("v4/openim", "admin_set_msg_read", "v4/openim/admin_set_msg_read"),
        ("/v4/openim/", "/admin_set_msg_read/", "v4/openim/admin_set_msg_read"),
        ("group_open_http_svc", "get_group_msg_receipt", "v4/group_open_http_svc/get_group_msg_receipt"),
        ("v5/openim", "x", "v5/openim/x"),
        ("v4x", "x", "v4/v4x/x"),
        ("/", "/", "v4"),
        ("", "", "v4"),
        ("é", "\ud800", "v4/é/\ud800"),
    ):
        assert RequestOverLimit(service_name=service, command=command, request=1, limit=200).path == path


@given(service=st.text() | st.none() | st.integers(), command=st.text() | st.none() | st.binary())
def test_the_path_of_an_alert_never_raises(service: Any, command: Any) -> None:
    """Not even for values that the service cannot have sent."""
    assert RequestOverLimit(service_name=service, command=command, request=1, limit=1).path.startswith("v")


def test_the_answer_is_as_documented() -> None:
    assert json.loads(ANSWER) == {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0}
    assert isinstance(ANSWER, bytes)
