"""The benchmarks run, check their own work, and agree with every engine that is installed."""

from collections.abc import Iterator

import pytest

from bench import promises
from bench.__main__ import GROUPS
from bench.data import World, glob_world
from bench.effort import TINY
from bench.harness import Candidate, always, race
from bench.peers import policies
from bench.rows.decide import prepared
from bench.table import Section

# These start interpreters or weigh files; the parts of the core need pytest-benchmark, which owns its process.
_ELSEWHERE = {"core", "wheel"}


@pytest.fixture(scope="module")
def sections() -> dict[str, Section]:
    return {section.key: section for name in GROUPS if name not in _ELSEWHERE for section in GROUPS[name](TINY)}


def test_every_group_of_rows_runs_once_and_checks_its_work(sections: dict[str, Section]) -> None:
    for section in sections.values():
        assert section.rows, section.key
        assert all(row.value >= 0 for row in section.rows), section.key
        assert any(row.ours for row in section.rows), section.key


def test_every_promise_names_a_row_that_is_measured(sections: dict[str, Section]) -> None:
    for promise in promises.read():
        key, *row = promise["row"]
        if key in _ELSEWHERE:
            continue
        assert key in sections, promise["says"]
        if row:
            assert promises.named(sections[key], row[0]).ours, promise["says"]


def test_every_engine_that_is_installed_answers_as_cra_does() -> None:
    world = glob_world()
    prepared(world)
    assert {ready.peer.form for ready in policies.ready(world)} >= {"fnmatch loop", "one compiled regex per effect"}


def test_an_engine_that_answers_otherwise_is_not_timed() -> None:
    world = glob_world()
    wrong = {**world.answers, world.actions[0]: "maybe"}
    with pytest.raises(AssertionError, match="expected"):
        policies.check_answers("broken", world, wrong)


def test_the_world_of_globs_has_the_stated_shape_and_is_the_same_each_time() -> None:
    world = glob_world()
    assert (len(world.actions), len(world.deny), len(world.approval), len(world.allow)) == (200, 20, 20, 60)
    assert len({*world.deny, *world.approval, *world.allow}) == 100
    glob_world.cache_clear()
    assert glob_world() == World(*world)


def test_every_candidate_takes_a_turn_in_every_round() -> None:
    turns: list[str] = []

    def setup(name: str) -> Iterator[object]:
        turns.append(name)
        yield lambda: None

    race(
        [Candidate(name, lambda name=name: setup(name)) for name in "abc"],  # type: ignore[misc,arg-type]
        rounds=3,
        turn_seconds=0,
        least=1,
    )
    assert turns == list("abcbcacab")


def test_work_that_does_not_check_out_fails_the_run() -> None:
    def check() -> None:
        raise AssertionError("two events are missing")

    with pytest.raises(AssertionError, match="two events"):
        race([Candidate("wrong", always(lambda: None, check))], rounds=1, turn_seconds=0, least=1)


def test_a_promise_is_judged_by_the_median_and_then_by_the_quietest_round() -> None:
    assert promises._kept("x", 9.0, 8.0, 10.0).verdict == "met"
    assert promises._kept("x", 11.0, 9.0, 10.0).verdict == "met when quiet"
    assert promises._kept("x", 11.0, 10.5, 10.0).verdict == "missed"
