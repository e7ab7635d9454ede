"""tim_async: an asyncio client for the read state of Tencent Cloud Chat (IM), at the full rate the service allows.

This module has the public names only.  Each is imported on first access, so that a program that needs only a part,
such as the pytest plugin or the command line's help, does not load an HTTP client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tim_async._lazy import attach as _attach

if TYPE_CHECKING:
    from ._coalesce import Lookup as Lookup
    from ._doctor import Finding as Finding
    from ._doctor import doctor as doctor
    from ._hooks import Attempt as Attempt
    from ._lanes import Lane as Lane
    from ._stats import EndpointStats as EndpointStats
    from ._web import http_status as http_status
    from ._web import retry_after as retry_after
    from .batch import Batch as Batch
    from .client import TIMClient as TIMClient
    from .errors import AccountNotFound as AccountNotFound
    from .errors import APIError as APIError
    from .errors import AuthError as AuthError
    from .errors import BadResponse as BadResponse
    from .errors import ClientClosed as ClientClosed
    from .errors import ConnectFailed as ConnectFailed
    from .errors import ConnectionLost as ConnectionLost
    from .errors import GroupNotFound as GroupNotFound
    from .errors import InvalidRequest as InvalidRequest
    from .errors import PartialFailure as PartialFailure
    from .errors import PermissionDenied as PermissionDenied
    from .errors import QuotaExhausted as QuotaExhausted
    from .errors import RateLimited as RateLimited
    from .errors import ReceiptUnavailable as ReceiptUnavailable
    from .errors import RequestTimeout as RequestTimeout
    from .errors import ServerBusy as ServerBusy
    from .errors import TIMError as TIMError
    from .errors import TransportError as TransportError
    from .models import C2CUnread as C2CUnread
    from .models import Contact as Contact
    from .models import Done as Done
    from .models import Failed as Failed
    from .models import GroupMsgReceiptDetail as GroupMsgReceiptDetail
    from .models import GroupMsgReceipts as GroupMsgReceipts
    from .models import ItemError as ItemError
    from .models import Receipt as Receipt
    from .models import RecentContactList as RecentContactList
    from .models import RecentContactPage as RecentContactPage
    from .retrying import RetryPolicy as RetryPolicy

_HOME = {
    "APIError": "errors",
    "AccountNotFound": "errors",
    "Attempt": "_hooks",
    "AuthError": "errors",
    "BadResponse": "errors",
    "Batch": "batch",
    "C2CUnread": "models",
    "ClientClosed": "errors",
    "ConnectFailed": "errors",
    "ConnectionLost": "errors",
    "Contact": "models",
    "Done": "models",
    "EndpointStats": "_stats",
    "Failed": "models",
    "Finding": "_doctor",
    "GroupMsgReceiptDetail": "models",
    "GroupMsgReceipts": "models",
    "GroupNotFound": "errors",
    "InvalidRequest": "errors",
    "ItemError": "models",
    "Lane": "_lanes",
    "Lookup": "_coalesce",
    "PartialFailure": "errors",
    "PermissionDenied": "errors",
    "QuotaExhausted": "errors",
    "RateLimited": "errors",
    "Receipt": "models",
    "ReceiptUnavailable": "errors",
    "RecentContactList": "models",
    "RecentContactPage": "models",
    "RequestTimeout": "errors",
    "RetryPolicy": "retrying",
    "ServerBusy": "errors",
    "TIMClient": "client",
    "TIMError": "errors",
    "TransportError": "errors",
    "doctor": "_doctor",
    "http_status": "_web",
    "retry_after": "_web",
}

__version__ = "1.0.0"

if not TYPE_CHECKING:  # with a __getattr__, a type checker would accept any name
    __all__ = list(_HOME)  # mypy would read any but a literal list as empty
    __getattr__, __dir__ = _attach(__name__, _HOME)
