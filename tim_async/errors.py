"""The exceptions of calls, and the reaction to each.

::

    TIMError                      .endpoint .attempts .outcome_unknown
    ├── TransportError            no readable answer
    │   ├── ConnectFailed         nothing was sent
    │   │   └── ClientClosed      the client, or the session given to it, was closed while the call waited
    │   ├── RequestTimeout        no answer in time (also a TimeoutError)
    │   ├── ConnectionLost        the connection ended before the answer did
    │   └── BadResponse           an answer that is not one of the service's;  .status
    ├── APIError                  the service answered with an error code;  .code .info .hint
    │   ├── AuthError             credentials, signature or account set-up
    │   ├── PermissionDenied      not allowed on this object
    │   ├── GroupNotFound
    │   ├── AccountNotFound
    │   ├── InvalidRequest        the request itself is wrong
    │   ├── ReceiptUnavailable    the message has no read receipt
    │   ├── RateLimited           over the endpoint's calls a second, and retries did not help
    │   └── ServerBusy            a transient server error, and retries did not help
    ├── QuotaExhausted            no permit within ``max_wait``; nothing was sent;  .retry_after
    └── PartialFailure            from ``raise_for_errors()``;  .result

A code that is in no table stays a plain `APIError` with its exact code.  Arguments that can never be
right are not here: they raise `ValueError` or `TypeError` before anything is sent.

Every exception pickles, and none carries the secret key, a UserSig or a URL with its query.  What the service says of
an error is cut to `MAX_INFO` characters and made printable before it is kept, so that it can go to terminals, logs and
files as it is.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, TypeGuard

MAX_INFO = 300
"""Characters of an ``ErrorInfo`` that are kept."""


def printable(text: str) -> str:
    """Make a text of the service's safe to show: one line of at most `MAX_INFO` characters.

    Control characters, line ends, invisible and direction-changing characters and lone surrogates are escaped.
    """
    if len(text) > MAX_INFO:
        text = text[: MAX_INFO - 1] + "…"
    if text.isprintable():
        return text
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    return text if len(text) <= MAX_INFO else text[: MAX_INFO - 1] + "…"


def is_text(value: str) -> bool:
    """Whether a str has no lone surrogates, which UTF-8 cannot encode."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_code(value: object) -> TypeGuard[int]:
    """Whether a value is an error code as the service has them: an integer of 32 bits."""
    return type(value) is int and -(2**31) <= value < 2**31


class Reaction(enum.Enum):
    """What an error asks for."""

    RETRY = "retry"
    """A transient failure: try again after a short wait."""
    SLOW_DOWN = "slow down"
    """Over the rate: slow the whole endpoint down, then try again."""
    SIGN_AGAIN = "sign again"
    """The signature was refused: make a new one and try again, once."""
    GIVE_UP = "give up"
    """Trying again can only fail the same way."""


class TIMError(Exception):
    """Base class of everything that tim_async raises about a call.

    Attributes:
        endpoint: the method or command that failed, e.g. ``"set_unread_msg_num"``; "" when there was none.
        attempts: how many requests were made for the call, retries included.
        outcome_unknown: True when the call may have taken effect: the request may have reached the service and no
            answer says that nothing was done.
    """

    reaction: Reaction = Reaction.GIVE_UP
    outcome_unknown = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.endpoint = ""
        self.attempts = 0

    def __str__(self) -> str:
        message = str(self.args[0])
        if not self.endpoint:
            return message
        tries = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        return f"{self.endpoint}: {message}{tries}"


class TransportError(TIMError):
    """No readable answer came back."""

    reaction = Reaction.RETRY
    outcome_unknown = True


class ConnectFailed(TransportError):
    """No connection to the service, or none in time; nothing was sent to it."""

    outcome_unknown = False


class ClientClosed(ConnectFailed):
    """The client, or the session given to it, was closed while the call waited; nothing was sent."""

    reaction = Reaction.GIVE_UP


class RequestTimeout(TransportError, TimeoutError):
    """No answer within the time-out of one attempt."""


class ConnectionLost(TransportError):
    """The connection ended after the request was, or may have been, sent."""


class BadResponse(TransportError):
    """Something answered, but not as the service does: a gateway's page, a cut or garbled body.

    Attributes:
        status: the HTTP status.
    """

    def __init__(
        self,
        message: str = "",
        status: int = 200,
        reaction: Reaction = Reaction.RETRY,
        outcome_unknown: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reaction = reaction
        self.outcome_unknown = outcome_unknown


class APIError(TIMError):
    """The service answered with an ``ErrorCode`` other than 0.

    https://www.tencentcloud.com/document/product/1047/34348

    Attributes:
        code: the exact ``ErrorCode``.
        info: the service's ``ErrorInfo``, printable and at most `MAX_INFO` characters; "" when it gave none.
        hint: the likely cause, where this library knows one; "" otherwise.
    """

    def __init__(self, code: int = 0, info: str = "") -> None:
        info = printable(info)
        super().__init__()
        self.args: tuple[Any, ...] = (code, info)
        self.code = code
        self.info = info
        self.hint = ""
        self.reaction: Reaction = _reaction(code)

    def __str__(self) -> str:
        tries = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        where = f"{self.endpoint}: " if self.endpoint else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}error {self.code}{': ' + self.info if self.info else ''}{tries}{hint}"


