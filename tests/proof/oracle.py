"""Two answers to the same question: the engine's, and that of the reference prepared for many requests."""

from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

import msgspec

from cra.atlas.package import Atlas, make_atlas
from cra.atlas.snapshot import RISK_RANK, Snapshot
from cra.protocol.atlas import Manifest
from cra.runtime import engine
from cra.storage.base import Claim, SessionRecord
from specs.reference import policy as reference_policy
from tests.proof import generator
from tests.proof.generator import PARAMETERS, Json, Pair, World

REFERENCE = Path(reference_policy.__file__)


class Said(NamedTuple):
    """A decision about one action: the word, the policy that decided, and the microseconds or None to wait."""

    result: str
    policy: tuple[str, str] | None
    retry_after: int | None
    consumes: tuple[tuple[str, int], ...] = ()


Answer = list[Said | None]  # for each action of the world; None: not considered


def atlas_of(manifest: Json, files: dict[str, str] | None = None) -> Atlas:
    """Make an atlas without the validator, which has tests of its own."""
    named = {path: text.encode() for path, text in (files or {}).items()}
    return make_atlas(msgspec.convert(manifest, Manifest), named, "generated")


def snapshot_of(world: World) -> Snapshot:
    """Compile a world's atlases."""
    loaded = [atlas_of(atlas, world.files.get(atlas["atlas_id"])) for atlas in world.atlases]
    return Snapshot(loaded, world.default_decision)


class Core:
    """The compiled engine, asked with what the runtime would ask it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.snapshot = snapshot_of(world)
        self._names = [(bound.atlas_id, bound.policy_id) for bound in self.snapshot.policies]
        self._usages: dict[tuple[int, str], dict[int, int] | None] = {}

    def answer(self, pair: Pair) -> Answer:
        snapshot, world = self.snapshot, self.world
        context = {**world.contexts[pair.context], **world.session_contexts[pair.session_context]}
        windows = snapshot.open_windows(pair.now)
        risk = RISK_RANK[pair.tier]
        if pair.call is None:
            usage = self.usage(pair)
            considered = snapshot.considered(pair.atlas_ids, pair.capabilities)
            outcome = snapshot.table.evaluate(pair.agent, risk, context, windows, usage, considered)
            return [self._said(outcome.decision(i), usage) for i in range(outcome.size)]
        answer: Answer = [None] * len(snapshot.actions)
        action, parameters = pair.call.action, PARAMETERS[pair.call.parameters]
        session = session_of(pair, world)
        policies, claims, usage = engine.claims_of(snapshot, session, action, risk, context, parameters, windows)
        usage.update(engine.usage_of(policies, self._waits(pair.usage, policies, claims)))
        decided = snapshot.table.decide(
            action, pair.agent, risk, context, windows, usage, parameters, pair.call.approved
        )
        said = self._said(decided, usage)
        if said is not None and said.result == "allow":
            taken = [(":".join(self._names[p]), claim.cost) for p, claim in zip(policies, claims, strict=True)]
            said = said._replace(consumes=tuple(taken))
        answer[action] = said
        return answer

    def usage(self, pair: Pair) -> dict[int, int] | None:
        """Return which limits have no room at resolve."""
        if not self.snapshot.limits:
            return None
        key = (pair.usage, pair.agent)
        if key not in self._usages:
            policies, claims = engine.peekable(self.snapshot, pair.agent, generator.SESSION)
            self._usages[key] = engine.usage_of(policies, self._waits(pair.usage, policies, claims))
        return self._usages[key]

    def _waits(self, usage: int, policies: list[int], claims: list[Claim]) -> list[int]:
        """Do what a store's `peek` does, over the counts of a world."""
        waits = []
        for policy, claim in zip(policies, claims, strict=True):
            counted = self.world.usages[usage].get(":".join(self._names[policy]), {})
            left = counted.get("left_us")
            if claim.rate:
                waits.append(counted.get("wait_us", 0))
            elif counted.get("spent", 0) + claim.cost <= claim.amount:
                waits.append(0)
            else:
                waits.append(-1 if claim.cost > claim.amount or left is None else left)
        return waits

    def _said(self, decided: tuple[str, int] | None, usage: dict[int, int] | None) -> Said | None:
        if decided is None:
            return None
        result, policy = decided
        wait = (usage or {}).get(policy, 0) if result in ("rate_limited", "budget_exceeded") else 0
        return Said(result, self._names[policy] if policy >= 0 else None, engine.seconds(wait) if wait > 0 else None)


def session_of(pair: Pair, world: World) -> SessionRecord:
    """Return the session that a pair is asked in."""
    return SessionRecord(
        session_id=generator.SESSION,
        agent_id=pair.agent,
        goal="proof",
        trace_id=generator.SESSION,
        started_us=0,
        context=world.session_contexts[pair.session_context],
    )


