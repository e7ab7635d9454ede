"""The exceptions that calls raise.

::

    TIMError                      .endpoint .attempts .outcome_unknown .meaning .remedy
    ├── TransportError            no readable answer
    │   ├── ConnectFailed         nothing was sent
    │   │   └── ClientClosed      the client, or the session given to it, was closed while the call waited
    │   ├── RequestTimeout        no answer in time (also a TimeoutError)
    │   ├── ConnectionLost        the connection ended before the answer was complete
    │   └── BadResponse           not a valid answer of the service;  .status
    ├── APIError                  the service answered with an error code;  .code .info
    │   ├── AuthError             credentials, signature or account set-up
    │   ├── PermissionDenied      not allowed on this object
    │   ├── GroupNotFound
    │   ├── AccountNotFound
    │   ├── InvalidRequest        the request itself is wrong
    │   ├── ReceiptUnavailable    the message has no read receipt
    │   ├── RateLimited           over the endpoint's rate, and retries did not help
    │   └── ServerBusy            a transient server error, and retries did not help
    ├── QuotaExhausted            no permit within ``max_wait``; nothing was sent;  .retry_after
    └── PartialFailure            from ``raise_for_errors()``;  .result

Two more classes derive from `TIMError`: `tim_async.quota.QuotaMisconfigured` and `tim_async.webhooks.WebhookError`.

An unknown code becomes a plain `APIError` with the exact code.  Invalid arguments raise `ValueError` or `TypeError`
before anything is sent.

Every exception pickles, and none carries the secret key, a UserSig or a URL with its query.  The service's own text is
cut to `MAX_INFO` characters and made printable, so that it is safe in terminals, logs and files.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from . import _codes

CODES = _codes.CODES
"""Each known ``ErrorCode``: its exception, its reaction, its meaning and its remedy."""
Reaction = _codes.Reaction

MAX_INFO = 300
"""The maximum length of an ``ErrorInfo``, in characters; longer ones are cut."""


def printable(text: str) -> str:
    """Make a text from the service safe to display: one line of at most `MAX_INFO` characters.

    Control characters, line ends, invisible and direction-changing characters and lone surrogates are escaped.
    """
    if len(text) > MAX_INFO:
        text = text[: MAX_INFO - 1] + "…"
    if text.isprintable():
        return text
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    return text if len(text) <= MAX_INFO else text[: MAX_INFO - 1] + "…"


def is_text(value: str) -> bool:
    """Whether a str can be encoded as UTF-8: it has no lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_code(value: object) -> TypeGuard[int]:
    """Whether a value is a possible error code: a signed 32-bit integer."""
    return type(value) is int and -(2**31) <= value < 2**31


class TIMError(Exception):
    """The base class of all exceptions that calls raise.

    Attributes:
        endpoint: the method or command that failed, e.g. ``"set_unread_msg_num"``; "" where the error concerns none.
        attempts: the number of requests made for the call, retries included.
        outcome_unknown: True when the call may have taken effect: the request may have reached the service, and no
            answer says that nothing was done.
        meaning: an explanation in whole sentences; "" where the error's text says everything.
        remedy: a way to resolve the error, likewise.
    """

    reaction: Reaction = Reaction.GIVE_UP
    outcome_unknown = False
    meaning: str = ""
    remedy: str = ""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.endpoint = ""
        self.attempts = 0

    def __str__(self) -> str:
        return _located(self, str(self.args[0]))


class TransportError(TIMError):
    """No readable answer was received."""

    reaction = Reaction.RETRY
    outcome_unknown = True
    meaning = "No readable answer was received."
    remedy = "Check the network, the proxy and the region."


class ConnectFailed(TransportError):
    """No connection to the service was made, or none in time; nothing was sent to it."""

    outcome_unknown = False
    meaning = "No connection to the service was made, so nothing was sent."
    remedy = "Check the region, name resolution, the proxy and the firewall."


class ClientClosed(ConnectFailed):
    """The client, or the session given to it, was closed while the call waited; nothing was sent."""

    reaction = Reaction.GIVE_UP
    meaning = "The client, or the session given to it, was closed."
    remedy = "Keep both open until all calls have ended."


class RequestTimeout(TransportError, TimeoutError):
    """No answer within the time-out of one attempt."""

    meaning = "No answer came within the time-out."
    remedy = "Check the network, and keep `timeout` above 3 s, the service's own time-out."


