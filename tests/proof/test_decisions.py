"""The engine against the reference: 200,000 random requests, and a generator that is itself put to the test."""

import os
from collections import Counter
from random import Random

import pytest

from specs.reference import policy as reference
from tests.proof import generator
from tests.proof.faults import FAULTS, GLOB_FAULTS
from tests.proof.generator import PARAMETERS, Pair, World
from tests.proof.oracle import REFERENCE, Core, Oracle, Said, broken, first_difference, pairs_of

EACH = 500
# `CRA_PROOF_PAIRS=5000000` runs that many.
PAIRS = int(os.environ.get("CRA_PROOF_PAIRS", "200000"))
GLOB = REFERENCE.with_name("glob.py")


def _show(world: World, pair: Pair, core: list[Said | None], oracle: list[Said | None]) -> str:
    differing = [
        f"{action_id}: engine {engine}, reference {expected}"
        for action_id, engine, expected in zip(world.action_ids, core, oracle, strict=True)
        if engine != expected
    ]
    usage, session = world.usages[pair.usage], world.session_contexts[pair.session_context]
    return f"{differing}\n{pair}\ncontext {world.contexts[pair.context]} under {session}\nusage {usage}\n{world}"


def _run(seed: int, pairs: int) -> Counter[str]:
    """Compare that many pairs and count the words of the decisions."""
    words: Counter[str] = Counter()
    for world, asked in pairs_of(Random(seed), -(-pairs // EACH), EACH):
        core, oracle = Core(world), Oracle(world)
        for pair in asked:
            answer, expected = core.answer(pair), oracle.answer(pair)
            assert answer == expected, f"seed {seed}: {_show(world, pair, answer, expected)}"
            words.update(said.result for said in answer if said is not None)
    return words


@pytest.mark.untraced("minutes of tracing; tests/core covers the lines")
def test_two_hundred_thousand_random_pairs_decide_as_the_reference_does(seed: int) -> None:
    words = _run(seed, PAIRS)
    total = sum(words.values())
    shares = ", ".join(f"{word} {count / total:.1%}" for word, count in words.most_common())
    print(f"seed {seed}: {PAIRS} pairs, {total} decisions: {shares}")
    assert words["allow"] >= total / 5
    assert words["deny"] >= total / 5
    assert set(words) == {"allow", "deny", "requires_approval", "rate_limited", "budget_exceeded"}


def test_a_time_window_opens_on_its_second_whatever_was_asked_before() -> None:
    # Monrovia was 44 minutes and 30 seconds behind until 1972, so eight o'clock there was within a minute of UTC.
    opening = 31_470_000_000
    window = {"start": "08:00", "end": "12:30", "timezone": "Africa/Monrovia"}
    allow = {"policy_id": "p", "type": "allow", "actions": ["*"], "conditions": {"time_window": window}}
    atlas = {"atlas_version": "1.0", "atlas_id": "a.b", "version": "1.0.0", "name": "A", "policies": [allow]}
    world = World([{**atlas, "actions": [{"action_id": "x.y", "name": "X"}]}], {}, "allow", [{}], [{}], [{}])
    core, oracle = Core(world), Oracle(world)
    for now, expected in ((opening - 1, "deny"), (opening, "allow"), (opening - 1, "deny"), (opening + 1, "allow")):
        pair = Pair("a", "low", 0, 0, 0, now, (), (), None)
        assert core.answer(pair) == oracle.answer(pair)
        assert [said.result for said in core.answer(pair) if said] == [expected]


@pytest.mark.slow
def test_two_million_random_pairs_decide_as_the_reference_does(seed: int) -> None:
    _run(seed + 1, max(PAIRS, 2_000_000))


def test_the_prepared_reference_answers_as_the_plain_one(seed: int) -> None:
    for world, asked in pairs_of(Random(seed), 25, 6):
        oracle = Oracle(world)
        for pair in asked:
            request = generator.request_of(world, pair)
            given = {
                "session_context": world.session_contexts[pair.session_context],
                "default_decision": world.default_decision,
            }
            usage = world.usages[pair.usage]
            if pair.call is None:
                verdicts = reference.evaluate(world.atlases, request, pair.now, usage, **given)
            else:
                action_id = world.action_ids[pair.call.action]
                parameters = PARAMETERS[pair.call.parameters]
                verdicts = [
                    reference.evaluate_call(
                        world.atlases,
                        request,
                        pair.now,
                        action_id,
                        parameters,
                        usage,
                        approved=pair.call.approved,
                        **given,
                    )
                ]
            plain = {
                verdict["action_id"]: Said(
                    verdict["result"],
                    (verdict["policy"]["atlas_id"], verdict["policy"]["policy_id"]) if verdict["policy"] else None,
                    verdict["retry_after_seconds"],
                    tuple(verdict.get("consumes", {}).items()),
                )
                for verdict in verdicts
            }
            assert [plain.get(action_id) for action_id in world.action_ids] == oracle.answer(pair), seed


WITHIN = 60_000


def _found(engine: object, seed: int, within: int = WITHIN) -> int | None:
    """Return how many pairs it takes to find a broken engine."""
    tried = 0
    for world, asked in pairs_of(Random(seed), within // 30, 30):
        difference = first_difference(Core(world).answer, Oracle(world, engine).answer, asked)
        if difference is not None:
            return tried + difference[0] + 1
        tried += len(asked)
    return None


@pytest.mark.untraced("minutes of tracing; tests/core covers the lines")
@pytest.mark.parametrize("name", [*FAULTS, *GLOB_FAULTS])
def test_the_generator_finds_broken_engines(name: str, seed: int) -> None:
    if name in FAULTS:
        engine = broken(FAULTS[name])
    else:
        glob = broken(GLOB_FAULTS[name], file=GLOB)
        engine = broken()
        engine.__dict__.update(glob_match=glob.glob_match, any_match=glob.any_match)
    found = _found(engine, seed)
    assert found is not None, f"seed {seed}: not found within {WITHIN} pairs: {name}"
    print(f"seed {seed}: found after {found} pairs: {name}")


def test_the_copy_of_the_reference_that_is_not_broken_is_never_found(seed: int) -> None:
    assert _found(broken(), seed, 6_000) is None