class AuthError(APIError):
    """The credentials, the signature or the account's set-up were refused."""


class PermissionDenied(APIError):
    """The identifier may not do this to this object."""


class GroupNotFound(APIError):
    """No such group, or not a possible group id."""


class AccountNotFound(APIError):
    """No such account."""


class InvalidRequest(APIError):
    """The service found the request itself wrong."""


class ReceiptUnavailable(APIError):
    """The message, or the group, has no read receipts."""


class RateLimited(APIError):
    """Over the endpoint's calls a second, and still so after the retries."""


class ServerBusy(APIError):
    """A transient server error (10002 and its like), and still there after the retries.

    None of its codes says that nothing was done.
    """

    outcome_unknown = True


class QuotaExhausted(TIMError):
    """No permit within ``max_wait``; nothing was sent, and no quota was spent.

    Attributes:
        retry_after: seconds, above 0, after which a permit can be expected.
    """

    def __init__(self, message: str = "no permit", retry_after: float = 1.0) -> None:
        super().__init__()
        self.args: tuple[Any, ...] = (message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{super().__str__()}; try again in {self.retry_after:.2g} s"


class PartialFailure(TIMError):
    """Some items of a call failed; raised only by ``raise_for_errors()``.

    Attributes:
        result: the whole result, with what succeeded and what did not.
    """

    def __init__(self, message: str = "", result: object = None) -> None:
        super().__init__()
        self.args: tuple[Any, ...] = (message, result)
        self.result = result


# The service's codes, by what they mean to a caller.
# https://www.tencentcloud.com/document/product/1047/34348
_TABLE: tuple[tuple[type[APIError], Reaction, str], ...] = (
    (
        ServerBusy,
        Reaction.RETRY,
        "10002 20004 20005 60008 60014 70169 70202 70500 90992 90994 90995 91000",
    ),
    (RateLimited, Reaction.SLOW_DOWN, "60007 60011 60018 60019 10006 429"),  # 429: HTTP's, should one come
    (AuthError, Reaction.SIGN_AGAIN, "70001 70052 60004 60005 20002"),
    (
        AuthError,
        Reaction.GIVE_UP,
        # 70050, too many bad signatures, is what looping on the others causes.
        "70002 70003 70005 70009 70013 70014 70016 70020 70050 70051 60006 60010 60016 60017 60020 60021 60025 60026"
        " 60028 10059 90009",
    ),
    (PermissionDenied, Reaction.GIVE_UP, "10007 10026"),  # 10026: the command is disabled for the app
    (GroupNotFound, Reaction.GIVE_UP, "10010 10015"),
    (AccountNotFound, Reaction.GIVE_UP, "70107 90003 90008 90012 90048 10019 20003"),
    (
        InvalidRequest,
        Reaction.GIVE_UP,
        "10003 10004 10005 10011 10018 60002 60003 60009 60012 60015 70206 70402 90001 90018 93000",
    ),
    (ReceiptUnavailable, Reaction.GIVE_UP, "10060 10061 10062"),
    # Known, and of none of these kinds; 60013: the gateway could not read its backend's answer.
    (APIError, Reaction.GIVE_UP, "10008 10016 60013 70346"),
)

WRONG_REGION = frozenset({60026, 70016, 70020})
"""What a host of another region than the app's answers."""
UNKNOWN_COMMAND = 60008
"""What a command that does not exist is answered; also a transient server error."""


def _rows() -> Iterator[tuple[int, tuple[type[APIError], Reaction]]]:
    for kind, reaction, codes in _TABLE:
        for code in codes.split():
            yield int(code), (kind, reaction)


CODES: dict[int, tuple[type[APIError], Reaction]] = dict(_rows())
"""Each known ``ErrorCode``: the exception it becomes, and the reaction it asks for."""


def _reaction(code: int) -> Reaction:
    return CODES[code][1] if code in CODES else Reaction.GIVE_UP


def classify(code: int, info: str = "") -> APIError:
    """Make the exception for one ``ErrorCode`` of the service.

    Args:
        code: the ``ErrorCode``, any integer but 0.
        info: the ``ErrorInfo`` beside it.

    Returns:
        An `APIError` of the fitting class; its ``reaction`` says what to do.  An unknown code gives a plain
        `APIError` and is never worth a retry.
    """
    kind = CODES[code][0] if code in CODES else APIError
    return kind(code, info)
