"""An event of Stripe as this service uses it: a hint which object to fetch again. Pure.

Its `data.object` is a snapshot of some moment, and events come in any order; so nothing in it is believed but the
object's id.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

SUBSCRIPTION_TYPES: Final = (
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
)
INVOICE_TYPES: Final = ("invoice.paid", "invoice.payment_failed")
CHECKOUT_TYPES: Final = ("checkout.session.completed",)
TYPES: Final = (*CHECKOUT_TYPES, *SUBSCRIPTION_TYPES, *INVOICE_TYPES)
"""What an endpoint must be subscribed to, and what a reconciliation asks for."""


_ID: Final = re.compile(r"[A-Za-z0-9_]{1,255}", re.ASCII)
"""An id becomes part of a path, and whoever has a leaked secret may write what he likes."""


class NotAnEventError(ValueError):
    """The body is no event of Stripe. The message names what is missing, never the body."""


@dataclass(frozen=True, slots=True)
class Hint:
    """One event. `object_id` is empty when it means nothing to us: it is stored all the same."""

    event_id: str
    type: str
    created: datetime
    object_id: str

    @property
    def counts(self) -> bool:
        """Whether there is anything to fetch."""
        return bool(self.object_id)


def read_hint(body: bytes) -> Hint:
    """Return the hint in a webhook's body. NotAnEventError when it is none."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAnEventError("the body is not JSON") from None
    if not isinstance(event, dict):
        raise NotAnEventError("the body is no object")
    return hint_of(event)


def hint_of(event: dict[str, Any]) -> Hint:
    """Return the hint of a parsed event. NotAnEventError when it is none."""
    event_id, type_, created = event.get("id"), event.get("type"), event.get("created")
    if not isinstance(event_id, str) or not event_id.startswith("evt_") or not _ID.fullmatch(event_id):
        raise NotAnEventError("id is not one of an event")
    if not isinstance(type_, str) or not 0 < len(type_) <= 100:
        raise NotAnEventError("type is missing")
    if not isinstance(created, int) or isinstance(created, bool) or not 0 < created < 1 << 40:
        raise NotAnEventError("created is no Unix time")
    return Hint(event_id, type_, datetime.fromtimestamp(created, UTC), _subject(type_, event))


def _subject(type_: str, event: dict[str, Any]) -> str:
    """Return the id of what has to be fetched. Of a finished checkout that is the subscription it led to."""
    data = event.get("data")
    object_ = data.get("object") if isinstance(data, dict) else None
    if type_ not in TYPES or not isinstance(object_, dict):
        return ""
    found = object_.get("subscription" if type_ in CHECKOUT_TYPES else "id")
    if isinstance(found, dict):  # expanded
        found = found.get("id")
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""
