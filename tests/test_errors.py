"""The exceptions: their tree, the table of codes, texts, pickling and copying."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tim_async
from tim_async import (
    APIError,
    BadResponse,
    C2CUnread,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    GroupMsgReceipts,
    ItemError,
    PartialFailure,
    QuotaExhausted,
    RequestTimeout,
    TIMError,
    TransportError,
)
from tim_async.errors import CODES, MAX_INFO, Reaction, brief, classify, printable
from tim_async.quota import QuotaMisconfigured
from tim_async.webhooks import WebhookError

# Copied from the vendor's documents independently of the client's table.
REACTIONS = {
    Reaction.RETRY: "10002 20004 20005 60008 60014 70169 70202 70500 90992 90994 90995 91000",
    Reaction.SLOW_DOWN: "60007 60011 60018 60019 10006 429",
    Reaction.SIGN_AGAIN: "70001 70052 60004 60005 20002",
    Reaction.GIVE_UP: """
        70002 70003 70005 70009 70013 70014 70016 70020 70050 60006 60010 60016 60017 60020 60021 60025 60026 60028
        70051 60013 20003 10008 10016 10026 70346
        10059 90009 10007 10010 10015 70107 90003 90008 90012 90048 10019 10003 10004 10005 10011 10018 60002 60003
        60009 60012 60015 70206 70402 90001 90018 93000 10060 10061 10062""",
}
CLASSES = {
    "AuthError": """70001 70052 60004 60005 20002 70002 70003 70005 70009 70013 70014 70016 70020 70050 60006 60010
        60016 60017 60020 60021 60025 60026 60028 70051 10059 90009""",
    "PermissionDenied": "10007 10026",
    "GroupNotFound": "10010 10015",
    "AccountNotFound": "70107 90003 90008 90012 90048 10019 20003",
    "InvalidRequest": "10003 10004 10005 10011 10018 60002 60003 60009 60012 60015 70206 70402 90001 90018 93000",
    "ReceiptUnavailable": "10060 10061 10062",
    "APIError": "60013 10008 10016 70346",
    "RateLimited": "60007 60011 60018 60019 10006 429",
    "ServerBusy": "10002 20004 20005 60008 60014 70169 70202 70500 90992 90994 90995 91000",
}


def test_each_documented_code_has_its_documented_reaction() -> None:
    documented = {int(code): reaction for reaction, codes in REACTIONS.items() for code in codes.split()}
    assert {code: classify(code).reaction for code in documented} == documented


def test_each_documented_code_has_its_class() -> None:
    """The error keeps the code and the text."""
    documented = {int(code): name for name, codes in CLASSES.items() for code in codes.split()}
    failures = {code: classify(code, "info") for code in documented}
    assert {code: type(failure).__name__ for code, failure in failures.items()} == documented
    assert {(failure.code, failure.info) for failure in failures.values()} == {(code, "info") for code in documented}


def test_the_table_has_exactly_the_documented_codes() -> None:
    assert {*CODES} == {int(code) for codes in REACTIONS.values() for code in codes.split()}


@pytest.mark.parametrize("code", [1, -5, 99999, 10**40])
def test_an_unknown_code_is_a_plain_api_error(code: int) -> None:
    """It keeps its code and is not retried."""
    failure = classify(code, "?")
    assert type(failure) is APIError
    assert (failure.code, failure.reaction) == (code, Reaction.GIVE_UP)


def test_the_tree_has_the_documented_shape() -> None:
    """Catching a class catches its documented subclasses."""
    for name in ("ConnectFailed", "ClientClosed", "RequestTimeout", "ConnectionLost", "BadResponse"):
        assert issubclass(getattr(tim_async, name), TransportError)
    for name in CLASSES:
        assert issubclass(getattr(tim_async, name), APIError)
    for kind in (TransportError, APIError, PartialFailure):
        assert issubclass(kind, TIMError)
    assert issubclass(TIMError, Exception)
    assert not issubclass(APIError, TransportError)


def test_a_request_timeout_is_a_timeout_error() -> None:
    """It is the only one of the public classes."""
    with pytest.raises(TimeoutError):
        raise RequestTimeout("no answer in time")
    others = [getattr(tim_async, name) for name in vars(tim_async)["__all__"] if name != "RequestTimeout"]
    assert not any(isinstance(kind, type) and issubclass(kind, TimeoutError) for kind in others)


# Meanings and remedies

SENTENCE = re.compile(r"[A-Z][^\n]*[\w`#)]\.")
"""A sentence of one line, with a period at its end."""
LONGEST = 120
"""Most characters of a meaning or a remedy, so that they fit beside a code in a terminal."""


def below(kind: type[TIMError]) -> set[type[TIMError]]:
    return {kind}.union(*(below(child) for child in kind.__subclasses__()))


WORDS = {
    **{str(number): (code.meaning, code.remedy) for number, code in CODES.items()},
    **{
        kind.__name__: (kind.meaning, kind.remedy)
        for kind in sorted(below(TIMError) - below(APIError) - {TIMError}, key=str)
    },
}


@pytest.mark.parametrize(("meaning", "remedy"), WORDS.values(), ids=WORDS)
def test_every_code_and_class_has_a_meaning_and_a_remedy(meaning: str, remedy: str) -> None:
    """Short printable ASCII sentences, which differ."""
    for text in (meaning, remedy):
        assert all(SENTENCE.fullmatch(sentence) for sentence in re.split(r"(?<=\.) (?=[A-Z])", text))
        assert len(text) <= LONGEST
        assert text.isascii()
        assert text.isprintable()
    assert meaning != remedy


def test_an_error_has_the_meaning_and_the_remedy_of_its_code() -> None:
    """An unknown code has neither; `hint` is the remedy."""
    for number, code in CODES.items():
        failure, item = classify(number, "info"), ItemError(number)
        assert (failure.meaning, failure.remedy) == (item.meaning, item.remedy) == (code.meaning, code.remedy)
        assert failure.hint == failure.remedy
    for unknown in (classify(424242), ItemError(424242, "new"), ItemError(None, "unreadable")):
        assert (unknown.meaning, unknown.remedy) == ("", "")


def test_the_text_ends_with_meaning_and_remedy() -> None:
    """The code and the service's text come first, and `brief` returns them alone."""
    failure = located(classify(70009, "sig verify failed."))
    assert brief(failure) == "set_unread_msg_num: error 70009: sig verify failed. after 3 attempts"
    assert str(failure) == f"{brief(failure)}. {failure.meaning} {failure.remedy}"
    assert str(classify(70009, "no.")) == f"error 70009: no. {failure.meaning} {failure.remedy}"
    assert str(classify(70009)) == f"error 70009. {failure.meaning} {failure.remedy}"
    assert str(failure).count("\n") == 0
    assert brief(ConnectFailed("cannot connect")) == str(ConnectFailed("cannot connect")) == "cannot connect"