class ConnectionLost(TransportError):
    """The connection ended after the request was sent, or may have been sent."""

    meaning = "The connection ended before the answer was complete."
    remedy = "Find the cause of the disconnect: the network, a proxy or a firewall."


class BadResponse(TransportError):
    """An answer that the service does not give: a gateway's page, a truncated or garbled body.

    Attributes:
        status: the HTTP status.
    """

    meaning = "The answer is not a valid one of the service."
    remedy = "Check `base_url` and the proxy; a gateway's error page is transient."

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
        meaning: the meaning of the code; "" for a code that this library does not know.
        remedy: a way to resolve the error, with the host or the command at fault where known; "" likewise.
    """

    def __init__(self, code: int = 0, info: str = "") -> None:
        info = printable(info)
        super().__init__()
        self.args: tuple[Any, ...] = (code, info)
        self.code = code
        self.info = info
        known = _codes.code_of(code)
        self.reaction: Reaction = known.reaction
        self.meaning: str = known.meaning
        self.remedy: str = known.remedy

    @property
    def hint(self) -> str:
        """The former name of ``remedy``."""
        return self.remedy

    def __str__(self) -> str:
        words = " ".join(text for text in (self.meaning, self.remedy) if text)
        return f"{brief(self).rstrip(' .')}. {words}" if words else brief(self)


class AuthError(APIError):
    """The service refused the credentials, the signature or the account's set-up."""


class PermissionDenied(APIError):
    """The operation is not permitted on this object."""


class GroupNotFound(APIError):
    """The group does not exist, or its id is invalid."""


class AccountNotFound(APIError):
    """The account does not exist."""


class InvalidRequest(APIError):
    """The service rejected the request as invalid."""


class ReceiptUnavailable(APIError):
    """The message, or the group, has no read receipts."""


class RateLimited(APIError):
    """The endpoint's rate was exceeded, also by the retries."""


class ServerBusy(APIError):
    """A transient server error, such as 10002, that outlasted the retries.

    None of its codes says that nothing was done.
    """

    outcome_unknown = True


class QuotaExhausted(TIMError):
    """No permit within ``max_wait``; nothing was sent, and no quota was spent.

    Attributes:
        retry_after: seconds, above 0, after which a permit can be expected.
    """

    meaning = "No permit was available within `max_wait`, so nothing was sent."
    remedy = "Try again after `retry_after` seconds, or allow a longer `max_wait`."

    def __init__(self, message: str = "no permit", retry_after: float = 1.0) -> None:
        super().__init__()
        self.args: tuple[Any, ...] = (message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{super().__str__()}; try again in {self.retry_after:.2g} s"


class PartialFailure(TIMError):
    """Some items of a call failed; raised only by ``raise_for_errors()``.

    Attributes:
        result: the whole result, with both values and errors.
    """

    meaning = "Some items of the call failed."
    remedy = "Read `result`: it has the values of the other items, and the error of each failed one."

    def __init__(self, message: str = "", result: object = None) -> None:
        super().__init__()
        self.args: tuple[Any, ...] = (message, result)
        self.result = result


_KINDS: dict[str, type[APIError]] = {
    "APIError": APIError,
    **{kind.__name__: kind for kind in APIError.__subclasses__()},
}


def classify(code: int, info: str = "") -> APIError:
    """Make the exception for one ``ErrorCode`` of the service.

    Args:
        code: the ``ErrorCode``, any integer but 0.
        info: the ``ErrorInfo`` beside it.

    Returns:
        The exception, of the code's class.  An unknown code gives a plain `APIError`, which is never retried.
    """
    return _KINDS[_codes.code_of(code).kind](code, info)


def brief(error: BaseException) -> str:
    """Return an error as one line without its meaning and remedy, which are shown once for many errors."""
    if not isinstance(error, APIError):
        return str(error)
    return _located(error, f"error {error.code}{': ' + error.info if error.info else ''}")


def _located(error: TIMError, message: str) -> str:
    """Return an error's message with its endpoint, and with the attempts if there were several."""
    where = f"{error.endpoint}: " if error.endpoint else ""
    tries = f" after {error.attempts} attempts" if error.attempts > 1 else ""
    return f"{where}{message}{tries}"
