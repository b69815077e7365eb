"""cra doctor, bench and conformance."""

from pathlib import Path

import pytest

from tests.cli.harness import Run


def test_the_doctor_finds_everything_in_order(cra: Run, tmp_path: Path) -> None:
    ran = cra("doctor", "--json")
    assert ran.json["ok"] is True
    assert ran.code == 0
    found = {finding["name"]: finding for finding in ran.json["findings"]}
    assert {"python", "core", "sha-256", "self-test", "clock", "storage", "atlas", "msgspec"} <= found.keys()
    assert found["self-test"]["state"] == "ok"
    assert list(tmp_path.iterdir()) == []
    text = cra("doctor")
    assert text.code == 0
    assert "sha-256" in text.out


def test_the_doctor_says_what_is_wrong(cra: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CRA_ATLASES", "nowhere")
    ran = cra("doctor", "--set", "max_sessions=0", "--storage", "no/such/folder/cra.db", "--json")
    assert ran.code == 1
    bad = {finding["name"] for finding in ran.json["findings"] if finding["state"] == "bad"}
    assert {"atlas", "settings", "storage"} <= bad
    (tmp_path / "cra.db").write_bytes(b"not a database" * 100)
    monkeypatch.delenv("CRA_ATLASES")
    assert cra("doctor").code == 1


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db?password=hunter2"]
)
def test_the_doctor_shows_no_password(cra: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for ran in (cra("doctor", "--storage", url), cra("doctor", "--json", "--storage", url)):
        assert ran.code == 1
        assert "127.0.0.1" in ran.out + ran.err
        assert "hunter2" not in ran.out + ran.err


def test_the_doctor_notices_a_wrong_sum(cra: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cra._core.sha256.sha256", lambda data: bytes(32))
    ran = cra("doctor", "--json")
    assert ran.code == 1
    (finding,) = [f for f in ran.json["findings"] if f["name"] == "self-test"]
    assert "sha-256" in finding["value"]


def test_the_bench_measures_every_row_beside_its_floor(cra: Run) -> None:
    ran = cra("bench", "--seconds", "0.02", "--json")
    assert ran.code == 0
    assert [row["name"] for row in ran.json["rows"]] == [
        "resolve",
        "execute",
        "execute, denied",
        "append one event",
        "verify",
    ]
    assert all(row["p50_us"] > 0 and row["floor_us"] > 0 for row in ran.json["rows"])
    assert ran.json["machine"]["processor"]
    assert "p50 us" in cra("bench", "--seconds", "0.01").out
    assert cra("bench", "--seconds", "0").code == 2


def test_the_conformance_report_names_the_level_that_is_reached(cra: Run) -> None:
    pytest.importorskip("jsonschema")
    ran = cra("conformance", "--level", "TRACE-Core", "--json")
    assert ran.code == 0, [result for result in ran.json["results"] if result["outcome"] == "failed"]
    assert ran.json["level"] == "TRACE-Core"
    assert ran.json["totals"]["failed"] == 0
    assert ran.json["totals"]["passed"] > 100
    assert {"id", "level", "outcome"} <= ran.json["results"][0].keys()


def test_a_conformance_test_that_fails_is_shown(cra: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from cra.testing import conformance

    failed = conformance.Result(
        id="globs/x", level="CARP-Core", outcome="failed", why="because", expected=True, found=False, message="differs"
    )
    report = conformance.Report(implementation={"name": "x", "version": "1"}, against="embedded", results=(failed,))
    monkeypatch.setattr(conformance, "run", lambda **more: report)
    ran = cra("conformance")
    assert ran.code == 1
    for words in ("FAIL globs/x", "because", "level reached: none"):
        assert words in ran.out
    assert cra("conformance", "--json").code == 1


def test_conformance_refuses_levels_and_services_it_does_not_know(cra: Run) -> None:
    assert cra("conformance", "--level", "CRA-Most", "--json").error["code"] == "config_invalid"
    assert cra("conformance", "--against", "gopher://x").code in (2, 3, 5)
