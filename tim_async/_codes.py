"""The service's error codes: one table with the exception, reaction, meaning and remedy of each.

The codes and their reactions are the vendor's (https://www.tencentcloud.com/document/product/1047/34348); the meanings
and remedies are this project's.  They are whole sentences, fit for logs and terminals, and contain no secret.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

DOCUMENT = "https://www.tencentcloud.com/document/product/1047/34348"
"""The vendor's own list of codes."""


class Reaction(enum.Enum):
    """The client's reaction to an error."""

    RETRY = "retry"
    """A transient failure: try again after a short wait."""
    SLOW_DOWN = "slow down"
    """The rate was exceeded: slow down the whole endpoint, then try again."""
    SIGN_AGAIN = "sign again"
    """The signature was refused: make a new one and try again, once."""
    GIVE_UP = "give up"
    """A permanent failure: do not retry."""


RETRIED = {
    Reaction.RETRY: "retried, if the call is repeatable",
    Reaction.SLOW_DOWN: "retried, after the endpoint has slowed down",
    Reaction.SIGN_AGAIN: "retried once, with a new UserSig",
    Reaction.GIVE_UP: "not retried",
}
"""A description of each reaction."""


class Code(NamedTuple):
    """An ``ErrorCode``.

    Attributes:
        kind: the name of its exception class.
        reaction: the client's reaction.
        meaning: its meaning, in whole sentences.
        remedy: a way to resolve the error, likewise.
    """

    kind: str
    reaction: Reaction
    meaning: str
    remedy: str


UNKNOWN = Code("APIError", Reaction.GIVE_UP, "", "")
"""The entry of a code that is not in `CODES`."""

WRONG_REGION = frozenset({60026, 70016, 70020})
"""The codes from a host in another region than the app's."""
UNKNOWN_COMMAND = 60008
"""The code for a command that does not exist; also a transient server error."""

_LATER = "Try again later; if the error persists, contact the vendor's support."
_SUPPORT = "Contact the vendor's support."
_SHARE = "Share one quota (RedisQuota) among the app's processes, and set `rates` to the app's real limits."
_CREDENTIALS = "Copy the SDKAppID and the secret key again, both from the same app in the console."
_SAME_APP = "Check that the identifier, the SDKAppID and the secret key belong to the same app."
_URL = "Check `base_url` and the proxy: the URL is altered on the way."
_REGION = "Set the region that the console shows for the app, and check the SDKAppID."
_ADMIN = "Make the identifier an admin of the app in the console, or use an existing admin (TIM_IDENTIFIER)."
_CONSOLE = "Check the app and its plan in the console."
_ACCOUNT = "Check the spelling and case of the UserID, or import the account."
_FIELDS = "Compare the request's fields with the vendor's documentation of the command."
_JSON = "Send a JSON object as described in the vendor's documentation of the command."
_FEWER = "Request fewer items per call."


def _entries(kind: str, reaction: Reaction, *rows: tuple[str, str, str]) -> dict[int, Code]:
    """Return the entries of one exception and reaction; each row has the codes, their meaning and their remedy."""
    return {
        int(code): Code(kind, reaction, meaning, remedy) for codes, meaning, remedy in rows for code in codes.split()
    }


