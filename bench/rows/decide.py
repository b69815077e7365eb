"""Decide: 200 actions under 100 glob policies, beside the engines a user would pick, all answering the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle

from bench import data
from bench.effort import Effort
from bench.harness import Call, Candidate, always, race
from bench.peers.policies import Ready, check_answers, ready
from bench.table import Section, timed
from cra import CRARuntime

CRA = "CRA"
REGEX = "one compiled regex per effect"


def prepared(world: data.World) -> tuple[Callable[[str], str], Callable[[list[str]], list[str]]]:
    """Return CRA's decisions about one action and about all of them, as execute and resolve make them."""
    runtime = CRARuntime()
    runtime.load_atlas_from_json(world.atlas())
    snapshot = runtime.snapshot
    index, table, size = snapshot.index, snapshot.table, len(world.actions)
    decide, evaluate, agent = table.decide, table.evaluate, data.AGENT

    def one(action: str) -> str:
        return decide(index[action], agent, 0)[0]

    def every(actions: list[str]) -> list[str]:
        decision = evaluate(agent, 0).decision
        return [found[0] if (found := decision(number)) else "deny" for number in range(size)]

    words = {"allow": "allow", "deny": "deny", "requires_approval": "approval"}
    check_answers(CRA, world, {name: words[one(name)] for name in world.actions})
    check_answers(CRA, world, dict(zip(world.actions, map(words.__getitem__, every(world.actions)), strict=True)))
    return one, every


def decide(effort: Effort) -> list[Section]:
    """Measure one decision and all 200; everybody's answers are checked first."""
    world = data.glob_world()
    one, every = prepared(world)
    peers = list(ready(world))
    answers = ", ".join(f"{count} {answer}" for answer, count in sorted(data.counts(world.answers).items()))
    note = (
        f"200 actions, 100 globs (20 deny, 20 approval, 60 allow); the answers are {answers}, checked equal for every "
        "engine before timing (one that knows no approval answers deny instead). CRA also names the deciding policy."
    )
    single = race(
        [Candidate(CRA, always(_asking(one, world))), *(_single(peer, world) for peer in peers)],
        rounds=effort.rounds,
        turn_seconds=effort.turn_seconds,
        least=effort.least,
    )
    whole = race(
        [
            Candidate(CRA, always(partial(every, world.actions))),
            *(Candidate(peer.label, always(partial(peer.every, world.actions))) for peer in peers),
        ],
        rounds=max(1, effort.rounds // 2),
        turn_seconds=effort.turn_seconds,
        least=effort.least,
    )
    return [
        timed("decide-one", "one decision, 100 glob policies", single.values(), ours=(CRA,), note=note),
        timed(
            "decide-all",
            "all 200 actions, 100 glob policies",
            whole.values(),
            ours=(CRA,),
            note="The engine's own batch call where it has one (CRA, Cedar), else a loop.",
        ),
    ]


def _single(peer: Ready, world: data.World) -> Candidate:
    return Candidate(peer.label, always(_asking(peer.one, world)))


def _asking(one: Callable[[str], str], world: data.World) -> Call:
    """Ask about another action each time; the step to the next name, about 30 ns, is part of every row."""
    name = cycle(world.actions[::7] + world.actions[3::11]).__next__
    return lambda: one(name())
