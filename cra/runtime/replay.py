"""Replay: decide a recorded session again, and say of every event whether it comes out the same."""

from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from cra._core.canonical import digest, dumps
from cra.atlas.package import Atlas
from cra.atlas.snapshot import Snapshot
from cra.errors import AtlasNotFound
from cra.protocol.trace import Trace
from cra.runtime.approvals import is_own
from cra.runtime.past import (
    COMPLETED,
    ERROR,
    EVALUATED,
    RECEIVED,
    REQUESTED,
    Payload,
    Recorded,
    Session,
    Step,
    Told,
    World,
    ask_of_step,
    decided_approval,
    read_session,
)
from cra.runtime.payloads import DECIDED
from cra.runtime.sets import AtlasRef, Sets, ref_of, refs_of
from cra.runtime.unknown import Blind, Cases, Doubt, cases_of, context_watchers, doubt_about
from cra.runtime.whatif import WhatIf, what_if
from cra.storage.base import Change

Status = Literal["same", "different", "not_retained", "given"]

_OUTCOMES = ("action.executed", "action.failed")


class ReplayedEvent(Struct, frozen=True, kw_only=True):
    """What became of one event.

    `different` names the first JSON pointer in the payload where they differ; an event that only one side has has
    only that side's value, and no `index` when it is the replay. `not_retained` was not decided, because it depends on
    an input of which only a digest was kept. `given` is an input, taken as it was recorded.
    """

    index: int | None
    event_type: str
    status: Status
    reason: str | None = None
    pointer: str | None = None
    recorded: Any = UNSET
    reproduced: Any = UNSET


class SnapshotUse(Struct, frozen=True, kw_only=True):
    """From which event on the session was decided by which atlases; `given` says whether those were handed in."""

    index: int
    digest: str
    given: bool