def test_outcome_unknown_of_every_class_and_code() -> None:
    """A transient code does not exclude an effect."""
    for codes in CLASSES.values():
        for code in map(int, codes.split()):
            assert classify(code).outcome_unknown is (classify(code).reaction is Reaction.RETRY)
    assert not ConnectFailed("x").outcome_unknown
    assert not ClientClosed("x").outcome_unknown
    assert all(kind("x").outcome_unknown for kind in (RequestTimeout, ConnectionLost, BadResponse, TransportError))


def located(failure: TIMError) -> TIMError:
    failure.endpoint, failure.attempts = "set_unread_msg_num", 3
    return failure


UNREAD = C2CUnread({"bob": 1}, {"carol": ItemError(70107, "none")})
EVERY: dict[str, TIMError] = {
    **{
        kind.__name__: located(kind("what happened"))
        for kind in (TIMError, TransportError, ConnectFailed, ClientClosed)
    },
    "RequestTimeout": located(RequestTimeout("no answer in time")),
    "ConnectionLost": located(ConnectionLost("gone")),
    "BadResponse": located(BadResponse("HTTP 404", 404, Reaction.GIVE_UP, False)),
    "BadResponse by default": BadResponse("HTTP 200"),
    "QuotaExhausted": located(QuotaExhausted("no permit within max_wait", 0.25)),
    "QuotaExhausted by default": QuotaExhausted(),
    "QuotaMisconfigured": QuotaMisconfigured("a wrong password"),
    "WebhookError": WebhookError("not signed"),
    "PartialFailure": located(PartialFailure("1 peers failed", UNREAD)),
    "without anything": TIMError(),
    "APIError without anything": APIError(),
    "an unknown code": located(classify(424242, "new in 2030")),
    **{name: located(classify(int(codes.split()[0]), "why")) for name, codes in CLASSES.items()},
}
ATTRIBUTES = (
    "endpoint",
    "attempts",
    "reaction",
    "outcome_unknown",
    "status",
    "code",
    "info",
    "meaning",
    "remedy",
    "hint",
    "result",
    "retry_after",
    "args",
)


@pytest.mark.parametrize("failure", EVERY.values(), ids=EVERY)
def test_every_exception_survives_pickle_and_copy(failure: TIMError) -> None:
    """Class, text and attributes are the same, as process pools and task queues need."""
    pickled = [pickle.loads(pickle.dumps(failure, protocol)) for protocol in range(2, 6)]
    for other in (*pickled, copy.copy(failure), copy.deepcopy(failure)):
        assert type(other) is type(failure)
        assert other is not failure
        assert str(other) == str(failure)
        assert repr(other) == repr(failure)
        for name in ATTRIBUTES:
            assert getattr(other, name, "absent") == getattr(failure, name, "absent"), name


