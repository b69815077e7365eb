"""The conformance suite passes, can fail, and agrees with the reference."""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cra.errors import ConfigInvalid
from cra.protocol.times import parse_timestamp
from cra.protocol.trace import Trace
from cra.runtime import engine
from cra.testing import _vectors, conformance
from cra.testing._golden import Recording, Scenario
from specs.conformance import generate
from specs.reference import resolution

ROOT = conformance.data_folder()
SCENARIOS = [Scenario(place) for place in conformance.scenarios(ROOT)]


@pytest.fixture(scope="module")
def report() -> conformance.Report:
    return conformance.run()


def test_every_vector_and_every_scenario_passes(report: conformance.Report) -> None:
    assert [(result.id, result.message, result.expected, result.found) for result in report.failures] == []
    assert report.level == "CRA-Full"
    assert report.totals["skipped"] == 0
    assert report.totals["passed"] == conformance.count() > 750


def test_there_are_at_least_fourteen_scenarios_and_each_has_its_recording() -> None:
    assert len(SCENARIOS) >= 14
    assert [scenario.name for scenario in SCENARIOS if not scenario.expected()] == []


def test_the_report_is_json_with_one_result_for_each_test_id(report: conformance.Report) -> None:
    told = json.loads(json.dumps(report.as_dict()))
    ids = [result["id"] for result in told["results"]]
    assert len(ids) == len(set(ids)) == sum(told["totals"].values())
    assert told["implementation"]["name"] == "cra-core"
    assert told["against"] == "embedded"
    assert set(told["levels"]) == set(conformance.LEVELS)
    assert all(set(result) <= {"id", "level", "outcome"} for result in told["results"])


def test_a_level_runs_only_what_it_and_the_levels_below_need() -> None:
    seen: list[conformance.Result] = []
    report = conformance.run("Atlas-Core", progress=seen.append)
    assert report.level == "Atlas-Core"
    assert {result.level for result in report.results} == {"CARP-Core", "TRACE-Core", "Atlas-Core"}
    assert tuple(seen) == report.results


def test_an_unknown_level_and_what_is_no_address_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigInvalid, match="expected one of CARP-Core"):
        conformance.run("everything")
    with pytest.raises(ConfigInvalid, match="expected http"):
        conformance.run(against="localhost:8000")


def test_the_suite_is_found_in_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cra" / "_data" / "conformance" / "vectors").mkdir(parents=True)
    monkeypatch.setattr(conformance, "_PACKAGE", tmp_path / "cra")
    assert conformance.data_folder() == tmp_path / "cra" / "_data" / "conformance"
    shutil.rmtree(tmp_path / "cra" / "_data" / "conformance")
    with tarfile.open(tmp_path / "cra" / "_data" / "conformance.tar.xz", "w:xz") as archive:
        archive.add(ROOT / "vectors", "vectors")
    unpacked = conformance.data_folder()
    assert sorted(path.name for path in unpacked.glob("vectors/*")) == sorted(p.name for p in ROOT.glob("vectors/*"))
    assert conformance.data_folder() == unpacked
    monkeypatch.setattr(conformance, "_PACKAGE", tmp_path)
    with pytest.raises(ConfigInvalid, match="missing from this installation"):
        conformance.data_folder()


def test_a_suite_that_is_not_known_is_skipped_and_so_its_level_is_not_reached(tmp_path: Path) -> None:
    (tmp_path / "vectors").mkdir()
    case = {"id": "one", "why": "it is new"}
    file = {"suite": "dreams", "level": "CARP-Core", "description": "", "cases": [case]}
    (tmp_path / "vectors" / "dreams.json").write_text(json.dumps(file))
    report = conformance.run(root=tmp_path)
    assert report.totals == {"passed": 0, "failed": 0, "skipped": 1}
    assert report.level is None


Break = Callable[[pytest.MonkeyPatch], None]


def _deny_reads_as_allow(patch: pytest.MonkeyPatch) -> None:
    real = _vectors._verdict
    patch.setattr(
        _vectors,
        "_verdict",
        lambda snapshot, action, decision, policy, usage: real(
            snapshot, action, "allow" if decision == "deny" else decision, policy, usage
        ),
    )


def _seconds_rounded_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine, "seconds", lambda wait_us: wait_us // engine.MICRO)


def _verifier_that_is_always_content(patch: pytest.MonkeyPatch) -> None:
    good = _vectors.verify(b"")
    patch.setattr(_vectors, "verify", lambda *arguments: good)


def _glob_without_question_marks(patch: pytest.MonkeyPatch) -> None:
    real = _vectors.glob_match
    patch.setattr(_vectors, "glob_match", lambda pattern, text: real(pattern.replace("?", "*"), text))


def _session_context_that_loses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine, "merged_context", lambda session, context: {**session.context, **context})


def _replay_that_sees_nothing(patch: pytest.MonkeyPatch) -> None:
    from cra.runtime import replay

    real = replay._judged
    patch.setattr(
        replay,
        "_judged",
        lambda recorded, reproduced: replay._event(recorded, "same") if recorded else real(recorded, reproduced),
    )


def _approver_may_be_the_requester(patch: pytest.MonkeyPatch) -> None:
    from cra.runtime import approvals

    patch.setattr(approvals, "same_person", lambda approver, agent_id: False)


