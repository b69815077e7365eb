"""What-if: what other atlases would have decided about a recorded session."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from cra.atlas.limits import counter_key
from cra.atlas.package import Atlas
from cra.atlas.snapshot import Snapshot
from cra.errors import AtlasNotFound
from cra.protocol.atlas import Per
from cra.protocol.times import parse_timestamp
from cra.protocol.trace import Trace
from cra.runtime.calls import Ending, Permit
from cra.runtime.past import (
    COMPLETED,
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
from cra.runtime.rulings import FREEDOM, Grade, Ruling, grade_of, graded, ruling_of_call, rulings_of, shown
from cra.runtime.sets import AtlasRef, Sets, ref_of, refs_of
from cra.runtime.unknown import (
    Blind,
    Cases,
    Question,
    cases_of,
    context_watchers,
    doubt_about,
    schema_question,
    speaks_about,
)
from cra.storage.base import ApprovalRecord, Change


class ActionChange(Struct, frozen=True, kw_only=True):
    """One action that would have been decided differently."""

    action_id: str
    before: Ruling
    after: Ruling
    grade: Grade


class BlockChange(Struct, frozen=True, kw_only=True):
    """One context block that would have been added, removed, or have other content."""

    source: str
    block_id: str
    change: Literal["added", "removed", "changed"]


class Verdict(Struct, frozen=True, kw_only=True):
    """A resolve or a call as it was and would have been; `index` is its first event's.

    `unknown` says why something cannot be told.
    """

    index: int
    kind: Literal["resolve", "call"]
    what: str
    grade: Grade
    changes: tuple[ActionChange, ...] = ()
    blocks: tuple[BlockChange, ...] = ()
    unknown: tuple[str, ...] = ()


class WhatIf(Struct, frozen=True, kw_only=True):
    """What other atlases would have decided; true when anything would have been different.

    `not_retained` names the inputs that an answer hangs on and the trace does not have: `parameters`, `context`,
    `other_sessions` (whose calls a limit counts too), `decisions` (what no policy decided is not in a trace, and the
    recorded atlases were not given).
    """

    session_id: str
    recorded: tuple[AtlasRef, ...]
    given: tuple[AtlasRef, ...]
    verdicts: tuple[Verdict, ...]
    not_retained: tuple[str, ...]

    @property
    def changed(self) -> tuple[Verdict, ...]:
        """The resolves and calls that would have come out different, or cannot be told."""
        return tuple(verdict for verdict in self.verdicts if verdict.grade != "same")

    @property
    def calls(self) -> tuple[Verdict, ...]:
        """The calls."""
        return tuple(verdict for verdict in self.verdicts if verdict.kind == "call")

    @property
    def resolves(self) -> tuple[Verdict, ...]:
        """The resolves."""
        return tuple(verdict for verdict in self.verdicts if verdict.kind == "resolve")

    @property
    def grade(self) -> Grade:
        """The whole: stricter, looser, both (mixed), other policies only (neutral), or same."""
        return graded([verdict.grade for verdict in self.verdicts])

    def __bool__(self) -> bool:
        return bool(self.changed)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        result: dict[str, Any] = msgspec.to_builtins(self)
        return {"grade": self.grade, **result}


def what_if(
    trace: Trace | bytes | Session,
    atlases: Atlas | Sequence[Atlas],
    *,
    recorded: Sequence[Atlas] = (),
    default_decision: Literal["allow", "deny"] = "allow",
) -> WhatIf:
    """Decide a recorded session by other atlases, and return what would have been different.

    With the `recorded` atlases more can be told: what was decided by default, and what the record proves about inputs
    that were not kept. Limits count this session's calls; an exhausted limit that both have keeps its observation.
    Raises `InvalidTrace` when the chain is broken.
    """
    session = trace if isinstance(trace, Session) else read_session(trace)
    given = [atlases] if isinstance(atlases, Atlas) else list(atlases)
    return _WhatIf(session, Sets(given, default_decision), Sets(recorded, default_decision)).run()


class _WhatIf:
    """One comparison under way."""

    def __init__(self, session: Session, sets: Sets, recorded: Sets) -> None:
        self._session = session
        self._recorded = recorded
        self._snapshot = sets.fallback
        self._world = World(session, self._snapshot, counting=True)
        # The session as it was, to learn what the record leaves out; only where the recorded atlases were given.
        self._before = World(session, self._snapshot)
        self._cases = Cases()
        self._verdicts: list[Verdict] = []
        self._missing: set[str] = set()
        self._asked: dict[str, tuple[Step, Step]] = {}
        self._given = tuple(ref_of(atlas) for atlas in self._snapshot.atlases)
        # Whether everything so far was decided by these very atlases, which then decide the same again.
        self._alike = True

    def run(self) -> WhatIf:
        for step in self._session.steps:
            match step.first.event_type:
                case "carp.request.received":
                    self._verdicts.append(self._resolve(step))
                case "action.requested":
                    self._verdicts.append(self._call(step))
                case "action.executed" | "action.failed":
                    self._world.outcome(step)
                case "approval.granted" | "approval.rejected" | "approval.expired":
                    self._approval(step)
                case _:
                    pass
        return WhatIf(
            session_id=self._session.session_id,
            recorded=refs_of(self._session.steps[0].first.payload.get("atlases")),
            given=self._given,
            verdicts=tuple(self._verdicts),
            not_retained=tuple(sorted(self._missing)),
        )

    # Resolves

    def _resolve(self, step: Step) -> Verdict:
        completed = step.find(COMPLETED)
        answer = {} if completed is None else completed.payload
        recorded = self._recorded.find(answer.get("snapshot_digest"))
        ask = ask_of_step(step)
        ttl_seconds, resolution_id = answer.get("ttl_seconds", 3600), answer.get("resolution_id")
        world = self._world
        self._observe(step, recorded)
        told: Told = []
        rulings: dict[str, Ruling] = {}
        unknown: list[str] = []
        try:
            told = world.ask(step, ask, ttl_seconds=ttl_seconds, resolution_id=resolution_id)
            rulings = rulings_of(told, self._default(world, resolution_id, told))
        except AtlasNotFound as error:
            unknown.append(error.message)
        before = self._rulings_before(step, recorded, answer, set(rulings))
        # The same atlases decide the same, whatever the context was.
        same = answer.get("snapshot_digest") == self._snapshot.digest
        self._alike &= same
        blind = not same and (not world.context_kept or "context_hash" in step.first.payload)
        if same:
            rulings = dict(before)
        watching, packs = context_watchers(self._snapshot) if blind else (frozenset(), False)
        changes = []
        for action_id in [*before, *(name for name in rulings if name not in before)]:
            one = before.get(action_id, Ruling(decision="not_offered"))
            other = rulings.get(action_id, Ruling(decision="not_offered"))
            if action_id in watching:
                other = Ruling(decision="unknown")
                self._missing.add("context")
            if one.decision == "unknown":
                self._missing.add("decisions")
            if one != other:
                changes.append(ActionChange(action_id=action_id, before=one, after=other, grade=grade_of(one, other)))
        if watching:
            unknown.append("of the context only a digest was kept, and policies look at it")
        if packs:
            self._missing.add("context")
            unknown.append("of the context only a digest was kept, and context packs are chosen by it")
        if any(change.before.decision == "unknown" for change in changes):
            unknown.append("what no policy decided is not in the trace, and the recorded atlases were not given")
        blocks = () if packs or same else _block_changes(step.told(), told)
        grades: list[Grade] = [change.grade for change in changes]
        grades += ["neutral"] if blocks else []
        grades += ["unknown"] if packs else []
        return Verdict(
            index=step.first.index,
            kind="resolve",
            what=ask.goal,
            grade=graded(grades),
            changes=tuple(changes),
            blocks=blocks,
            unknown=tuple(unknown),
        )

    def _rulings_before(
        self, step: Step, recorded: Snapshot | None, answer: Payload, now: set[str]
    ) -> dict[str, Ruling]:
        """Return what was decided about each action, in order; what is not known is unknown."""
        named = rulings_of(step.told(), {})
        if recorded is not None:
            world = self._before
            world.snapshot = recorded
            world.observe(step, recorded)
            told = world.ask(
                step,
                ask_of_step(step),
                ttl_seconds=answer.get("ttl_seconds", 3600),
                resolution_id=answer.get("resolution_id"),
            )
            return {**self._default(world, answer.get("resolution_id"), told), **named}
        allowed = sum(FREEDOM.get(ruling.decision, 0) > 0 for ruling in named.values())
        left_allowed = int(answer.get("allowed_count", 0)) - allowed
        left_denied = int(answer.get("denied_count", 0)) - (len(named) - allowed)
        if left_allowed <= 0 and left_denied <= 0:
            return named
        # By default something was decided; of what, only the atlases tell.
        return {**named, **{action_id: Ruling(decision="unknown") for action_id in now - named.keys()}}

    def _default(self, world: World, resolution_id: str | None, told: Told) -> dict[str, Ruling]:
        """Return what the default decided, of the actions that a resolve considered."""
        received = told[0][1]
        considered = world.snapshot.considered(
            tuple(received.get("atlas_ids", ())), tuple(received.get("required_capabilities", ()))
        )
        offered = world.state.resolutions[resolution_id or told[-1][1]["resolution_id"]].offered
        return {
            bound.action.action_id: Ruling(decision="allow" if bound.action.action_id in offered else "deny")
            for number, bound in enumerate(world.snapshot.actions)
            if considered is None or considered[number]
        }

    # Calls

    def _call(self, step: Step) -> Verdict:
        world, payload = self._world, step.first.payload
        action_id, resolution_id = step.need("action_id"), payload.get("resolution_id")
        recorded = self._recorded.find(payload.get("snapshot_digest"))
        self._alike &= payload.get("snapshot_digest") == self._snapshot.digest
        blind = Blind(parameters="parameters" not in payload, context=resolution_id in world.blind)
        before = ruling_of_call(step.told())
        if "replay_of" in payload:
            # A repeat is answered with what its first call was; that one is judged.
            blind, recorded = Blind(), None
        asked = step.find("approval.requested")
        if asked is not None:
            self._keep_request(step, asked)
        here = doubt_about(self._snapshot, action_id, blind)
        there = doubt_about(recorded, action_id, blind) if recorded is not None else None
        cases = cases_of(here) if there is None else cases_of(here, there)
        outcomes: dict[Ruling, tuple[Permit | Ending, Change]] = {}
        for answers in self._explaining(step, recorded, [{}] if cases is None else cases):
            self._observe(step, recorded)
            chosen = self._cases.snapshot(
                self._snapshot, action_id, {name: answers[name] for name in here.questions if name in answers}
            )
            told, change, ending = world.call(
                step, chosen, payload.get("parameters", {}), step.need("parameters_hash"), resolution_id=resolution_id
            )
            outcomes.setdefault(ruling_of_call(told), (ending, change))
        unknown: tuple[str, ...] = ()
        if len(outcomes) == 1 and cases is not None:
            after, (ending, change) = next(iter(outcomes.items()))
        else:
            # What went on as it was recorded is the best there is for what follows.
            ending, change = outcomes.get(before) or next(iter(outcomes.values()))
            after = before
            if not self._alike:
                after = Ruling(decision="unknown")
                self._missing.update(blind.names)
                words = " or ".join(sorted({shown(ruling) for ruling in outcomes}))
                unknown = (f"of {' and '.join(blind.names)} only a digest was kept: {words}",)
        if change.approval is None or change.approval.status == "used":
            world.state.land(change, step.now_us)
        if isinstance(ending, Permit):
            world.permit(step, step.need("parameters_hash"))
        self._note_others(action_id, after)
        changes: tuple[ActionChange, ...] = ()
        if before != after:
            changes = (ActionChange(action_id=action_id, before=before, after=after, grade=grade_of(before, after)),)
        return Verdict(
            index=step.first.index,
            kind="call",
            what=action_id,
            grade=changes[0].grade if changes else "same",
            changes=changes,
            unknown=unknown,
        )

    def _explaining(
        self, step: Step, recorded: Snapshot | None, cases: list[dict[Question, str]]
    ) -> list[dict[Question, str]]:
        """Return the cases in which the recorded atlases decide as recorded; all of them if that is none or unknown."""
        if recorded is None or len(cases) == 1:
            return cases
        return [answers for answers in cases if self._explains(step, recorded, answers)] or cases

    def _explains(self, step: Step, recorded: Snapshot, answers: dict[Question, str]) -> bool:
        """Tell whether the recorded atlases decide as recorded when the questions have these answers."""
        payload = step.first.payload
        world = self._before
        if payload.get("resolution_id") not in world.state.resolutions:
            return True
        own = schema_question(recorded, step.need("action_id"))
        before = ruling_of_call(step.told())
        violated = step.find("policy.violated")
        if own is not None and own in answers:
            # What was allowed or waits has passed the schema; what broke it was said to.
            broke = violated is not None and violated.payload.get("violation_type") == "invalid_parameters"
            if (before.decision in FREEDOM and answers[own] != "yes") or (broke and answers[own] == "yes"):
                return False
        chosen = self._cases.snapshot(recorded, step.need("action_id"), answers)
        world.snapshot = recorded
        world.observe(step, chosen)
        world.state.found_approvals = {
            name: structs.replace(record, snapshot_digest=recorded.digest)
            for name, record in self._world.state.found_approvals.items()
        }
        told, _, _ = world.call(
            step,
            chosen,
            payload.get("parameters", {}),
            step.need("parameters_hash"),
            resolution_id=payload.get("resolution_id"),
        )
        return ruling_of_call(told) == before

    # Limits and approvals

    def _observe(self, step: Step, recorded: Snapshot | None) -> None:
        """Keep the observation of an exhausted limit where the new atlases have it with the same rule."""
        world = self._world
        world.snapshot = self._snapshot
        world.observe(step, self._snapshot)
        if recorded is not None and world.state.waits:
            agent_id, session_id = world.record.agent_id, world.record.session_id
            known = {counter_key(limit, agent_id, session_id) for limit in recorded.limits.values()}
            world.state.waits = {key: wait for key, wait in world.state.waits.items() if key in known}

    def _note_others(self, action_id: str, after: Ruling) -> None:
        """Name the calls of other sessions where a limit that let a call through counts them too."""
        if after.decision not in ("allow", "approved"):
            return
        index = self._snapshot.index[action_id]
        per = {
            limit.per
            for number, limit in self._snapshot.limits.items()
            if not limit.by_session and index in self._bound(number)
        }
        if per & {Per.AGENT, Per.TENANT}:
            self._missing.add("other_sessions")

    def _bound(self, policy: int) -> set[int]:
        decided = self._snapshot.policies[policy]
        implied = decided.policy_id.removesuffix(":rate_limit")
        for atlas in self._snapshot.atlases:
            if atlas.atlas_id != decided.atlas_id:
                continue
            for candidate in atlas.manifest.policies:
                if candidate.policy_id == decided.policy_id:
                    return {
                        number
                        for number in range(len(self._snapshot.actions))
                        if speaks_about(self._snapshot, atlas.atlas_id, candidate, number)
                    }
        return {self._snapshot.index[implied]} if implied in self._snapshot.index else set()

    def _keep_request(self, step: Step, asked: Recorded) -> None:
        """Keep what a person was asked: their answer counts for the same call under other atlases too."""
        payload = asked.payload
        record = ApprovalRecord(
            approval_id=str(payload.get("approval_id")),
            session_id=self._session.session_id,
            agent_id=self._world.record.agent_id,
            action_id=str(payload.get("action_id")),
            atlas_id="",
            policy_id=payload.get("policy_id"),
            resolution_id=str(step.first.payload.get("resolution_id")),
            parameters_hash=str(payload.get("parameters_hash")),
            snapshot_digest=self._snapshot.digest,
            requested_us=step.now_us,
            expires_us=parse_timestamp(str(payload.get("expires_at"))),
        )
        self._world.state.found_approvals[record.approval_id] = record

    def _approval(self, step: Step) -> None:
        record = self._world.state.found_approvals.get(step.need("approval_id"))
        if record is not None:
            self._world.state.found_approvals[record.approval_id] = decided_approval(record, step)


def _block_changes(before: Told, after: Told) -> tuple[BlockChange, ...]:
    one, other = _blocks(before), _blocks(after)
    changes = [
        BlockChange(source=source, block_id=block_id, change="changed" if (source, block_id) in other else "removed")
        for (source, block_id), content in one.items()
        if other.get((source, block_id)) != content
    ]
    changes += [
        BlockChange(source=source, block_id=block_id, change="added")
        for source, block_id in other
        if (source, block_id) not in one
    ]
    return tuple(changes)


def _blocks(told: Told) -> dict[tuple[str, str], str]:
    return {
        (str(payload.get("source")), str(payload.get("block_id"))): str(payload.get("content_hash"))
        for event_type, payload in told
        if event_type == "context.injected"
    }
