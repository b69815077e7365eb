"""Execute: a governed call that does nothing, beside what a user would write by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from bench import data, work
from bench.effort import Effort
from bench.harness import Call, Candidate, Setup, always, race
from bench.machine import version_of
from bench.peers import ledgers
from bench.peers.policies import Ready, ready
from bench.table import Section, timed
from cra import ActionDenied, CRARuntime

INLINE = "execute, inline executor"
FIVE = "execute, inline executor, five-action atlas"
NAMED = "execute, resolution and idempotency key given"
THREAD = "execute, worker thread"
DENIED = "execute, denied"
BULK = "floor: SHA-256 of as many blocks, one message"
HAND = "by hand: regex, orjson chain, 1 record"
HAND_ALL = "by hand: regex, orjson chain, 4 records"
FNMATCH = "by hand: fnmatch loop, json chain, 1 record"

_OURS = (INLINE, FIVE, NAMED, THREAD, DENIED)


def execute(effort: Effort) -> list[Section]:
    """Measure calls of the 200-action, 100-policy world, and of the five-action atlas."""
    world = data.glob_world()
    allowed = [name for name, answer in world.answers.items() if answer == "allow"]
    denied = next(name for name, answer in world.answers.items() if answer == "deny")
    peers = {ready_peer.peer.form + ready_peer.peer.name: ready_peer for ready_peer in ready(world)}
    runtime = work.runtime_of(world.atlas())
    session_id = work.session_of(runtime)
    runtime.resolve(session_id, work.GOALS[0])
    messages = work.messages_of_execute(runtime, session_id, allowed[0])
    if len(messages) != 6:
        raise AssertionError(f"a call is {len(messages) - 2} events, expected 4")
    candidates = [
        Candidate(INLINE, _calling(world.atlas(), allowed)),
        Candidate(FIVE, _calling(data.five_actions(), ["test.get", "test.list"])),
        Candidate(NAMED, _named(world.atlas(), allowed)),
        Candidate(THREAD, _calling(world.atlas(), allowed, inline=False)),
        Candidate(DENIED, _denied(world.atlas(), denied)),
        Candidate(BULK, always(work.bulk_hash(messages))),
        Candidate("floor: SHA-256 of each message", always(work.each_hash(messages))),
        Candidate(
            "floor: hashlib.sha256 of each message",
            always(work.each_hash(messages, lambda message: hashlib.sha256(message).digest())),
        ),
        *_by_hand(peers, allowed),
        *_agt(),
    ]
    timings = race(candidates, rounds=effort.rounds, turn_seconds=effort.turn_seconds, least=effort.least)
    note = (
        "Decide one of 200 actions under 100 globs, check the parameters, record, call a function that does nothing. "
        f"CRA chains four events (asked, decided, approved, executed): {len(messages)} messages, "
        f"{sum(map(len, messages)):,} bytes in {work.blocks_of(messages)} blocks. The rows by hand decide and append "
        "one record of 597 bytes, or four."
    )
    return [timed("execute", "execute, a call that does nothing", timings.values(), ours=_OURS, note=note)]


def _calling(document: dict[str, Any], actions: list[str], *, inline: bool = True) -> Setup:
    def setup() -> Iterator[Call]:
        runtime = _runtime(document, inline=inline)
        session_id = work.session_of(runtime)
        runtime.resolve(session_id, work.GOALS[0])
        before = len(runtime.get_trace(session_id))
        run, action, parameters = runtime.execute, cycle(actions).__next__, data.CALL
        yield lambda: run(session_id, action(), parameters)
        work.expect_chain(runtime, session_id, 4, before)
        runtime.close()

    return setup


def _named(document: dict[str, Any], actions: list[str]) -> Setup:
    def setup() -> Iterator[Call]:
        runtime = _runtime(document)
        session_id = work.session_of(runtime)
        resolution_id = runtime.resolve(session_id, work.GOALS[0]).resolution_id
        before = len(runtime.get_trace(session_id))
        run, action, parameters = runtime.execute, cycle(actions).__next__, data.CALL
        key = map(str, iter(range(1 << 40))).__next__
        yield lambda: run(session_id, action(), parameters, resolution_id, idempotency_key=key())
        work.expect_chain(runtime, session_id, 4, before)

    return setup


def _denied(document: dict[str, Any], action_id: str) -> Setup:
    def setup() -> Iterator[Call]:
        runtime = _runtime(document)
        session_id = work.session_of(runtime)
        runtime.resolve(session_id, work.GOALS[0])
        before = len(runtime.get_trace(session_id))
        run, parameters = runtime.execute, data.CALL

        def call() -> None:
            try:
                run(session_id, action_id, parameters)
            except ActionDenied:
                return
            raise AssertionError("a denied call ran")

        yield call
        events = runtime.get_trace(session_id, before, 5)
        types = [event.event_type for event in events]
        # The next call begins with the type that this one did.
        work.expect_chain(runtime, session_id, types.index(types[0], 1), before)

    return setup


def _runtime(document: dict[str, Any], *, inline: bool = True) -> CRARuntime:
    runtime = CRARuntime()
    runtime.load_atlas_from_json(document)
    runtime.register_executor("*", work.nothing, inline=inline)
    return runtime


def _by_hand(peers: dict[str, Ready], allowed: list[str]) -> Iterator[Candidate]:
    """Decide with a peer, append to a chained list, call."""
    kinds = {kind.package: kind for kind in ledgers.installed()}
    regex = peers["one compiled regex per effecthand-written"]
    if "orjson" in kinds:
        encoder = kinds["orjson"].encoder
        yield Candidate(HAND, _governed(regex, encoder, allowed))
        yield Candidate(HAND_ALL, _governed(regex, encoder, allowed, records=4))
        for peer in peers.values():
            if peer.peer.package in ("agent-action-policy", "gordon-to-regorus", "cedarpy"):
                yield Candidate(f"{peer.label}; orjson chain, 1 record", _governed(peer, encoder, allowed))
    yield Candidate(FNMATCH, _governed(peers["fnmatch loophand-written"], kinds[None].encoder, allowed))


def _governed(peer: Ready, encoder: Callable[[], ledgers.Encode], actions: list[str], *, records: int = 1) -> Setup:
    def setup() -> Iterator[Call]:
        made = ledgers.ledger(encoder())
        append, decide, tool, parameters = made.append, peer.one, work.nothing, data.CALL
        action = cycle(actions).__next__
        event = data.event()

        def call() -> Any:
            name = action()
            decision = decide(name)
            for _ in range(records):
                append({**event, "action_id": name, "decision": decision})
            if decision == "allow":
                return tool(parameters)
            raise PermissionError(name)

        yield call
        ledgers.check(made)

    return setup


def _agt() -> Iterator[Candidate]:
    """The best-known toolkit's own wrapper, with two rules."""
    package = "agent-governance-toolkit-core"
    if version_of(package) is None:
        return
    from agentmesh.governance import Policy, govern

    def setup() -> Iterator[Call]:
        policy = Policy.model_validate(
            {
                "name": "bench",
                "default_action": "deny",
                "agents": ["*"],
                "rules": [
                    {"name": "no-delete", "condition": "action.type == 'delete'", "action": "deny", "priority": 2},
                    {"name": "get", "condition": "action.type == 'get'", "action": "allow", "priority": 1},
                ],
            }
        )
        call = govern(lambda **parameters: work.nothing(parameters), policy=policy)
        yield lambda: call(action={"type": "get"})

    yield Candidate(f"AGT govern() {version_of(package)}, 2 rules, its own audit log", setup)
