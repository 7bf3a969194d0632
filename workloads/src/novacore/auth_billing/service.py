"""The parts of auth-billing, put together once per process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from novacore.auth_billing.accounts import Accounts
from novacore.auth_billing.identity import Issuer
from novacore.auth_billing.ledger import Ledger

if TYPE_CHECKING:
    from novacore.auth_billing.payments.service import Payments


@dataclass(frozen=True, slots=True)
class AuthBilling:
    """What the endpoints and loops work with."""

    accounts: Accounts
    issuer: Issuer
    ledger: Ledger
    payments: Payments | None = None  # None: this installation has no payment provider