class ReplayResult(Struct, frozen=True, kw_only=True):
    """What a replay found; true when nothing came out different."""

    session_id: str
    events: tuple[ReplayedEvent, ...]
    recorded: tuple[AtlasRef, ...]
    given: tuple[AtlasRef, ...]
    snapshots: tuple[SnapshotUse, ...]
    what_if: WhatIf | None = None

    @property
    def ok(self) -> bool:
        """Whether every event that could be decided again came out as it was recorded."""
        return not self.differences

    @property
    def complete(self) -> bool:
        """Whether every decision could be decided again: nothing that mattered was kept as a digest only."""
        return not self.not_retained

    @property
    def differences(self) -> tuple[ReplayedEvent, ...]:
        """The events that came out different."""
        return tuple(event for event in self.events if event.status == "different")

    @property
    def not_retained(self) -> tuple[ReplayedEvent, ...]:
        """The events that could not be decided again."""
        return tuple(event for event in self.events if event.status == "not_retained")

    @property
    def atlases_changed(self) -> bool:
        """Whether the session went on with other atlases than it began with."""
        return len({use.digest for use in self.snapshots}) > 1

    def __bool__(self) -> bool:
        return self.ok

    def counts(self) -> dict[str, int]:
        """Return how many events came out how."""
        found = {"same": 0, "different": 0, "not_retained": 0, "given": 0}
        for event in self.events:
            found[event.status] += 1
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values; events that came out the same are only counted."""
        return {
            "session_id": self.session_id,
            "ok": self.ok,
            "complete": self.complete,
            "counts": self.counts(),
            "events": [_builtins(event) for event in self.events if event.status in ("different", "not_retained")],
            "atlases": {"recorded": _builtins(self.recorded), "given": _builtins(self.given)},
            "snapshots": _builtins(self.snapshots),
            "what_if": None if self.what_if is None else self.what_if.as_dict(),
        }


def _builtins(value: Any) -> Any:
    return msgspec.to_builtins(value)


def replay(
    trace: Trace | bytes, atlases: Atlas | Sequence[Atlas], *, default_decision: Literal["allow", "deny"] = "allow"
) -> ReplayResult:
    """Decide a recorded session again with the same engine and the recorded ids, times and observations.

    Raises `InvalidTrace` when the chain is broken, naming the event. Several versions of one atlas may be given: the
    recorded digests say which was loaded when. Where no given atlas is the recorded one, `what_if` tells what would
    have been decided. `default_decision` only matters then; otherwise the digests settle it.
    """
    session = read_session(trace)
    given = [atlases] if isinstance(atlases, Atlas) else list(atlases)
    return _Replay(session, given, default_decision).run()


class _Replay:
    """One replay under way."""

    def __init__(self, session: Session, atlases: Sequence[Atlas], default_decision: Literal["allow", "deny"]) -> None:
        self._session = session
        self._atlases = atlases
        self._default_decision = default_decision
        self._sets = Sets(atlases, default_decision)
        refs = session.steps[0].first.payload.get("atlases", [])
        self._started = self._sets.started(refs)
        self._recorded = refs_of(refs)
        self._world = World(session, self._started or self._sets.fallback)
        self._cases = Cases()
        self._found: list[ReplayedEvent] = []
        self._uses: list[SnapshotUse] = []
        self._actions = 0
        self._requests: set[object] = set()
        self._ended = False

    def run(self) -> ReplayResult:
        handlers: dict[str, Callable[[Step], None]] = {
            "session.started": self._session_started,
            "session.ended": self._session_ended,
            RECEIVED: self._resolve,
            REQUESTED: self._call,
            ERROR: self._error,
            **dict.fromkeys(_OUTCOMES, self._outcome),
            "approval.granted": self._approval,
            "approval.rejected": self._approval,
            "approval.expired": self._approval,
        }
        for step in self._session.steps:
            event_type = step.first.event_type
            # What the runtime would have refused without a record.
            handler = self._undecided if self._is_refused(step) else handlers.get(event_type, self._given)
            handler(step)
        foreign = self._started is None or any(not use.given for use in self._uses)
        return ReplayResult(
            session_id=self._session.session_id,
            events=tuple(self._found),
            recorded=self._recorded,
            given=tuple(ref_of(atlas) for atlas in self._sets.atlases),
            snapshots=tuple(self._uses),
            what_if=what_if(self._session, self._atlases, default_decision=self._default_decision) if foreign else None,
        )

    def _is_refused(self, step: Step) -> bool:
        """Tell whether nothing can be recorded here: a second start, a request that was made before, after the end."""
        event_type, request_id = step.first.event_type, step.first.payload.get("request_id")
        if event_type == "session.started":
            return step is not self._session.steps[0]
        if event_type in (RECEIVED, REQUESTED, ERROR):
            known = request_id in self._requests
            self._requests.add(request_id)
            return self._ended or (known and request_id is not None)
        return self._ended and event_type in DECIDED and event_type not in _OUTCOMES

    # What is taken as it was recorded

    def _undecided(self, step: Step) -> None:
        self._compare(step, [])

    def _given(self, step: Step) -> None:
        # A decision is no input: without the request that it answers nobody made it.
        self._found += [
            _judged(event, None) if event.event_type in DECIDED else _event(event, "given") for event in step.events
        ]

    # What follows from the inputs

    def _session_started(self, step: Step) -> None:
        snapshot = self._started or self._sets.fallback
        told = {**step.first.payload, "atlases": _builtins([ref_of(atlas) for atlas in snapshot.atlases])}
        self._compare(step._replace(events=step.events[:1]), [(step.first.event_type, told)])
        # A tenant's administration starts with the first change that people made to it.
        self._given(step._replace(events=step.events[1:]))

    def _session_ended(self, step: Step) -> None:
        told: Payload = {
            **step.first.payload,
            "duration_ms": (step.now_us - self._session.steps[0].now_us) // 1000,
            "action_count": self._actions,
        }
        self._compare(step, [(step.first.event_type, told)])
        self._ended = True

    def _approval(self, step: Step) -> None:
        payload, state = step.first.payload, self._world.state
        record = state.found_approvals.get(step.need("approval_id"))
        event_type = step.first.event_type
        expired = event_type == "approval.expired"
        open_ = ("pending", "granted") if expired else ("pending",)
        if (
            record is None
            or record.status not in open_
            or expired != (step.now_us >= record.expires_us)
            or (not expired and is_own(record, payload.get("approver")))
        ):
            self._undecided(step)
            return
        kept: Payload = {name: payload[name] for name in ("approver", "reason") if name in payload}
        told: Payload = {
            "approval_id": record.approval_id,
            "action_id": record.action_id,
            "parameters_hash": record.parameters_hash,
            **kept,
        }
        self._compare(step, [(event_type, told)])
        state.land(Change(approval=decided_approval(record, step)), step.now_us)

    def _outcome(self, step: Step) -> None:
        payload = step.first.payload
        permitted = self._world.outcome(step)
        if permitted is None:
            self._undecided(step)
            return
        told: Payload = {
            **payload,
            "action_id": permitted.call.partition(":")[0],
            "duration_ms": max(0, step.now_us - permitted.started_us) // 1000,
        }
        if step.first.event_type == "action.executed":
            told["resolution_id"] = permitted.resolution_id
            self._actions += 1
        self._compare(step, [(step.first.event_type, told)])

    # What is decided

    def _use(self, index: int, wanted: object) -> Snapshot:
        """Return the snapshot that a decision names by its digest, or the best there is."""
        if not isinstance(wanted, str):
            return self._world.snapshot
        found = self._sets.find(wanted)
        if not self._uses or self._uses[-1].digest != wanted:
            self._uses.append(SnapshotUse(index=index, digest=wanted, given=found is not None))
        self._world.snapshot = found or self._sets.fallback
        return self._world.snapshot

    def _resolve(self, step: Step) -> None:
        received, completed = step.first.payload, step.find(COMPLETED)
        answer = {} if completed is None else completed.payload
        world = self._world
        world.snapshot = self._use(step.first.index, answer.get("snapshot_digest"))
        world.observe(step, world.snapshot)
        ask = ask_of_step(step)
        try:
            told = world.ask(
                step, ask, ttl_seconds=answer.get("ttl_seconds", 3600), resolution_id=answer.get("resolution_id")
            )
        except AtlasNotFound:
            self._undecided(step)
            return
        # What the digest of the request covers beyond its fields here: the sender's clock, a parent, the context.
        taken: Payload = {name: received[name] for name in ("request_hash", "context_hash") if name in received}
        told[0][1].update(taken)
        if world.context_kept and "context_hash" not in received:
            self._compare(step, told)
            return
        actions, packs = context_watchers(world.snapshot)
        self._compare(step, told, hidden=_hidden_by_context(step.told() + told, actions, packs))

    def _call(self, step: Step) -> None:
        world, payload = self._world, step.first.payload
        snapshot = self._use(step.first.index, payload.get("snapshot_digest"))
        resolution_id = payload.get("resolution_id")
        action_id = step.need("action_id")
        blind = Blind(parameters="parameters" not in payload, context=resolution_id in world.blind)
        parameters = payload.get("parameters", {})
        parameters_hash = step.need("parameters_hash") if blind.parameters else digest(parameters)
        doubt = doubt_about(snapshot, action_id, Blind() if "replay_of" in payload else blind)
        cases = cases_of(doubt)
        results = []
        for answers in [{}] if cases is None else cases:
            chosen = self._cases.snapshot(snapshot, action_id, answers)
            world.observe(step, chosen)
            told, change, _ = world.call(step, chosen, parameters, parameters_hash, resolution_id=resolution_id)
            results.append((_words_of_schema(step, told, blind), change))
        best = next((result for result in results if _is(step, result[0])), results[0])
        if len(results) == 1 and cases is not None:
            self._compare(step, best[0])
        else:
            self._compare_cases(step, [told for told, _ in results], best[0], blind, doubt, cases is None)
        world.state.land(best[1], step.now_us)
        world.permit(step, parameters_hash)

    def _error(self, step: Step) -> None:
        payload = step.first.payload
        if payload.get("error_code") not in ("resolution_required", "resolution_expired") or "action_id" not in payload:
            # An executor that was missing, a key that was used before: what the host knew, and the trace does not.
            self._given(step)
            return
        told, _, _ = self._world.call(
            step,
            self._world.snapshot,
            {},
            str(payload.get("parameters_hash")),
            resolution_id=payload.get("resolution_id"),
        )
        self._compare(step, told)

    # Comparing

    def _compare(self, step: Step, told: Told, *, hidden: "_Hidden | None" = None) -> None:
        for recorded, reproduced in _pairs(step.events, told):
            if hidden is not None and (reason := hidden(recorded, reproduced)):
                if recorded is not None:
                    self._found.append(_event(recorded, "not_retained", reason=reason))
            else:
                self._found.append(_judged(recorded, reproduced))

    def _compare_cases(
        self, step: Step, results: list[Told], best: Told, blind: Blind, doubt: Doubt, too_many: bool
    ) -> None:
        """Compare with what every value of an unknown input would give: the same for all is decided."""
        if not too_many and not any(_is(step, told) for told in results):
            # No value explains the record.
            self._compare(step, best)
            return
        reason = doubt.words() or f"too much depends on {' and '.join(blind.names)}, of which only a digest was kept"
        sure = {
            event.index
            for event in step.events
            if not too_many and all((event.event_type, event.payload) in told for told in results)
        }
        for event in step.events:
            known = event.index in sure or event is step.first
            self._found.append(_event(event, "same") if known else _event(event, "not_retained", reason=reason))


_Hidden = Callable[[Recorded | None, tuple[str, Payload] | None], str | None]


def _hidden_by_context(events: Told, actions: frozenset[str], packs: bool) -> _Hidden:
    """Return which events of a resolve depend on a context of which only the digest was kept, and why."""
    asked = {payload.get("action_id") for event_type, payload in events if event_type == EVALUATED}
    concerned = bool(actions & asked) or bool(actions)
    reason = "of context only a digest was kept, and conditions look at it"

    def hidden(recorded: Recorded | None, reproduced: tuple[str, Payload] | None) -> str | None:
        event_type, payload = (
            (recorded.event_type, recorded.payload) if recorded is not None else (reproduced or ("", {}))
        )
        if event_type == EVALUATED:
            return reason if payload.get("action_id") in actions else None
        if event_type.startswith("context."):
            return reason if packs else None
        return reason if event_type == COMPLETED and (concerned or packs) else None

    return hidden


def _words_of_schema(step: Step, told: Told, blind: Blind) -> Told:
    """Take over the words of a failed schema check: they come from parameters that were not kept."""
    violated = step.find("policy.violated")
    if not blind.parameters or violated is None or violated.payload.get("violation_type") != "invalid_parameters":
        return told
    if all(payload.get("violation_type") != "invalid_parameters" for _, payload in told):
        return told
    words = violated.payload.get("details")
    field = {"action.denied": "reason", "policy.violated": "details"}
    return [(kind, {**payload, field[kind]: words} if kind in field else payload) for kind, payload in told]


def _is(step: Step, told: Told) -> bool:
    return len(told) == len(step.events) and all(
        event.event_type == event_type and event.raw == dumps(payload)
        for event, (event_type, payload) in zip(step.events, told, strict=True)
    )


def _pairs(recorded: Sequence[Recorded], told: Told) -> Iterable[tuple[Recorded | None, tuple[str, Payload] | None]]:
    """Pair events that are about the same thing, in order."""
    ours = [_about(event.event_type, event.payload) for event in recorded]
    theirs = [_about(*event) for event in told]
    if ours == theirs:
        return zip(recorded, told, strict=True)
    pairs: list[tuple[Recorded | None, tuple[str, Payload] | None]] = []
    for tag, i, k, j, m in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if tag == "equal":
            pairs += zip(recorded[i:k], told[j:m], strict=True)
            continue
        # In between, what is at least of the same type.
        rest = list(told[j:m])
        for event in recorded[i:k]:
            place = next((n for n, one in enumerate(rest) if one[0] == event.event_type), None)
            if place is None:
                pairs.append((event, None))
                continue
            pairs += [(None, one) for one in rest[:place]]
            pairs.append((event, rest[place]))
            del rest[: place + 1]
        pairs += [(None, one) for one in rest]
    return pairs


def _about(event_type: str, payload: Payload) -> tuple[str, str]:
    return event_type, str(payload.get("action_id") or payload.get("block_id") or "")


def _event(event: Recorded, status: Status, *, reason: str | None = None) -> ReplayedEvent:
    return ReplayedEvent(index=event.index, event_type=event.event_type, status=status, reason=reason)


def _judged(recorded: Recorded | None, reproduced: tuple[str, Payload] | None) -> ReplayedEvent:
    if recorded is None:
        reproduced = reproduced or ("", {})
        return ReplayedEvent(
            index=None,
            event_type=reproduced[0],
            status="different",
            reason="decided now, not recorded",
            pointer="",
            reproduced=reproduced[1],
        )
    if reproduced is None:
        return ReplayedEvent(
            index=recorded.index,
            event_type=recorded.event_type,
            status="different",
            reason="recorded, not decided now",
            pointer="",
            recorded=recorded.payload,
        )
    if recorded.raw == dumps(reproduced[1]):
        return _event(recorded, "same")
    pointer, was, would_be = first_difference(recorded.payload, reproduced[1]) or ("", UNSET, UNSET)
    return ReplayedEvent(
        index=recorded.index,
        event_type=recorded.event_type,
        status="different",
        pointer=pointer,
        recorded=was,
        reproduced=would_be,
    )


def first_difference(one: Any, other: Any, pointer: str = "") -> tuple[str, Any, Any] | None:
    """Return the JSON pointer of the first place where two values differ, with both; `UNSET` where there is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            found = first_difference(one.get(name, UNSET), other.get(name, UNSET), place)
            if found is not None:
                return found
        return None
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        for number in range(max(len(one), len(other))):
            first = one[number] if number < len(one) else UNSET
            second = other[number] if number < len(other) else UNSET
            found = first_difference(first, second, f"{pointer}/{number}")
            if found is not None:
                return found
        return None
    if isinstance(one, UnsetType) or isinstance(other, UnsetType):
        return None if one is other else (pointer, one, other)
    return None if dumps(one) == dumps(other) else (pointer, one, other)
