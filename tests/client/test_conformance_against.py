"""The conformance suite against a service: what it finds, what it skips, what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")
pytest.importorskip("starlette")

from cra.atlas import loader
from cra.client import CRAClient
from cra.errors import ConfigInvalid, Unauthenticated
from cra.testing import conformance, executors
from cra.testing._golden import Scenario
from cra.testing._remote import comparable, obstacle
from tests.runtime.desk import ATLAS
from tests.server.running import Running, running

ROOT = conformance.data_folder()
SCENARIOS = [Scenario(place) for place in conformance.scenarios(ROOT)]


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with running(register=executors.register) as at:
        yield at


@pytest.fixture(scope="module")
def report(service: Running) -> conformance.Report:
    return conformance.run(against=service.url)


def few(folder: Path, *names: str) -> Path:
    """Return a suite of a few scenarios and no vectors."""
    (folder / "golden").mkdir(parents=True)
    for name in names:
        (folder / "golden" / name).symlink_to(ROOT / "golden" / name)
    return folder


def test_everything_that_can_be_asked_over_http_is_answered_as_recorded(report: conformance.Report) -> None:
    assert [(one.id, one.message, one.expected, one.found) for one in report.failures] == []
    driven = {one.id for one in report.results if one.outcome == "passed"}
    assert sum(test_id.startswith("golden/") for test_id in driven) >= 13
    assert sum(test_id.startswith("atlas-validation/") for test_id in driven) > 50
    assert sum(test_id.startswith("schema-validity/") for test_id in driven) > 40
    assert report.ok


def test_what_is_skipped_says_why_and_counts_for_nothing(report: conformance.Report) -> None:
    skipped = [one for one in report.results if one.outcome == "skipped"]
    assert all(one.message for one in skipped)
    assert report.level is None
    assert len(report.results) == conformance.count()
    for scenario in SCENARIOS:
        (result,) = [one for one in report.results if one.id == f"golden/{scenario.name}"]
        proving = any(step["do"] == "what_if" for step in scenario.document["steps"])
        assert (result.outcome == "skipped") == (obstacle(scenario) is not None or proving), scenario.name


def test_a_run_leaves_no_atlas_and_no_key_that_works(report: conformance.Report, service: Running) -> None:
    with CRAClient(service.url) as client:
        assert client.list_atlases() == []
        keys = client.call("GET", "/v1/keys")["keys"]
        assert keys
        assert {one["status"] for one in keys} == {"revoked"}


def test_a_second_run_finds_the_same(service: Running, report: conformance.Report, tmp_path: Path) -> None:
    root = few(tmp_path, "rate-limit-of-an-action", "idempotency", "approval-granted")
    again = conformance.run(against=service.url, root=root)
    assert again.totals == {"passed": 3, "failed": 0, "skipped": 0}


def test_at_a_lower_level_a_scenario_passes_without_the_steps_of_a_higher(service: Running, tmp_path: Path) -> None:
    root = few(tmp_path, "what-if-without-parameters")
    minimal = conformance.run("CRA-Minimal", against=service.url, root=root)
    assert minimal.totals == {"passed": 1, "failed": 0, "skipped": 0}
    full = conformance.run(against=service.url, root=root)
    assert full.totals == {"passed": 0, "failed": 0, "skipped": 1}
    assert full.results[0].level == "CRA-Full"


def test_a_service_without_the_executors_passes_nothing_that_needs_them(tmp_path: Path) -> None:
    with running() as plain:
        report = conformance.run(against=plain.url, root=few(tmp_path, "executed", "simple-resolve"))
    outcomes = {one.id: (one.outcome, one.message) for one in report.results}
    assert outcomes["golden/simple-resolve"][0] == "passed"
    assert outcomes["golden/executed"][0] == "skipped"
    assert "--executors cra.testing.executors:register" in str(outcomes["golden/executed"][1])


def test_a_tenant_with_atlases_is_refused() -> None:
    with running(atlases=(loader.load_json(ATLAS),)) as bound:
        with pytest.raises(ConfigInvalid, match=r"com\.example\.desk"):
            conformance.run(against=bound.url)


def test_a_credential_is_needed_where_the_service_wants_one(service: Running) -> None:
    with pytest.raises(Unauthenticated):
        conformance.run(against=service.url, api_key="nobody")


def test_a_credential_that_makes_no_keys_skips_what_needs_approvers(service: Running, tmp_path: Path) -> None:
    with CRAClient(service.url) as client:
        made = client.call("POST", "/v1/keys", {"subject": "tester", "roles": ["developer"]})
        root = few(tmp_path, "approval-granted", "deny-wins")
        report = conformance.run(against=service.url, root=root, api_key=made["key"])
        client.call("DELETE", f"/v1/keys/{made['key_id']}")
    assert [(one.outcome, one.message is conformance.UNSET) for one in report.results] == [
        ("skipped", False),
        ("passed", True),
    ]


def _approver_may_be_the_requester(patch: pytest.MonkeyPatch) -> None:
    from cra.runtime import approvals

    patch.setattr(approvals, "same_person", lambda approver, agent_id: False)


def _limits_that_never_fill(patch: pytest.MonkeyPatch) -> None:
    from cra.runtime.kernel import Kernel

    patch.setattr(Kernel, "usage", lambda self, snapshot, session: None)


def _a_session_that_cannot_be_seen_to_end(patch: pytest.MonkeyPatch) -> None:
    from cra.server import sessions

    real = sessions.session_value
    patch.setattr(sessions, "session_value", lambda record: {**real(record), "action_count": 0})


@pytest.mark.parametrize(
    ("broken", "scenario"),
    [
        (_approver_may_be_the_requester, "approval-granted"),
        (_limits_that_never_fill, "rate-limit-of-an-action"),
        (_a_session_that_cannot_be_seen_to_end, "executed"),
    ],
)
def test_a_broken_service_fails(
    broken: Any, scenario: str, service: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    report = conformance.run(against=service.url, root=few(tmp_path, scenario))
    (failure,) = report.failures
    assert failure.why
    assert failure.message
    with CRAClient(service.url) as client:
        assert client.list_atlases() == []


def test_times_are_compared_by_how_far_they_are_apart() -> None:
    early = {"timestamp": "2026-01-05T14:30:00.000000Z", "error": {"expires_at": "2026-01-05T15:30:00.000000Z"}}
    late = {"timestamp": "2027-01-05T14:30:07.500000Z", "error": {"expires_at": "2027-01-05T15:30:03.000000Z"}}
    other = {"timestamp": "2027-01-05T14:30:00.000000Z", "error": {"expires_at": "2027-01-05T15:20:00.000000Z"}}
    assert comparable(early) == comparable(late) != comparable(other)
    assert comparable({"reason": "retry in 60 s"}) == comparable({"reason": "retry in 53 s"})
    assert comparable({"reason": "retry in 60 s"}) != comparable({"reason": "retry in 6 s"})
    assert comparable({"retry_after_seconds": None}) == {"retry_after_seconds": None}


def test_the_command_reports_on_a_service(service: Running, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer")
    from cra.cli import main

    capfd.readouterr()
    assert main(["conformance", "--against", service.url, "--level", "Atlas-Core", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["against"] == service.url
    assert told["implementation"]["name"] == "cra-service"
    assert told["level"] is None
    assert main(["conformance", "--against", service.url, "--level", "Atlas-Core"]) == 0
    assert "has no form over HTTP" in capfd.readouterr().out
    assert main(["conformance", "--against", service.url, "--api-key", "no-such-key"]) != 0
    assert "no-such-key" not in capfd.readouterr().err
