"""Approvals: a person's yes or no to one call."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event
from typing import Literal

from msgspec import structs

from cra._core.chain import EventBatch
from cra.errors import ApprovalConflict, ApprovalNotFound, InvalidRequest, SessionEnded, SessionNotFound
from cra.protocol.times import format_timestamp
from cra.runtime.kernel import Kernel, check_active, check_text, check_uuid, same_person
from cra.storage.base import ApprovalRecord, Change

# Inside the class `list` is its method.
Records = list[ApprovalRecord]
Status = Literal["pending", "granted", "rejected", "expired", "used"]

# How long a decision that another process recorded may go unseen by who waits for it.
POLL_SECONDS = 1.0
_LONGEST_WAIT = 3600
_PAGE = 32

_EVENT = {"granted": "approval.granted", "rejected": "approval.rejected"}


class Approvals:
    """The approvals of a runtime's sessions; granting one lets exactly that call run, once."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def list(
        self,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        status: Status | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Records:
        """Return approvals, oldest first: up to `limit` of them, those after the approval `after`."""
        given: object = limit
        if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
            raise InvalidRequest(f"limit is `{given}`, expected a whole number from 1", pointer="/limit")
        if after is not None:
            check_uuid("after", after)
        return self._kernel.storage.approvals(
            session_id=session_id, agent_id=agent_id, status=status, after=after, limit=limit
        )

    def get(self, approval_id: str) -> ApprovalRecord:
        """Return one approval; raises `ApprovalNotFound`."""
        check_uuid("approval_id", approval_id)
        found = self._kernel.storage.approval(approval_id)
        if found is None:
            raise ApprovalNotFound(f"approval `{approval_id}` does not exist")
        return found

    def wait(self, approval_id: str, seconds: float) -> ApprovalRecord:
        """Return an approval as soon as it is decided, over or used, and after `seconds` (0 to 3600) as it is then.

        A decision of this runtime is seen at once, one of another process within a second.
        """
        end = time.monotonic() + check_wait(seconds)
        changed = Event()
        with self._kernel.watchers.add(self.get(approval_id).session_id, changed.set):
            while True:
                record = self.get(approval_id)
                left = end - time.monotonic()
                if left <= 0 or self.is_settled(record):
                    return record
                changed.wait(min(left, POLL_SECONDS))
                changed.clear()

    def is_settled(self, record: ApprovalRecord) -> bool:
        """Whether nobody has to decide any more."""
        return record.status != "pending" or self._kernel.now_us() >= record.expires_us

    def grant(self, approval_id: str, *, approver: str, reason: str | None = None) -> ApprovalRecord:
        """Record that `approver` agrees.

        Raises `ApprovalConflict` when the approval is not pending any more or the approver is the requester.
        """
        return self._decide(approval_id, "granted", approver, reason)

    def reject(self, approval_id: str, *, approver: str, reason: str | None = None) -> ApprovalRecord:
        """Record that `approver` does not agree; as `grant`."""
        return self._decide(approval_id, "rejected", approver, reason)

    def expire(self) -> Records:
        """Record the expiry of every open approval whose time is over; returns those."""
        now_us = self._kernel.now_us()
        over = [
            record.approval_id
            for status in ("pending", "granted")
            for record in self._each(status)
            if now_us >= record.expires_us
        ]
        expired: Records = []
        for approval_id in over:
            # One whose session has ended, or which was decided meanwhile, has nothing left to record.
            with suppress(SessionEnded, SessionNotFound, ApprovalConflict, ApprovalNotFound):
                expired.append(self._change(approval_id, self._expiry))
        return expired

    def _each(self, status: Literal["pending", "granted"]) -> Iterator[ApprovalRecord]:
        """Yield the approvals of a status, of which each may hold a call's parameters, some at a time."""
        after: str | None = None
        # One that is purged meanwhile has no place any more to go on from; what is left of them is for the next time.
        with suppress(ApprovalNotFound):
            while page := self._kernel.storage.approvals(status=status, after=after, limit=_PAGE):
                yield from page
                after = page[-1].approval_id

    def _decide(
        self, approval_id: str, status: Literal["granted", "rejected"], approver: str, reason: str | None
    ) -> ApprovalRecord:
        check_text("approver", approver, 255)
        if reason is not None:
            check_text("reason", reason, 1000)

        def decide(record: ApprovalRecord, batch: EventBatch) -> ApprovalRecord:
            if record.status != "pending":
                raise ApprovalConflict(f"approval `{approval_id}` is {record.status}, expected pending")
            # INVARIANT: who asked does not answer, neither the agent nor whoever made the call for it.
            if is_own(record, approver):
                raise ApprovalConflict(
                    f"approver `{approver}` asked for approval `{approval_id}`",
                    hint="somebody else has to decide",
                )
            if batch.now_us >= record.expires_us:
                return self._expiry(record, batch)
            payload = {
                "approval_id": approval_id,
                "action_id": record.action_id,
                "parameters_hash": record.parameters_hash,
                "approver": approver,
            }
            if reason is not None:
                payload["reason"] = reason
            batch.add(_EVENT[status], payload)
            # A rejected approval has no further use for what was asked.
            kept = record.parameters if status == "granted" else None
            return structs.replace(record, status=status, approver=approver, reason=reason, parameters=kept)

        record = self._change(approval_id, decide)
        if record.status == "expired":
            raise ApprovalConflict(
                f"approval `{approval_id}` expired at {format_timestamp(record.expires_us)}",
                hint="the agent has to ask again",
            )
        return record

    def _expiry(self, record: ApprovalRecord, batch: EventBatch) -> ApprovalRecord:
        if record.status not in ("pending", "granted"):
            raise ApprovalConflict(f"approval `{record.approval_id}` is {record.status}")
        batch.add(
            "approval.expired",
            {
                "approval_id": record.approval_id,
                "action_id": record.action_id,
                "parameters_hash": record.parameters_hash,
            },
        )
        return structs.replace(record, status="expired", parameters=None)

    def _change(
        self, approval_id: str, decide: Callable[[ApprovalRecord, EventBatch], ApprovalRecord]
    ) -> ApprovalRecord:
        live = self._kernel.live(self.get(approval_id).session_id)
        with live.lock:

            def build(batch: EventBatch) -> tuple[Change, ApprovalRecord]:
                check_active(live.record)
                # Read again under the lock, and for each head: it may have been decided meanwhile.
                changed = decide(self.get(approval_id), batch)
                return Change(approval=changed), changed

            # What is stored is nobody else's.
            return self._kernel.commit_until_done(live, build).apart()


def is_own(record: ApprovalRecord, approver: str | None) -> bool:
    """Say whether an approval was asked for by this person."""
    return approver is not None and any(
        asker is not None and same_person(approver, asker) for asker in (record.agent_id, record.requested_by)
    )


def check_wait(seconds: float) -> float:
    """Return how long to wait, or raise `InvalidRequest`."""
    given: object = seconds
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 <= given <= _LONGEST_WAIT:
        raise InvalidRequest(f"seconds is `{given}`, expected 0 to {_LONGEST_WAIT}", pointer="/seconds")
    return float(given)
