"""A store that tells how many records were read from it, so that a test need not measure time."""

from __future__ import annotations

from typing import Any

from cra.storage.base import ApprovalRecord, Storage
from cra.testing.faults import FaultyStorage


class Reading(FaultyStorage):
    """A store that keeps what its lists of approvals returned."""

    def __init__(self, inner: Storage, read: list[ApprovalRecord] | None = None) -> None:
        super().__init__(inner)
        self.read = [] if read is None else read

    def of_tenant(self, tenant: str) -> Reading:
        return Reading(self.inner.of_tenant(tenant), self.read)

    def approvals(self, **which: Any) -> list[ApprovalRecord]:
        found = super().approvals(**which)
        self.read += found
        return found
