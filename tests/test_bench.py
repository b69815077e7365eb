"""The benchmarks run, check their own work, and agree with every engine that is installed."""

import sys
from collections.abc import Iterator

import pytest

from bench import promises, table
from bench.__main__ import GROUPS
from bench.data import World, glob_world
from bench.effort import TINY
from bench.harness import Candidate, always, race
from bench.http import measure
from bench.http import sections as service
from bench.http.fleet import fleet
from bench.http.process import Generator
from bench.peers import policies
from bench.rows.decide import prepared
from bench.table import Section

# These start interpreters or weigh files; the parts of the core need pytest-benchmark, which owns its process; the
# service has tests of its own below.
_ELSEWHERE = {"core", "wheel", "http"}


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


# The service

_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the load generator is made of epoll and /proc")


@pytest.fixture(scope="module")
def of_the_service() -> dict[str, Section]:
    with fleet() as ships, Generator() as generator:
        return {section.key: section for section in service.measured(ships, generator, measure.TINY, only="memory")}


@_on_linux
def test_the_service_is_measured_beside_an_echo_and_records_all_that_it_answers(
    of_the_service: dict[str, Section],
) -> None:
    assert set(of_the_service) == {"http", "http-half", "http-overload", "http-endurance"}
    for section in of_the_service.values():
        assert any(row.ours for row in section.rows), section.key
        assert table.text(section) and table.markdown(section) and table.as_json(section)["rows"], section.key


@_on_linux
def test_every_promise_of_the_service_names_a_row_that_is_measured(of_the_service: dict[str, Section]) -> None:
    kept = []
    for promise in promises.read(promises.SERVICE):
        key, row = (*promise["row"], "SQLite")[:2]
        if "SQLite" not in row:
            assert promises.named(of_the_service[key], row).ours, promise["says"]
            kept.append(promises._judge(promise, of_the_service))
    assert any(promise.at_least for promise in kept)
    assert all(promise.found is not None for promise in kept)


@_on_linux
def test_what_was_not_recorded_fails_the_run() -> None:
    with fleet() as ships, Generator() as generator:
        subject = measure.resolving(ships.service("memory"), "resolve")
        ships.wait()

        def wrong(connections: int) -> tuple[measure.Scripts, measure.Check]:
            scripts, check = subject.prepare(connections)
            return scripts, lambda found: check({"answered": [n + 1 for n in found["answered"]]})

        with pytest.raises(AssertionError, match="expected"):
            measure.take_turn(generator, subject._replace(prepare=wrong), measure.TINY)


@_on_linux
def test_a_request_that_had_to_wait_for_a_connection_is_timed_from_when_it_was_due() -> None:
    with fleet() as ships, Generator() as generator:
        process = ships.target("fixed")
        ships.wait()
        scripts, _ = measure.target("fixed", process).prepare(1)
        found = generator.run(process.port, scripts, connections=1, seconds=0.2, rate=200_000.0)
    # One connection answers a fraction of what is due, so every next one has waited longer than the one before.
    each_us = found["seconds"] / found["good"] * 1e6
    assert found["p50_us"] > 3 * each_us


def test_the_slope_of_a_line_is_found() -> None:
    assert measure.slope([(0, 5), (10, 25), (20, 45)]) == pytest.approx(2.0)
    assert measure.slope([(3, 5)]) == 0.0
