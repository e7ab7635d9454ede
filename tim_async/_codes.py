"""The service's error codes: one table of the exception, the reaction and the words for each.

The codes and their reactions are the vendor's (https://www.tencentcloud.com/document/product/1047/34348); the words
are this project's.  Meanings and remedies are whole sentences, fit for logs and terminals, and hold no secret.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import NamedTuple

DOCUMENT = "https://www.tencentcloud.com/document/product/1047/34348"
"""The vendor's own list of codes."""


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


RETRIED = {
    Reaction.RETRY: "retried, if the call is repeatable",
    Reaction.SLOW_DOWN: "retried, after the endpoint has slowed down",
    Reaction.SIGN_AGAIN: "retried once, with a new UserSig",
    Reaction.GIVE_UP: "not retried",
}
"""Each reaction in words."""


class Code(NamedTuple):
    """What is known of one ``ErrorCode``.

    Attributes:
        kind: the name of the exception that it becomes.
        reaction: what it asks for.
        meaning: what the service says with it, in a sentence.
        remedy: what to do about it, in a sentence.
    """

    kind: str
    reaction: Reaction
    meaning: str
    remedy: str


UNKNOWN = Code("APIError", Reaction.GIVE_UP, "", "")
"""A code that is in no table."""

WRONG_REGION = frozenset({60026, 70016, 70020})
"""What a host of another region than the app's answers."""
UNKNOWN_COMMAND = 60008
"""What a command that does not exist is answered; also a transient server error."""

_LATER = "Try again later; if it lasts, ask the vendor's support."
_SUPPORT = "Ask the vendor's support."
_SHARE = "Share one quota (RedisQuota) among the app's processes, and set `rates` to the app's real limits."
_CREDENTIALS = "Copy the SDKAppID and the secret key again, both from the same app in the console."
_URL = "Check `base_url` and the proxy: something changes the URL on its way."
_REGION = "Set the region that the console shows for the app, and check the SDKAppID."
_ADMIN = "Make the identifier an admin of the app in the console, or use one that is (TIM_IDENTIFIER)."
_CONSOLE = "Check the app and its plan in the console."
_ACCOUNT = "Check the spelling and case of the UserID, or import the account."
_FIELDS = "Compare the fields of the request with the vendor's document of the command."
_JSON = "Send a JSON object as the vendor's document of the command shows it."
_FEWER = "Ask for less in one call."

