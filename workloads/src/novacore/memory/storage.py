"""Storage is held at auth-billing before a memory that costs any is written, and given back when it goes.

Taking is a call, because the answer decides; giving back is an outbox event in the transaction that frees the space.
Between the call and the memory's transaction the process may die. So the charge is written down first, the memory's
transaction uses it up, and `give_back_stale` returns what stayed behind: it repeats the call under the same key
(whether it had arrived or not, afterwards it has, or it was refused) and then hands the bytes back.

Invariant MEM-CHARGE: after the sweep a user's balance at auth-billing is the sum of the sizes of his visible billed
memories, whatever was killed in between.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from novacore.common import errors, outbox
from novacore.common.database import Connection, Database
from novacore.common.errors import ServiceError
from novacore.common.ids import uuid7
from novacore.common.log import get_logger
from novacore.common.peers import PeerError, Peers
from novacore.memory import repository

log = get_logger()

ADJUST_TIMEOUT_S = 1.0
BILLING = "auth-billing"
SWEEP_MAX = 100
REFUSALS = (402, 429)


class Storage:
    """A user's storage allowance, seen from memory."""

    def __init__(self, db: Database, peers: Peers) -> None:
        self._db = db
        self._peers = peers

    async def charge(self, user_id: UUID, size: int) -> UUID:
        """Hold `size` bytes and return the charge. ServiceError 402, 429 when refused, 503 without an answer."""
        charge_id = uuid7()
        async with self._db.transaction(user_id) as conn:
            await repository.add_charge(conn, user_id, charge_id, size)
        try:
            await self._adjust(user_id, charge_id, size)
        except PeerError as error:
            if error.status not in REFUSALS:  # it may have arrived: the sweep finds out
                raise errors.unavailable("upstream_down", "The storage allowance cannot be checked now.") from error
            async with self._db.transaction(user_id) as conn:
                await repository.take_charge(conn, user_id, charge_id)
            raise _refusal(error) from error
        return charge_id

    async def use(self, conn: Connection, user_id: UUID, charge_id: UUID) -> None:
        """Use a charge up in the transaction that writes what it paid for."""
        if not await repository.take_charge(conn, user_id, charge_id):
            raise errors.unavailable("upstream_down", "The request took too long; nothing was stored.")

    async def refund(self, conn: Connection, user_id: UUID, size: int, *, key: str) -> None:
        """Give `size` bytes back, if and only if this transaction commits. `key` names the reason uniquely."""
        if size > 0:
            await outbox.add(
                conn,
                type="usage.adjust",
                payload={"idempotency_key": key, "delta": -size},  # the user is the envelope's
                user_id=user_id,
                schema="memory",
            )

    async def give_back_stale(self, older_than: timedelta) -> int:
        """Settle charges whose request died; return how many."""
        async with self._db.connection() as conn:
            stale = await repository.stale_charges(conn, older_than, SWEEP_MAX)
        settled = 0
        for charge_id, user_id, size in stale:
            try:
                await self._adjust(user_id, charge_id, size)
                held = True
            except PeerError as error:
                if error.status not in REFUSALS:
                    log.warning("charge_not_settled", reason=error.code)
                    break
                held = False
            async with self._db.transaction(user_id) as conn:
                if await repository.take_charge(conn, user_id, charge_id):
                    settled += 1
                    if held:
                        await self.refund(conn, user_id, size, key=f"memory:charge:{charge_id}:back")
        return settled

    async def _adjust(self, user_id: UUID, charge_id: UUID, size: int) -> None:
        await self._peers.call(
            BILLING,
            "POST",
            "/internal/quota/adjust",
            json={"idempotency_key": f"memory:charge:{charge_id}", "user_id": str(user_id), "delta": size},
            internal=True,
            timeout_s=ADJUST_TIMEOUT_S,
        )


def _refusal(error: PeerError) -> ServiceError:
    body = error.body if isinstance(error.body, dict) else {}
    if error.status == 402:
        return errors.payment_required(error.code, str(body.get("detail", "Storing needs a paid plan.")))
    return errors.quota_exceeded(
        resource="memory_storage",
        used=int(body.get("used", 0)),
        limit=int(body.get("limit", 0)),
        resets_at=None,
        retry_after_s=3600,
    )
