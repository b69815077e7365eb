"""What the tests of the command line share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ATLASES = ROOT / "examples" / "atlases"
SUPPORT = str(ATLASES / "customer-support")
STRICTER = str(ATLASES / "customer-support-2.2.0")
REFUND = {"ticket_id": "T-1042", "amount": 600, "currency": "EUR", "reason": "defective"}
REFUND_WORDS = ("refund.create", "ticket_id=T-1042", "amount:=600", "currency=EUR", "reason=defective")
REFUNDED = '{"refund_id": "R-1", "status": "created", "amount": 600, "currency": "EUR"}'
TICKET = '{"ticket_id": "T-1", "subject": "s", "status": "open", "priority": "low", "customer_id": "C-1"}'


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return standard output, which is one JSON value."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """Return the error that stands on standard error, while standard output is empty."""
        assert self.out == ""
        return json.loads(self.err)["error"]


Run = Callable[..., Ran]
