"""`TIMClient`: its lifecycle, and a method for each endpoint.

`endpoints` builds the requests and reads the answers; `_call` makes the calls.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Self, TypeVar, Unpack

import aiohttp

from . import _arguments, config
from ._call import Call, Caller
from ._coalesce import Lookup, Lookups
from ._hooks import Hook, Hooks
from ._lanes import Lane
from ._limiter.sharing import Quota
from ._options import ClientSettings, Options
from ._secret import Secret
from ._session import checked_proxy
from ._stats import EndpointStats
from .batch import Batch
from .endpoints import (
    ADMIN_SET_MSG_READ,
    ENDPOINTS,
    GET_ALL_C2C_UNREAD_MSG_NUM,
    GET_C2C_UNREAD_MSG_NUM,
    GET_GROUP_MSG_RECEIPT,
    GET_GROUP_MSG_RECEIPT_DETAIL,
    GET_RECENT_CONTACT_LIST,
    SET_UNREAD_MSG_NUM,
    Endpoint,
    endpoint_of,
    rates_by_command,
)
from .models import C2CUnread, GroupMsgReceiptDetail, GroupMsgReceipts, RecentContactList, RecentContactPage
from .regions import Hosts
from .retrying import RetryPolicy
from .usersig import DAY

if TYPE_CHECKING:
    from .webhooks import RequestOverLimit

P = ParamSpec("P")
T = TypeVar("T")


class TIMClient:
    """An asyncio client for the read state of Tencent Cloud Chat (IM).

    It calls each endpoint at the full rate that the service allows and retries transient failures.  A call that fails
    raises a `TIMError`, never an exception of another library.  Create one client for each event loop and keep it::

        async with TIMClient(sdk_app_id=1400000000, secret_key="…", region="singapore") as tim:
            unread = await tim.get_all_c2c_unread_msg_num("alice")

    https://www.tencentcloud.com/document/product/1047/34620

    Args:
        sdk_app_id: the app's SDKAppID.
        secret_key: the app's secret key, as shown in the console, to sign UserSigs locally.
        identifier: an admin account of the app.
        region: the app's region: one of `tim_async.regions.REGIONS`, e.g. ``"singapore"``, or a short name, e.g.
            ``"sgp"``.
        base_url: the URL of another host, instead of a region, e.g. the emulator's ``http://127.0.0.1:8099``.
        rates: calls/s that the *server* allows, by method name or command; 200 for each endpoint that is not named.
        timeout: seconds for one attempt, including a try at the backup host.  Keep it above 3, the seconds after which
            the service itself gives up.
        retry: the retry policy for transient failures.
        session: an aiohttp session to use; it stays unchanged and is never closed.  Its connector's limit (100 by
            default) bounds the calls in flight.  Without one, the client creates its own session.
        proxy: the URL of an HTTP proxy for the client's own session, e.g. ``http://user:password@host:3128``.
        trust_env: whether the client's own session takes its proxy from ``HTTPS_PROXY``, ``HTTP_PROXY`` and
            ``NO_PROXY``, which are read once, with the first call.
        allow_http: whether ``base_url`` may be an ``http://`` URL of a host other than this machine.  The UserSig, an
            admin's credential, then travels unencrypted.
        quota: the quota that a fleet shares, e.g. `tim_async.quota.RedisQuota`; without one, this client uses each
            endpoint's whole rate.
        strict: whether to avoid every refusal caused by the client's own jitter, at the cost of throughput: N/(1 + RTT)
            calls/s at a limit of N, with the round-trip time RTT in seconds.
        usersig_expire: seconds for which each UserSig is valid; it is renewed after four fifths of them.
        on_attempt: a function, or several, called with an `Attempt` after each request; it should return quickly.
            For metrics and traces, see `tim_async.telemetry`.

    Raises:
        ValueError, TypeError: an invalid argument, such as a key that is too short or malformed.
    """

    def __init__(
        self,
        *,
        sdk_app_id: int,
        secret_key: str | Secret,
        identifier: str = "administrator",
        region: str | None = None,
        base_url: str | None = None,
        rates: Mapping[str, float] | None = None,
        timeout: float = 10.0,
        retry: RetryPolicy | None = None,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        allow_http: bool = False,
        quota: Quota | None = None,
        strict: bool = False,
        usersig_expire: int = 7 * DAY,
        on_attempt: Hook | Iterable[Hook] | None = None,
    ) -> None:
        key, via = Secret.of(secret_key), None if proxy is None else Secret.of(proxy)
        del secret_key, proxy  # an error in another argument must not expose them in its traceback's frame
        self._options = Options(timeout, RetryPolicy() if retry is None else retry)
        self._caller = Caller(
            ClientSettings(
                sdk_app_id=sdk_app_id,
                key=key,
                identifier=identifier,
                hosts=Hosts.of(region, base_url, allow_http=allow_http),
                rates=rates_by_command({} if rates is None else rates),
                options=self._options,
                session=session,
                proxy=checked_proxy(via),
                trust_env=trust_env,
                quota=quota,
                strict=strict,
                usersig_expire=usersig_expire,
                hooks=Hooks(on_attempt),
            )
        )
        self.batch: Batch = Batch(self)
        self._lookups = Lookups(self._caller)
        self.lookup: Lookup = Lookup(self._lookups, self._options)

    @classmethod
    def from_env(cls, **options: Unpack[config.ClientOptions]) -> Self:
        """Make a client from the environment.

        Reads ``TIM_SDK_APP_ID``; ``TIM_SECRET_KEY``, or the file that ``TIM_SECRET_KEY_FILE`` names;
        ``TIM_IDENTIFIER`` (default administrator); ``TIM_REGION`` or ``TIM_BASE_URL``; and ``TIM_ALLOW_HTTP``.
        ``TIM_LOG`` (debug, info, warning or error) shows the logger ``tim_async`` on standard error.

        Args:
            options: any arguments of the constructor; the variables that they replace are not read.

        Raises:
            ValueError: a variable is missing or invalid.
            OSError: the key's file cannot be read.
        """
        given: dict[str, Any] = dict(options)
        for name in ("secret_key", "proxy"):
            if given.get(name) is not None:
                given[name] = Secret.of(given[name])
        del options  # an error in a variable or an argument must not expose them in its traceback's frame
        config.set_up_logging(os.environ)
        found = {**config.options(os.environ, given=given), **given}
        config.require(found)
        config.require_place(found)
        return cls(**found)

    @property
    def sdk_app_id(self) -> int:
        """The app's SDKAppID."""
        return self._caller.settings.sdk_app_id

    @property
    def base_url(self) -> str:
        """The base URL of the service: ``base_url`` as given, or that of the region's host."""
        return self._caller.base_url

    def __repr__(self) -> str:
        # Crash reporters also show a client whose constructor raised.
        caller = getattr(self, "_caller", Caller)
        return f"<TIMClient {caller.description}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client holds connections and a secret key, and cannot be pickled or copied")

    async def __aenter__(self) -> Self:
        self._caller.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client and the session it created; calls that still wait raise `ClientClosed`.

        May be called more than once.  A session passed to the client stays open.

        Raises:
            RuntimeError: the client belongs to another event loop that is not closed; the client stays open.
        """
        try:
            await self._caller.aclose()
        finally:
            await self._lookups.aclose()

    def with_options(
        self,
        *,
        max_wait: float | None = None,
        timeout: float | None = None,
        lane: Lane | None = None,
        retry: RetryPolicy | None = None,
    ) -> Self:
        """Return a view of this client with other call options and the same session, queues, quota and look-ups.

        A view is cheap: make one for each kind of caller, or for each call.  Options that are not given stay
        unchanged.  Closing a view closes this client, too.

        Args:
            max_wait: the maximum seconds, 0 or more, that a call waits for its permits.  A call that would wait longer
                raises `QuotaExhausted`: immediately if that can be predicted, otherwise when the time is up.  If the
                permit was for a retry, the call raises the service's error of the previous attempt instead.
            timeout: seconds for one attempt.
            lane: interactive or bulk; by default, the lane of the context.
            retry: the retry policy for transient failures.

        Returns:
            A client of the same class.

        Raises:
            ValueError, TypeError: an invalid option.
        """
        given = {"timeout": timeout, "retry": retry, "max_wait": max_wait, "lane": lane}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._options = replace(self._options, **changes)
        view.batch = Batch(view)
        view.lookup = Lookup(view._lookups, view._options)
        return view

    def stats(self) -> dict[str, EndpointStats]:
        """Return the statistics of each endpoint, by method name, or by command if it has no method.

        They count from the creation of this client and include all views from `with_options`.
        """
        return self._caller.channels.stats(*ENDPOINTS)

    def on_alert(self, event: RequestOverLimit) -> None:
        """Slow down an endpoint after an alert from the service, for the whole fleet if the quota is shared.

        The service alerts at 80 % of the limit, so also on a fleet that merely uses its full rate: pass the event on
        only if clients outside this quota need a share.  The rate falls to the fraction of the requests that is within
        the limit, by at least 5 %, and recovers within a minute without refusals.

        https://www.tencentcloud.com/document/product/1047/60256

        Args:
            event: from `tim_async.webhooks.parse`.  An endpoint that this client has not used is slowed down only if
                the quota is shared.

        Raises:
            TypeError: the event is of another kind.
            ValueError: the event is about another app.
        """
        from .webhooks import RequestOverLimit  # imported here: most programs receive no webhooks

        _arguments.kind("event", event, RequestOverLimit)
        if event.sdk_app_id not in (None, self.sdk_app_id):
            raise ValueError(f"the alert is about app {event.sdk_app_id}, this client calls {self.sdk_app_id}")
        # Compare the command's last part only: the service name in an alert is an internal one.
        name = event.path.rpartition("/")[2]
        commands = self._caller.channels.commands()
        if self._caller.channels.shared:
            commands.update(endpoint.command for endpoint in ENDPOINTS)
        for command in commands:
            if command.rpartition("/")[2] == name:
                channel = self._caller.channel(endpoint_of(command, repeatable=False))
                channel.queue.slow_down(min(1.0, event.limit / max(1, event.request)))

    def set_rate(self, method: str, rate: float, *, bulk_share: float | None = None) -> None:
        """Change the rate of one endpoint at run time; calls that already wait get their permits at the new rate.

        A one-second window with a call sent after the change holds at most the new rate's number of calls; a window
        across the change, at most that of the higher rate.  Adjustments learned from refusals are kept.

        Args:
            method: the endpoint, by method name or command.
            rate: calls/s that the *server* allows.  With a shared quota, this is for all processes together: set it in
                each of them, since the lowest applies to all.  With ``RedisQuota(own_rates=True)``, it is the maximum
                of this process.
            bulk_share: with a shared quota, the fraction of the rate, above 0 and up to 1, at which bulk calls of this
                process stop: they get no permit while all processes together use more.  None leaves it unchanged.

        Raises:
            ValueError, TypeError: an invalid argument, or ``bulk_share`` without a shared quota.
            ClientClosed: the client is closed.
            RuntimeError: the client belongs to another event loop.
        """
        ((command, rate),) = rates_by_command({method: rate}).items()
        bulk_share = None if bulk_share is None else _arguments.share("bulk_share", bulk_share)
        self._caller.open()
        self._caller.channels.set_rate(endpoint_of(command, repeatable=False), rate, bulk_share)

    # The calls.

    async def set_unread_msg_num(self, group_id: str, member_account: str, unread_msg_num: int) -> None:
        """Set the unread message count of one group member, without a notification; meant for migrations.

        The service silently lowers a count above the group's number of messages to that number.  In ChatRoom/Meeting
        and AVChatRoom groups it reports success and does nothing.

        https://www.tencentcloud.com/document/product/1047/34909

        Args:
            group_id: the group.
            member_account: the member's user id.
            unread_msg_num: the count, 0 or more.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the call failed.
        """
        await self._call(SET_UNREAD_MSG_NUM, group_id, member_account, unread_msg_num)

    async def admin_set_msg_read(
        self, report_account: str, peer_account: str, *, msg_read_time: int | dt.datetime | None = None
    ) -> None:
        """Mark one side of a one-to-one conversation as read.

        Without ``msg_read_time`` the service uses its current time; a retry then sends the time of the first attempt,
        so that it never marks messages that arrived in between.

        https://trtc.io/document/38996

        Args:
            report_account: the account whose messages become read.
            peer_account: the other side of the conversation.
            msg_read_time: the time before which all messages become read: unix seconds, or a datetime with a time
                zone; not before 2010, and at most a day ahead.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the call failed.
        """
        await self._call(ADMIN_SET_MSG_READ, report_account, peer_account, msg_read_time)

    async def get_all_c2c_unread_msg_num(self, to_account: str) -> int:
        """Count an account's unread messages in all its one-to-one conversations.

        https://www.tencentcloud.com/document/product/1047/41046

        Args:
            to_account: the account whose unread messages are counted.

        Returns:
            The count.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the call failed.
        """
        return await self._call(GET_ALL_C2C_UNREAD_MSG_NUM, to_account)

    async def get_c2c_unread_msg_num(self, to_account: str, peer_accounts: Iterable[str]) -> C2CUnread:
        """Count an account's unread messages from each of up to 10 peers, in one call.

        For more peers, see ``batch.get_c2c_unread_msg_num``.

        https://www.tencentcloud.com/document/product/1047/41046

        Args:
            to_account: the account whose unread messages are counted.
            peer_accounts: 1 to 10 distinct peers; duplicates are ignored.

        Returns:
            The counts, and an error for each peer that failed.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the call failed.
        """
        return await self._call(GET_C2C_UNREAD_MSG_NUM, to_account, peer_accounts)

    async def get_group_msg_receipt(self, group_id: str, msg_seqs: Iterable[int]) -> GroupMsgReceipts:
        """Get the read receipts of messages of one group, in one call.

        The service documents no maximum; ``batch.get_group_msg_receipt`` sends 50 a call.

        https://www.tencentcloud.com/document/product/1047/49439

        Args:
            group_id: the group.
            msg_seqs: the messages' sequence numbers; duplicates are ignored.

        Returns:
            The receipts, and an error for each message without one.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the call failed.
        """
        return await self._call(GET_GROUP_MSG_RECEIPT, group_id, msg_seqs)

    async def get_group_msg_receipt_detail(
        self, group_id: str, msg_seq: int, *, read: bool = True, cursor: str = "", count: int = 200
    ) -> GroupMsgReceiptDetail:
        """List one page of the members who have read a group message, or of those who have not.

        For all pages, see ``batch.get_group_msg_receipt_detail``.

        https://www.tencentcloud.com/document/product/269/77693

        Args:
            group_id: the group.
            msg_seq: the message's sequence number.
            read: True for the members who have read it, False for those who have not.
            cursor: the start of the page: "" for the first, then the ``cursor`` of the previous page.
            count: the maximum number of members on the page, 1 to 200.

        Returns:
            The page.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the call failed, e.g. `ReceiptUnavailable` for a message that was sent without a receipt.
        """
        return await self._call(GET_GROUP_MSG_RECEIPT_DETAIL, group_id, msg_seq, read, cursor, count)

    async def get_recent_contact_list(
        self, from_account: str, *, page: RecentContactPage | None = None
    ) -> RecentContactList:
        """List one page of an account's conversations, one-to-one and group.

        For all pages, see ``batch.get_recent_contact_list``; for the unread counts of these conversations,
        ``batch.get_recent_c2c_unread_msg_num``.

        https://www.tencentcloud.com/document/product/1047/43087

        Args:
            from_account: the account whose conversations are listed.
            page: the page to list: None for the first, then the ``next_page`` of the previous one.

        Returns:
            The page.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the call failed.
        """
        return await self._call(GET_RECENT_CONTACT_LIST, from_account, page)

    async def call(self, command: str, body: Mapping[str, Any], *, repeatable: bool = False) -> dict[str, Any]:
        """Call any other command of the service, with the same rate limiting, retries and errors.

        Args:
            command: the path, e.g. ``"v4/group_open_http_svc/get_group_info"``.
            body: the request's fields.
            repeatable: whether a second execution does no harm.  If not, the call is retried only if there was no
                connection, or after an answer that says that nothing was done (over the rate, a refused signature).

        Returns:
            The whole answer.

        Raises:
            ValueError, TypeError: an invalid argument; nothing was sent.
            TIMError: the call failed.
        """
        if not isinstance(body, Mapping):
            raise TypeError(f"body must be a mapping, not {type(body).__name__}")
        return await self._call(endpoint_of(command, repeatable), dict(body))

    # Not a coroutine: many calls wait, and each frame of each of them costs memory.
    def _call(self, endpoint: Endpoint[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return self._caller.make(Call(endpoint, endpoint.build(*args, **kwargs), self._options))