CODES: dict[int, Code] = {
    **_entries(
        "ServerBusy",
        Reaction.RETRY,
        ("10002", "The group service had an internal error.", _LATER),
        ("20004", "The message service had a network error.", _LATER),
        ("20005 90994 90995 91000", "The message service had an internal error.", _LATER),
        (
            "60008",
            "The service did not answer its gateway in time.",
            "Try again later; with `tim.call()`, also check the spelling of the command.",
        ),
        ("60014", "The gateway could not look up the account in time.", _LATER),
        ("70169 70202", "The account service did not answer in time.", _LATER),
        ("70500", "The account service had an internal error.", _LATER),
        (
            "90992",
            "The message service, or the app's own webhook, had an error.",
            "Try again later; if every call fails, check that the app's webhook responds.",
        ),
    ),
    **_entries(
        "RateLimited",
        Reaction.SLOW_DOWN,
        ("60007", "The command was called more often than its rate allows.", _SHARE),
        ("60011", "The app made more calls than its rate allows.", _SHARE),
        ("60018 60019", "The calls came too fast.", _SHARE),
        ("10006", "The calls to the group service came too fast.", _SHARE),
        # An HTTP status, which the service itself does not use.
        (
            "429",
            "The answer was HTTP 429: too many requests.",
            "Look for a proxy with its own limit: the service answers with an error code instead.",
        ),
    ),
    **_entries(
        "AuthError",
        Reaction.SIGN_AGAIN,
        ("70001", "The UserSig has expired.", "Correct this machine's clock, from which UserSigs take their date."),
        (
            "70052",
            "The UserSig is no longer valid.",
            "Check whether the account was signed out, or the secret key replaced.",
        ),
        ("60004 60005", "The account or the UserSig in the request is wrong.", _SAME_APP),
        ("20002", "The message service could not verify the UserSig.", _SAME_APP),
    ),
    **_entries(
        "AuthError",
        Reaction.GIVE_UP,
        ("70002", "The request has no UserSig.", _URL),
        ("70003", "The UserSig is invalid; it may be truncated.", _URL),
        ("70005", "The UserSig is invalid.", _CREDENTIALS),
        ("70009", "The UserSig was not signed with the secret key of this app.", _CREDENTIALS),
        ("70013", "The UserSig was made for another account.", "Use the identifier for which the UserSig was made."),
        ("70014", "The UserSig was made for another app.", _CREDENTIALS),
        ("70016", "The service has no key of this app, and so cannot verify the UserSig.", _REGION),
        ("70020", "The service does not know this SDKAppID.", _REGION),
        # The result of repeating calls with refused UserSigs.
        (
            "70050",
            "This account is temporarily blocked, because it sent too many invalid UserSigs.",
            "Correct the secret key first, then wait a minute before the next call.",
        ),
        ("70051", "The account is in the service's blocklist.", _SUPPORT),
        ("60006", "The SDKAppID is invalid.", "Copy the SDKAppID from the console."),
        ("60010", "Only admins of the app may use the command.", _ADMIN),
        ("60016", "The app is disabled.", "Enable the app in the console, or contact the vendor's support."),
        ("60017", "The request is disabled for the app.", _SUPPORT),
        ("60020", "The app's plan has expired.", "Renew the plan in the console; it takes effect after some minutes."),
        (
            "60021",
            "The app does not allow calls from this IP address.",
            "Allow the address of this machine, or of its proxy, in the console.",
        ),
        ("60025 60028", "The service refused the app or its set-up.", _CONSOLE),
        ("60026", "The app is in another region than this host.", _REGION),
        (
            "10059",
            "The app's plan does not include read receipts for groups.",
            "Choose a plan that includes them: Pro, Pro Plus or Enterprise.",
        ),
        ("90009", "Only admins of the app may use this command of the message service.", _ADMIN),
    ),
    **_entries(
        "PermissionDenied",
        Reaction.GIVE_UP,
        (
            "10007",
            "The operation is not permitted in this group.",
            "Check that the account is a member, and that the group's type allows the operation.",
        ),
        ("10026", "The command is disabled for the app.", _SUPPORT),
    ),
    **_entries(
        "GroupNotFound",
        Reaction.GIVE_UP,
        (
            "10010",
            "The group does not exist, or no longer exists.",
            "Check the GroupId, and that the credentials belong to its app.",
        ),
        ("10015", "The GroupId is invalid.", "Check the GroupId: ids assigned by the service begin with @TGS#."),
    ),
    **_entries(
        "AccountNotFound",
        Reaction.GIVE_UP,
        ("70107 90048", "The account does not exist.", _ACCOUNT),
        ("10019", "The group service does not know the account.", _ACCOUNT),
        ("20003", "The account is invalid, or was never imported.", _ACCOUNT),
        ("90003", "The target account of the call is missing, invalid or unknown.", _ACCOUNT),
        ("90008", "The source account of the call is missing, invalid or unknown.", _ACCOUNT),
        ("90012", "The target account of the call is not registered.", _ACCOUNT),
    ),
    **_entries(
        "InvalidRequest",
        Reaction.GIVE_UP,
        ("10003", "The group service does not know the command.", "Check the spelling of the command."),
        ("10004", "The group service found an invalid field.", _FIELDS),
        ("10005 90018", "The request names too many accounts.", "Name fewer accounts per call."),
        ("10011", "The group service could not parse the JSON.", _JSON),
        ("10018", "The answer would be too large.", _FEWER),
        ("60002", "The gateway could not parse the HTTP request.", _URL),
        ("60003", "The gateway could not parse the JSON.", _JSON),
        ("60009", "The URL does not exist.", "Check the spelling of the command, and `base_url`."),
        ("60012", "The request has no SDKAppID.", _URL),
        ("60015", "An account in the request is not a string.", "Send UserIDs as strings."),
        ("70206", "The number of items in the request is not allowed.", _FEWER),
        ("70402", "The account service found a missing or invalid field.", _FIELDS),
        ("90001", "The message service could not parse the JSON.", _JSON),
        ("93000", "The request is too large.", "Send less per call."),
    ),
    **_entries(
        "ReceiptUnavailable",
        Reaction.GIVE_UP,
        ("10060", "The group is too large for read receipts.", "Request receipts only in groups of up to 200 members."),
        (
            "10061",
            "The group has no read receipts.",
            "Request receipts only in groups that are neither AVChatRoom nor Community.",
        ),
        (
            "10062",
            "The message has no read receipt.",
            "Request the receipt when sending the message; it cannot be requested later.",
        ),
    ),
    # Codes without a class of their own.
    **_entries(
        "APIError",
        Reaction.GIVE_UP,
        ("10008", "The group service rejected the request, perhaps because of its UserSig.", _CREDENTIALS),
        ("10016", "The app's own webhook rejected the operation.", "Ask the operators of the app's webhook."),
        ("60013", "The gateway could not read the answer of its backend.", _LATER),
        ("70346", "The account service rejected the request.", _CONSOLE),
    ),
}
"""Each known ``ErrorCode``."""


def code_of(number: int | None) -> Code:
    """Return the entry of an ``ErrorCode``; `UNKNOWN` for None, and for a code that is not in `CODES`."""
    return UNKNOWN if number is None else CODES.get(number, UNKNOWN)


def explanations(numbers: Iterable[int | None]) -> list[str]:
    """Return one line for each distinct known code among ``numbers``, in their order."""
    found = ((number, CODES[number]) for number in dict.fromkeys(numbers) if number is not None and number in CODES)
    return [f"{number}: {code.meaning} {code.remedy}" for number, code in found]


def wrong_region(host: str, sdk_app_id: int) -> str:
    """Return the remedy for a code of `WRONG_REGION`, with the host that answered it."""
    return f"The host was {host}: check the SDKAppID {sdk_app_id}, and set the region that the console shows for it."


def unknown_command(command: str) -> str:
    """Return the remedy for `UNKNOWN_COMMAND`, for a command that this library does not know."""
    return f"Check the spelling of {command}: the service gives the same code for a command that does not exist."
