"""Sessions in random worlds come out again, however much of them was kept and whatever atlases came and went."""

import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from cra import CRAError, CRARuntime, RuntimeConfig
from cra.atlas.package import Atlas
from cra.audit.story import check_story
from cra.protocol.trace import Trace
from cra.runtime.replay import replay
from cra.runtime.whatif import what_if
from cra.testing.clock import FixedClock, SeededIds
from tests.proof.generator import AGENTS, HOUR, MONDAY, PARAMETERS, TIERS, WORDS, World, world
from tests.proof.oracle import atlas_of


def lived(random: Random, made: World, capture: Any) -> tuple[list[Trace], list[Atlas]]:
    """Return the traces of two sessions in a world, and every atlas that was loaded meanwhile."""
    clock = FixedClock(MONDAY - HOUR)
    config = RuntimeConfig(
        clock=clock,
        ids=SeededIds(random.randrange(1 << 30)),
        capture_parameters=capture,
        default_decision="deny" if made.default_decision == "deny" else "allow",
        default_ttl_seconds=random.choice((60, 3600)),
        approval_ttl_seconds=random.choice((30, 3600)),
        max_context_tokens=random.choice((8000, 20)),
    )
    with CRARuntime(config) as runtime:
        loaded = [atlas_of(manifest, made.files.get(manifest["atlas_id"])) for manifest in made.atlases]
        for atlas in loaded:
            runtime.load_atlas(atlas)
        runtime.register_executor("*", lambda parameters: 1 / random.randrange(8), inline=True)
        agent = random.choice(AGENTS)
        sessions = [
            runtime.create_session(agent, "begin", context=random.choice(made.session_contexts)).id for _ in range(2)
        ]
        for step in range(random.randint(5, 40)):
            clock.advance(random.choice((0, 0.001, 1, 20, 100)))
            with suppress(CRAError):
                _step(random, made, runtime, random.choice(sessions), step, loaded)
        return [runtime.get_trace(session_id) for session_id in sessions], loaded


def _step(random: Random, made: World, runtime: CRARuntime, session_id: str, step: int, loaded: list[Atlas]) -> None:
    approvals = runtime.approvals
    chance = random.random()
    if chance < 0.25:
        runtime.resolve(
            session_id,
            random.choice(WORDS),
            risk_tier=random.choice(TIERS),
            context=random.choice(made.contexts),
            atlas_ids=random.choice(((), (), (made.atlases[0]["atlas_id"],))),
            required_capabilities=random.choice(((), (), ("read",))),
        )
    elif chance < 0.35:
        pending = approvals.list(session_id=session_id, status="pending")
        if pending:
            decide = random.choice((approvals.grant, approvals.reject))
            decide(random.choice(pending).approval_id, approver=random.choice(("dana", "eve")))
    elif chance < 0.38:
        approvals.expire()
    elif chance < 0.40:
        runtime.end_session(session_id)
    elif chance < 0.43:
        manifest = json.loads(json.dumps(random.choice(made.atlases)))
        manifest["policies"] = manifest["policies"][random.randrange(2) :]
        manifest["version"] = f"9.{step}.0"
        again = atlas_of(manifest, made.files.get(manifest["atlas_id"]))
        runtime.load_atlas(again, replace=True)
        loaded.append(again)
    else:
        known = approvals.list(session_id=session_id)
        runtime.execute(
            session_id,
            random.choice([*made.action_ids, "no.such"]),
            random.choice(PARAMETERS),
            approval_id=random.choice(known).approval_id if known and random.random() < 0.3 else None,
            idempotency_key=random.choice((None, None, "first", "second")),
            actor=random.choice((None, "dana", "eve")),
        )


@pytest.mark.parametrize("capture", ["full", "hash"])
def test_what_happened_in_any_world_comes_out_again(capture: str, seed: int) -> None:
    random = Random(seed)
    for _ in range(60):
        made = world(random, documents=random.random() < 0.5)
        if not made.atlases:
            continue
        traces, loaded = lived(random, made, capture)
        for trace in traces:
            result = replay(trace, loaded, default_decision=made.default_decision)  # type: ignore[arg-type]
            assert result.differences == ()
            assert capture == "hash" or result.not_retained == ()
            assert check_story(trace) == []
            if len(loaded) == len(made.atlases):
                answer = what_if(trace, loaded, recorded=loaded, default_decision=made.default_decision)  # type: ignore[arg-type]
                assert answer.grade == "same", answer.changed