def test_every_class_of_the_tree_is_among_those_pickled() -> None:
    assert below(TIMError) == {type(failure) for failure in EVERY.values()}


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (TIMError("it failed"), "it failed"),
        (TIMError(), ""),
        (located(ConnectFailed("cannot connect")), "set_unread_msg_num: cannot connect after 3 attempts"),
        (located(RequestTimeout("no answer in time")), "set_unread_msg_num: no answer in time after 3 attempts"),
        (APIError(1, "busy"), "error 1: busy"),
        (APIError(1), "error 1"),
        (located(APIError(1, "bad")), "set_unread_msg_num: error 1: bad after 3 attempts"),
        (PartialFailure("2 peers failed", None), "2 peers failed"),
    ],
)
def test_the_text_has_endpoint_message_and_attempts(failure: TIMError, text: str) -> None:
    assert str(failure) == text


@pytest.mark.parametrize(("attempts", "end"), [(0, ""), (1, ""), (2, " after 2 attempts")])
def test_the_text_counts_the_attempts_if_there_were_several(attempts: int, end: str) -> None:
    """ "after 1 attempts" would help nobody."""
    failure = APIError(1, "bad")
    failure.endpoint, failure.attempts = "set_unread_msg_num", attempts
    assert str(failure) == f"set_unread_msg_num: error 1: bad{end}"


def test_an_error_that_no_call_raised_has_no_endpoint_no_attempts_and_no_text() -> None:
    for failure in (TIMError(), BadResponse(), APIError(), QuotaExhausted(), PartialFailure()):
        assert (failure.endpoint, failure.attempts) == ("", 0)
    assert str(TIMError()) == str(BadResponse()) == str(PartialFailure()) == ""
    assert (str(QuotaExhausted()), QuotaExhausted().retry_after) == ("no permit; try again in 1 s", 1.0)
    assert PartialFailure().result is None
    assert BadResponse().status == 200
    assert (APIError().code, APIError().info) == (0, "")


ITEM_ERRORS = {
    "carol": ItemError(70107, "none"),
    "dave": ItemError(None, "why"),
    "erin": ItemError(1),
    "frank": ItemError(2),
}


@pytest.mark.parametrize(
    ("failed", "says"),
    [
        (1, "1 peers failed: carol (70107)"),
        (2, "2 peers failed: carol (70107), dave (why)"),
        (3, "3 peers failed: carol (70107), dave (why), erin (1)"),
        (4, "4 peers failed: carol (70107), dave (why), erin (1), …"),
    ],
)
def test_raise_for_errors_raises_a_partial_failure_with_the_whole_result(failed: int, says: str) -> None:
    """Its text has the first three failed items."""
    result = C2CUnread({"bob": 1}, dict([*ITEM_ERRORS.items()][:failed]))
    with pytest.raises(PartialFailure) as caught:
        result.raise_for_errors()
    assert str(caught.value) == says
    assert caught.value.result is result


def test_the_failed_items_of_receipts_are_messages() -> None:
    with pytest.raises(PartialFailure, match=r"^1 messages failed: 7 \(not in the answer\)$"):
        GroupMsgReceipts({}, {7: ItemError(None, "not in the answer")}).raise_for_errors()


def test_raise_for_errors_of_a_result_without_errors_does_nothing() -> None:
    C2CUnread({"bob": 1}).raise_for_errors()
    GroupMsgReceipts().raise_for_errors()


@pytest.mark.parametrize(
    "text",
    ["\x1b[31mred", "\x1b]0;title\x07", "two\nlines\r", "\u202egnp.exe", "\u200bhidden", "\ud800", "\x9b31m", "\u2028"],
    ids=lambda text: ascii(text).replace("\\", ""),  # pytest finds no test by an id with a backslash
)
def test_a_text_of_the_service_is_one_printable_line(text: str) -> None:
    """Escapes, line ends, invisible and direction-changing characters are replaced."""
    for said in (classify(10003, text).info, str(classify(10003, text)), ItemError(1, text).info):
        assert said.isprintable()
        assert said.encode()


SHOWN = {"x": "x", "é": "é", "\n": r"\n", "\x1b": r"\x1b", "\u202e": r"\u202e", "\ud800": r"\ud800"}


@pytest.mark.parametrize(("sign", "shown"), SHOWN.items(), ids=[f"{ord(sign):x}" for sign in SHOWN])
def test_a_text_is_shown_whole_or_cut_with_an_ellipsis(sign: str, shown: str) -> None:
    """Where only the escapes make it too long, too."""
    for length in (0, *range(MAX_INFO - 15, MAX_INFO + 3), 10 * MAX_INFO):
        for text, whole in ((sign + "é" * length, shown + "é" * length), ("é" * length + sign, "é" * length + shown)):
            assert printable(text) == (whole if len(whole) <= MAX_INFO else whole[: MAX_INFO - 1] + "…")


@given(st.text())
def test_any_text_becomes_printable_and_short_and_stays_so(text: str) -> None:
    """A printable and short text is not changed."""
    once = printable(text)
    assert once.isprintable()
    assert len(once) <= MAX_INFO
    assert printable(once) == once
    if text.isprintable() and len(text) <= MAX_INFO:
        assert once == text


def test_a_text_of_megabytes_is_cut() -> None:
    assert len(brief(classify(10003, "x" * 20_000_000))) < 400
    assert len(ItemError(1, "\x1b" * 20_000_000).info) <= MAX_INFO