@pytest.mark.parametrize(
    ("broken", "suites"),
    [
        (_deny_reads_as_allow, {"policy-order", "conditions", "limits"}),
        (_seconds_rounded_down, {"limits"}),
        (_verifier_that_is_always_content, {"chains", "hashes", "canonical-json"}),
        (_glob_without_question_marks, {"globs"}),
        (_session_context_that_loses, {"conditions"}),
        (_replay_that_sees_nothing, {"replay"}),
        (_approver_may_be_the_requester, {"golden"}),
    ],
)
def test_a_broken_implementation_fails(broken: Break, suites: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    # Scenarios wait for a deadline once, so they run only where they are what fails.
    report = conformance.run(None if suites & {"golden", "replay"} else "Atlas-Core")
    assert not report.ok
    assert suites <= {result.id.partition("/")[0] for result in report.failures}
    assert all(result.why and result.message for result in report.failures)
    assert report.level != "CRA-Full"


def test_a_recording_that_differs_in_one_character_fails_and_says_where(tmp_path: Path) -> None:
    source = ROOT / "golden" / "deny-wins"
    place = tmp_path / "golden" / "deny-wins"
    (place / "expected").mkdir(parents=True)
    for path in source.rglob("*"):
        if path.is_file():
            text = path.read_text().replace('"decision_type": "partial"', '"decision_type": "allow"')
            (place / path.relative_to(source)).write_text(text)
    report = conformance.run(root=tmp_path)
    (failure,) = report.failures
    assert failure.id == "golden/deny-wins"
    assert str(failure.message).startswith("expected/trace.jsonl, line ")


def test_an_expectation_of_a_person_that_is_not_met_names_its_step(tmp_path: Path) -> None:
    source = ROOT / "golden" / "executed"
    for path in source.rglob("*"):
        if path.is_file():
            target = tmp_path / "golden" / "executed" / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text().replace('"action_count": ', '"action_count": 4'))
    (failure,) = conformance.run(root=tmp_path).failures
    assert "end_session: action_count" in str(failure.message)


def test_recording_again_changes_nothing(tmp_path: Path) -> None:
    for scenario in SCENARIOS:
        for path in scenario.folder.rglob("*"):
            if path.is_file():
                target = tmp_path / "golden" / path.relative_to(ROOT / "golden")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    assert conformance.record(tmp_path) == []


@pytest.mark.parametrize("name", ["replay", "diffs"])
def test_the_committed_vectors_are_those_of_their_cases(name: str) -> None:
    written = (ROOT / "vectors" / f"{name}.json").read_text(encoding="utf-8")
    assert generate.rendered(name, generate.suites()[name]) == written


# The oracle


def _files(scenario: Scenario, atlases: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {
        manifest["atlas_id"]: {
            path: (scenario.folder / path).read_text(encoding="utf-8")
            for pack in manifest.get("context_packs", [])
            for path in pack["files"]
        }
        for manifest in atlases
    }


def _observed(atlases: list[dict[str, Any]], events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the reference has to be told of limits: those that the record says were used up."""
    usage: dict[str, Any] = {}
    for event in events:
        payload = event["payload"]
        if payload.get("result") not in ("rate_limited", "budget_exceeded"):
            continue
        after = payload.get("retry_after_seconds")
        wait = None if after is None else after * 1_000_000
        key = f"{payload['atlas_id']}:{payload['policy_id']}"
        usage[key] = {"wait_us": wait} if payload["result"] == "rate_limited" else {"spent": 10**18, "left_us": wait}
    return usage


def _contexts(scenario: Scenario, recording: Recording) -> dict[str, dict[str, Any]]:
    sessions = [Trace(trace)[0].session_id for trace in recording.traces]
    started = [step for step in scenario.document["steps"] if step["do"] == "create_session"]
    return {session: step.get("context", {}) for session, step in zip(sessions, started, strict=True)}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_reference_gives_the_same_resolutions_and_events(scenario: Scenario) -> None:
    recording = scenario.run()
    config = scenario.document["config"]
    atlases = [json.loads((scenario.folder / file).read_text()) for file in scenario.document["atlases"]]
    contexts = _contexts(scenario, recording)
    lines = [json.loads(line) for trace in recording.traces for line in trace.splitlines()]
    settings = resolution.Settings(
        ttl_seconds=config.get("default_ttl_seconds", 3600),
        max_context_tokens=config.get("max_context_tokens", 8000),
        default_decision=config.get("default_decision", "allow"),
        capture_full=config.get("capture_parameters") == "full",
    )
    resolves = [sent for sent in recording.sent if sent.request["operation"] == "resolve"]
    assert resolves
    for sent in resolves:
        (span,) = {e["span_id"] for e in lines if e["payload"].get("resolution_id") == sent.answer["resolution_id"]
                   and e["event_type"] == "carp.resolution.completed"}  # fmt: skip
        events = [event for event in lines if event["span_id"] == span]
        given: dict[str, Any] = {
            "resolution_id": sent.answer["resolution_id"],
            "trace_id": sent.answer["trace_id"],
            "session_context": contexts[sent.request["requester"]["session_id"]],
            "settings": settings,
        }
        asked = (
            atlases,
            _files(scenario, atlases),
            sent.request,
            parse_timestamp(events[0]["timestamp"]),
            _observed(atlases, events),
        )
        assert resolution.resolve(*asked, **given) == sent.answer
        told = [(event["event_type"], event["payload"]) for event in events]
        assert resolution.events(*asked, **given) == told