class Oracle:
    """The reference, or a broken copy of it; what does not depend on the request is worked out once for a world."""

    def __init__(self, world: World, reference: Any = reference_policy) -> None:
        self.world = world
        self.reference = reference
        self.rules = reference.rules(world.atlases)
        self.offers = reference.offers(world.atlases)
        self._speaks = [
            [n for n, rule in enumerate(self.rules) if reference.speaks_about(rule, o)] for o in self.offers
        ]
        self._known: dict[Any, Any] = {}

    def answer(self, pair: Pair) -> Answer:
        world, known = self.world, self._known
        request = {
            "requester": {"agent_id": pair.agent},
            "task": {"risk_tier": pair.tier, "required_capabilities": list(pair.capabilities)},
            "atlas_ids": list(pair.atlas_ids),
            "context": world.contexts[pair.context],
        }
        session_context = world.session_contexts[pair.session_context]
        general = [self._general(n, pair, request, session_context) for n in range(len(self.rules))]
        answer: Answer = [None] * len(self.offers)
        if pair.call is not None:
            answer[pair.call.action] = self._judge(pair.call.action, pair, request, session_context, general)
            return answer
        key = ("considered", pair.atlas_ids, pair.capabilities)
        if key not in known:
            wanted = self.reference.considered(world.atlases, request)
            known[key] = [n for n, offer in enumerate(self.offers) if offer in wanted]
        for number in known[key]:
            answer[number] = self._judge(number, pair, request, session_context, general)
        return answer

    def _general(self, number: int, pair: Pair, request: Json, session_context: Json) -> bool:
        """Ask once for every combination of what the rule's conditions look at."""
        conditions = self.rules[number].conditions
        key = (
            number,
            pair.agent if "agents" in conditions else None,
            (pair.context, pair.session_context) if "context_matches" in conditions else None,
            pair.now if "time_window" in conditions else None,
        )
        found = self._known.get(key)
        if found is None:
            context = self.reference.context_of(request, session_context)
            found = self._known[key] = self.reference.general_holds(conditions, pair.agent, context, pair.now)
        return bool(found)

    def _risk(self, number: int, offer: int, pair: Pair, request: Json) -> bool:
        key = (number, offer, pair.tier)
        found = self._known.get(key)
        if found is None:
            tiers = self.reference.risk_range(request, self.offers[offer].action)
            found = self._known[key] = self.reference.risk_holds(self.rules[number], tiers)
        return bool(found)

    def _judge(self, number: int, pair: Pair, request: Json, session_context: Json, general: list[bool]) -> Said:
        holding = tuple(
            rule for rule in self._speaks[number] if general[rule] and self._risk(rule, number, pair, request)
        )
        # The verdict follows from these alone.
        key = (number, holding, pair.tier, pair.usage, pair.call)
        said = self._known.get(key)
        if said is None:
            said = self._known[key] = self._decide(number, holding, pair, request, session_context)
        return said  # type: ignore[no-any-return]  # the cache holds several kinds of things

    def _decide(self, number: int, holding: tuple[int, ...], pair: Pair, request: Json, session_context: Json) -> Said:
        reference, offer = self.reference, self.offers[number]
        more = (
            {}
            if pair.call is None
            else {"parameters": PARAMETERS[pair.call.parameters], "approved": pair.call.approved}
        )
        asked = reference.Asked(
            self.world.atlases,
            request,
            pair.now,
            self.world.usages[pair.usage],
            session_context=session_context,
            default_decision=self.world.default_decision,
            **more,
        )
        rules = [self.rules[rule] for rule in holding if reference.decides(self.rules[rule], asked)]
        verdict = reference.judge(offer, rules, asked)
        named = verdict["policy"]
        consumes: list[tuple[str, int]] = []
        if pair.call is not None and verdict["result"] == "allow":
            consumes = [
                (rule.key, 1 if rule.phase == "rate_limit" else reference.cost_of(rule, asked) or 0)
                for rule in rules
                if rule.phase in ("rate_limit", "budget")
            ]
        return Said(
            verdict["result"],
            None if named is None else (named["atlas_id"], named["policy_id"]),
            verdict["retry_after_seconds"],
            tuple(consumes),
        )


def broken(*changes: tuple[str, str], file: Path = REFERENCE) -> ModuleType:
    """Return a copy of the reference's deciding in which each `old` text, which must be there once, is now `new`.

    A change of the glob matcher is a change of `glob.py` that the copy then uses.
    """
    source = file.read_text(encoding="utf-8")
    for old, new in changes:
        if source.count(old) != 1:
            raise AssertionError(f"the reference has {source.count(old)} times: {old}")
        source = source.replace(old, new)
    module = module_from_spec(spec_from_loader(f"broken_{file.stem}", loader=None))  # type: ignore[arg-type]
    exec(compile(source, file.name, "exec"), module.__dict__)
    return module


def pairs_of(random: Random, worlds: int, each: int) -> Iterator[tuple[World, list[Pair]]]:
    """Yield worlds, each with requests to it."""
    for _ in range(worlds):
        world = generator.world(random)
        yield world, [generator.pair(random, world) for _ in range(each)]


def first_difference(
    one: Callable[[Pair], Answer], other: Callable[[Pair], Answer], pairs: list[Pair]
) -> tuple[int, Pair] | None:
    """Return the place of the first pair that is answered differently, and the pair."""
    for number, pair in enumerate(pairs):
        if one(pair) != other(pair):
            return number, pair
    return None
