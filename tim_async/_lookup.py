"""Look-ups of one thing each: ``tim.lookup``.  How they merge is said in `tim_async._coalesce`."""

from __future__ import annotations

from . import _arguments
from ._coalesce import Lookups
from ._options import Options
from .endpoints import GET_C2C_UNREAD_MSG_NUM, GET_GROUP_MSG_RECEIPT
from .models import Receipt


class Lookup:
    """The look-ups of one client: ``tim.lookup``.

    Await them one by one, anywhere in the program: those made within a few milliseconds of each other, or while calls
    wait for their turns, are merged into calls of up to 10 peers or 50 messages.  Equal look-ups under way share one
    answer, which may have been read just before the later of them was made.
    """

    def __init__(self, lookups: Lookups, options: Options) -> None:
        self._lookups = lookups
        self._options = options
        retry = options.retry
        self._mode = (
            options.timeout,
            options.max_wait,
            retry.attempts,
            *retry.wait,
            *retry.wait_rate_limited,
            retry.total,
            retry.budget,
        )

    async def c2c_unread_msg_num(self, to_account: str, peer_account: str) -> int:
        """Count an account's unread messages from one peer; merged with others of the same account, 10 a call.

        https://www.tencentcloud.com/document/product/1047/41046

        Args:
            to_account: whose unread messages.
            peer_account: the peer.

        Returns:
            The count.

        Raises:
            ValueError, TypeError: an argument that cannot be right; nothing was sent.
            TIMError: the call failed, or this peer did, e.g. `AccountNotFound`; other peers' errors raise elsewhere.
        """
        to_account = _arguments.text("to_account", to_account)
        peer_account = _arguments.text("peer_account", peer_account)
        count: int = await self._lookups.get(
            GET_C2C_UNREAD_MSG_NUM, to_account, peer_account, self._options, self._mode
        )
        return count

    async def group_msg_receipt(self, group_id: str, msg_seq: int) -> Receipt:
        """Pull the read receipt of one message; merged with others of the same group, 50 a call.

        https://www.tencentcloud.com/document/product/1047/49439

        Args:
            group_id: the group.
            msg_seq: the message's sequence number.

        Returns:
            How many members have read the message, and how many have not.

        Raises:
            ValueError, TypeError: an argument that cannot be right; nothing was sent.
            TIMError: the call failed, or this message has no receipt, e.g. `ReceiptUnavailable`.
        """
        group_id = _arguments.text("group_id", group_id)
        msg_seq = _arguments.number("msg_seq", msg_seq)
        receipt: Receipt = await self._lookups.get(GET_GROUP_MSG_RECEIPT, group_id, msg_seq, self._options, self._mode)
        return receipt