# Each group: the exception, the reaction, and rows of codes with their meaning and remedy.
_TABLE: tuple[tuple[str, Reaction, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "ServerBusy",
        Reaction.RETRY,
        (
            ("10002", "The group service had an internal error.", _LATER),
            ("20004", "The message service had a network error.", _LATER),
            ("20005 90994 90995 91000", "The message service had an internal error.", _LATER),
            (
                "60008",
                "The service did not answer its gateway in time.",
                "Try again later; after `tim.call()`, check the spelling of the command.",
            ),
            ("60014", "The gateway could not look up the account in time.", _LATER),
            ("70169 70202", "The account service did not answer in time.", _LATER),
            ("70500", "The account service had an internal error.", _LATER),
            (
                "90992",
                "The message service, or the app's own webhook, had an error.",
                "Try again later; if every call fails so, check that the app's webhook answers.",
            ),
        ),
    ),
    (
        "RateLimited",
        Reaction.SLOW_DOWN,
        (
            ("60007", "The command was called more often than its rate allows.", _SHARE),
            ("60011", "The app made more calls than its rate allows.", _SHARE),
            ("60018 60019", "The calls came too fast.", _SHARE),
            ("10006", "The calls to the group service came too fast.", _SHARE),
            # HTTP's, should one come.
            (
                "429",
                "The answer was HTTP 429: too many requests.",
                "Look for a proxy with a limit of its own: the service answers a code instead.",
            ),
        ),
    ),
    (
        "AuthError",
        Reaction.SIGN_AGAIN,
        (
            ("70001", "The UserSig has expired.", "Correct the clock of this machine, by which UserSigs are dated."),
            (
                "70052",
                "The UserSig is no longer valid.",
                "Find out whether the account was signed out, or the secret key replaced.",
            ),
            (
                "60004 60005",
                "The account or the UserSig in the request is wrong.",
                "Check that identifier, SDKAppID and secret key belong to one app.",
            ),
            (
                "20002",
                "The message service could not verify the UserSig.",
                "Check that identifier, SDKAppID and secret key belong to one app.",
            ),
        ),
    ),
    (
        "AuthError",
        Reaction.GIVE_UP,
        (
            ("70002", "The request came without a UserSig.", _URL),
            ("70003", "The UserSig is invalid, perhaps because it was cut off.", _URL),
            ("70005", "The UserSig is invalid.", _CREDENTIALS),
            ("70009", "The UserSig was not signed with the secret key of this app.", _CREDENTIALS),
            (
                "70013",
                "The UserSig was made for another account.",
                "Use the identifier for which the UserSig was made.",
            ),
            ("70014", "The UserSig was made for another app.", _CREDENTIALS),
            ("70016", "The service has no key of this app to verify the UserSig with.", _REGION),
            ("70020", "The service does not know this SDKAppID.", _REGION),
            # Looping on the others causes it.
            (
                "70050",
                "Too many invalid UserSigs came from this account, which is blocked for a while.",
                "Correct the secret key first, then wait a minute before the next call.",
            ),
            ("70051", "The account is in the service's blocklist.", _SUPPORT),
            ("60006", "The SDKAppID is invalid.", "Copy the SDKAppID from the console."),
            ("60010", "The command is for admins of the app only.", _ADMIN),
            ("60016", "The app is disabled.", "Enable the app in the console, or ask the vendor's support."),
            ("60017", "The request is disabled for the app.", _SUPPORT),
            ("60020", "The app's plan has expired.", "Renew the plan in the console; it then takes some minutes."),
            (
                "60021",
                "The app takes no calls from this IP address.",
                "Allow the address of this machine, or of its proxy, in the console.",
            ),
            ("60025 60028", "The service refused the app or its set-up.", _CONSOLE),
            ("60026", "The app is not in the region of the host that was asked.", _REGION),
            (
                "10059",
                "The app's plan has no read receipts for groups.",
                "Choose a plan that has them: Pro, Pro Plus or Enterprise.",
            ),
            ("90009", "The message service takes this from admins of the app only.", _ADMIN),
        ),
    ),
    (
        "PermissionDenied",
        Reaction.GIVE_UP,
        (
            (
                "10007",
                "The operation is not permitted in this group.",
                "Check that the account is a member, and that groups of this type allow it.",
            ),
            ("10026", "The command is disabled for the app.", _SUPPORT),
        ),
    ),
    (
        "GroupNotFound",
        Reaction.GIVE_UP,
        (
            (
                "10010",
                "The group does not exist, or no longer.",
                "Check the GroupId, and that the credentials are those of its app.",
            ),
            (
                "10015",
                "The GroupId is invalid.",
                "Check the GroupId: those that the service made begin with @TGS#.",
            ),
        ),
    ),
    (
        "AccountNotFound",
        Reaction.GIVE_UP,
        (
            ("70107 90048", "The account does not exist.", _ACCOUNT),
            ("10019", "The group service knows no such account.", _ACCOUNT),
            ("20003", "The account is invalid, or was never imported.", _ACCOUNT),
            ("90003", "The account that the call is for is missing, invalid or unknown.", _ACCOUNT),
            ("90008", "The account that the call is from is missing, invalid or unknown.", _ACCOUNT),
            ("90012", "The account that the call is for is not registered.", _ACCOUNT),
        ),
    ),
    (
        "InvalidRequest",
        Reaction.GIVE_UP,
        (
            ("10003", "The group service has no such command.", "Check the spelling of the command."),
            ("10004", "The group service found a field invalid.", _FIELDS),
            ("10005 90018", "The request names too many accounts.", "Name fewer accounts in one call."),
            ("10011", "The group service could not read the JSON.", _JSON),
            ("10018", "The answer would be too large.", _FEWER),
            ("60002", "The gateway could not read the HTTP request.", _URL),
            ("60003", "The gateway could not read the JSON.", _JSON),
            ("60009", "The URL leads to nothing.", "Check the spelling of the command, and `base_url`."),
            ("60012", "The request came without an SDKAppID.", _URL),
            ("60015", "An account in the request is not a string.", "Send UserIDs as strings."),
            ("70206", "The number of items in the request is not allowed.", _FEWER),
            ("70402", "The account service found a field missing or invalid.", _FIELDS),
            ("90001", "The message service could not read the JSON.", _JSON),
            ("93000", "The request is too large.", "Send less in one call."),
        ),
    ),
    (
        "ReceiptUnavailable",
        Reaction.GIVE_UP,
        (
            (
                "10060",
                "The group is too large for read receipts.",
                "Ask for receipts in groups of up to 200 members only.",
            ),
            (
                "10061",
                "The group has no read receipts.",
                "Ask for receipts in other groups than AVChatRoom and Community only.",
            ),
            (
                "10062",
                "The message has no read receipt.",
                "Request the receipt when the message is sent; later is too late.",
            ),
        ),
    ),
    # Known, and of none of these kinds.
    (
        "APIError",
        Reaction.GIVE_UP,
        (
            ("10008", "The group service rejected the request, perhaps for its UserSig.", _CREDENTIALS),
            ("10016", "The app's own webhook rejected the operation.", "Ask those who run the app's webhook."),
            ("60013", "The gateway could not read the answer of its backend.", _LATER),
            ("70346", "The account service rejected the request.", _CONSOLE),
        ),
    ),
)


def _rows() -> Iterator[tuple[int, Code]]:
    for kind, reaction, rows in _TABLE:
        for codes, meaning, remedy in rows:
            for code in codes.split():
                yield int(code), Code(kind, reaction, meaning, remedy)


CODES: dict[int, Code] = dict(_rows())
"""Each known ``ErrorCode``."""


def code_of(number: int | None) -> Code:
    """What is known of an ``ErrorCode``; `UNKNOWN` where nothing is, and for None."""
    return UNKNOWN if number is None else CODES.get(number, UNKNOWN)


def explanations(numbers: Iterable[int | None]) -> list[str]:
    """A line for each known code among ``numbers``, in their order: once, however often it comes."""
    found = ((number, CODES[number]) for number in dict.fromkeys(numbers) if number is not None and number in CODES)
    return [f"{number}: {code.meaning} {code.remedy}" for number, code in found]


def wrong_region(host: str, sdk_app_id: int) -> str:
    """The remedy for a code of `WRONG_REGION`, with the host that was asked."""
    return f"{host} was asked: check the SDKAppID {sdk_app_id}, and set the region that the console shows for it."


def unknown_command(command: str) -> str:
    """The remedy for `UNKNOWN_COMMAND`, for a command that this library does not know."""
    return f"Check the spelling of {command}: the service answers so, too, when there is no such command."
