"""Writer: a session as the one who appends to it holds it, for tests of stores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from msgspec import structs

from cra._core.chain import Chain, EventBatch, verify
from cra.storage.base import (
    NO_CHANGE,
    ApprovalRecord,
    Change,
    Claim,
    DocumentWrite,
    Removal,
    ResolutionRecord,
    SessionRecord,
    Storage,
)
from cra.testing.clock import SeededIds

START_US = 1_767_225_600_000_000
SECOND = 1_000_000
BIG = 2**200 + 1
# What a careless store loses: controls, a zero character, combining and astral characters, an SQL quote.
TEXT = "naïve 'quoted' \x00 \x1f \u2028 e\u0301 \N{GRINNING FACE} {} %s"

ids = SeededIds(20260101)


def new_id() -> str:
    """Return a UUID of version 7."""
    nil = "00000000-0000-0000-0000-000000000000"
    return Chain(nil, nil).begin(START_US, ids(16)).new_id()


class Writer:
    """One session as its writer holds it: the chain, and what was acknowledged."""

    def __init__(
        self,
        store: Storage,
        agent_id: str = "agent-1",
        session_id: str | None = None,
        *,
        begin: Change = NO_CHANGE,
        **more: Any,
    ) -> None:
        self.store = store
        self.record = SessionRecord(
            session_id=session_id or new_id(),
            agent_id=agent_id,
            goal="test the store",
            trace_id=new_id(),
            started_us=START_US,
            **more,
        )
        self.session_id = self.record.session_id
        self.chain = Chain(self.session_id, self.record.trace_id)
        self.acknowledged = bytearray()
        self.append(structs.replace(begin, session=self.record), "session.started")

    def batch(self, *event_types: str, **payload: Any) -> EventBatch:
        """Return a batch on the head that this writer knows."""
        batch = self.chain.begin(START_US + self.chain.sequence, ids(16))
        for number, event_type in enumerate(event_types or ("error.occurred",)):
            batch.add(event_type, {"number": number, **payload})
        return batch

    def append(self, change: Change = NO_CHANGE, *event_types: str, **payload: Any) -> EventBatch:
        """Append and advance."""
        batch = self.batch(*event_types, **payload)
        self.store.append(self.session_id, self.chain.head, batch, change)
        self.chain.advance(batch)
        self.acknowledged += batch.data
        return batch

    def reload(self, store: Storage | None = None) -> None:
        """Take the head from the store."""
        self.store = store or self.store
        record, head = self.store.load(self.session_id)
        self.chain = Chain(self.session_id, record.trace_id, head.sequence, head.hash, head.last_us)

    def end(self, at_us: int = START_US + 1) -> None:
        """End the session."""
        ended = structs.replace(self.record, status="ended", ended_us=at_us, end_reason="completed")
        self.append(Change(session=ended), "session.ended")

    def check(self) -> None:
        """Assert that the store holds exactly what it acknowledged, as one valid chain."""
        stored = self.store.events(self.session_id)
        assert stored == self.acknowledged
        verdict = verify(stored)
        assert verdict.ok, verdict.message
        assert self.store.load(self.session_id)[1] == (self.chain.sequence, self.chain.head, self.chain.last_us)


def resolution(number: int = 0, *, expires_us: int = START_US + 3600 * SECOND, **more: Any) -> ResolutionRecord:
    """Return a resolution that offers `ticket.get` unless told otherwise."""
    fields: dict[str, Any] = {
        "resolution_id": new_id(),
        "expires_us": expires_us,
        "goal": f"goal {number}",
        "risk": 1,
        "atlas_ids": ("com.example.desk",),
        "capabilities": ("tickets",),
        "context": {"tier": "gold"},
        "offered": frozenset({"ticket.get"}),
    }
    return ResolutionRecord(**{**fields, **more})


def approval(session_id: str, **more: Any) -> ApprovalRecord:
    """Return a pending approval."""
    fields: dict[str, Any] = {
        "approval_id": new_id(),
        "session_id": session_id,
        "agent_id": "agent-1",
        "action_id": "refund.create",
        "atlas_id": "com.example.desk",
        "policy_id": None,
        "resolution_id": new_id(),
        "parameters_hash": "0" * 64,
        "snapshot_digest": "1" * 64,
        "requested_us": START_US,
        "expires_us": START_US + SECOND,
        "parameters": {"amount": BIG, "note": TEXT},
    }
    return ApprovalRecord(**{**fields, **more})


def rate(key: str = "rate", calls: int = 3, window_us: int = 60 * SECOND) -> Claim:
    """Return a claim of one call."""
    return Claim(key, True, calls, window_us, 1)


def budget(cost: int, key: str = "budget", limit: int = 100, window_us: int = 60 * SECOND) -> Claim:
    """Return a claim of `cost` micro-units."""
    return Claim(key, False, limit, window_us, cost)


def taking(*claims: Claim, at_us: int = START_US) -> Change:
    """Return a change that takes claims."""
    return Change(claims=claims, claims_at_us=at_us)


def purging(*writers: Writer) -> Change:
    """Return a change that removes sessions, as their writers know them."""
    return Change(purge=tuple([Removal(writer.session_id, writer.chain.head) for writer in writers]))


def documents(**kinds: dict[str, bytes | None]) -> Change:
    """Return a change that writes documents: for each kind their bodies by name."""
    return Change(
        documents=tuple(
            [DocumentWrite(kind, name, body) for kind, bodies in kinds.items() for name, body in bodies.items()]
        )
    )


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work` in that many threads, begun at the same moment; returns results in the order of their numbers."""
    barrier = Barrier(count)

    def run(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
