"""The example atlases: valid, free of warnings, the same wherever they lie, and with tests of their own."""

import re
from collections import Counter
from pathlib import Path

import pytest

from cra.atlas.cases import Case, read_cases
from cra.atlas.loader import inspect, load, load_json, pack, read_tree
from cra.atlas.semver import parse_version
from cra.protocol.atlas import Manifest, PolicyType

FOLDER = Path(__file__).parents[2] / "examples" / "atlases"
EXAMPLES = sorted(path for path in FOLDER.iterdir() if path.is_dir())
example = pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])


def cases_of(path: Path) -> list[Case]:
    cases, problems = read_cases(read_tree(path).files, load(path).manifest)
    assert problems == []
    return cases


def conditions_of(manifest: Manifest) -> set[str]:
    return {
        name
        for policy in manifest.policies
        for name in policy.conditions.__struct_fields__
        if getattr(policy.conditions, name) != getattr(type(policy.conditions)(), name)
    }


def test_there_are_the_three_domains_and_a_newer_version_of_one() -> None:
    assert [path.name for path in EXAMPLES] == [
        "customer-support",
        "customer-support-2.2.0",
        "data-analytics",
        "devops",
    ]
    old, new = load(FOLDER / "customer-support"), load(FOLDER / "customer-support-2.2.0")
    assert old.atlas_id == new.atlas_id
    assert parse_version(old.version) < parse_version(new.version)
    assert [action.action_id for action in old.manifest.actions] == [
        action.action_id for action in new.manifest.actions
    ]


@example
def test_an_example_has_neither_problems_nor_warnings(path: Path) -> None:
    verdict = inspect(path)
    assert verdict.problems == []
    assert verdict.warnings == []
    assert verdict.manifest is not None


@example
def test_an_example_has_one_digest_in_folder_archive_and_memory(path: Path, tmp_path: Path) -> None:
    packed = pack(path, tmp_path / "x.atlas")
    files = dict(read_tree(path).files)
    manifest = files.pop("atlas.json")
    assert load(path).digest == packed == load(tmp_path / "x.atlas").digest == load_json(manifest, files).digest
    pack(path, tmp_path / "y.atlas")
    assert (tmp_path / "x.atlas").read_bytes() == (tmp_path / "y.atlas").read_bytes()


@example
def test_an_example_shows_what_an_atlas_can_do(path: Path) -> None:
    manifest = load(path).manifest
    assert len(manifest.actions) >= 10
    assert all(action.description and action.parameters_schema and action.returns_schema for action in manifest.actions)
    assert all(action.examples for action in manifest.actions)
    types = Counter(policy.type for policy in manifest.policies)
    assert all(types[kind] >= 2 for kind in set(PolicyType) - {PolicyType.REQUIRES_APPROVAL})
    assert {"agents", "context_matches", "parameters", "time_window"} <= conditions_of(manifest)


@example
def test_the_documents_of_an_example_are_worth_reading(path: Path) -> None:
    atlas = load(path)
    assert len(atlas.files) >= 4
    lines = [atlas.text(name).count("\n") for name in atlas.files if name.endswith(".md")]
    assert len(lines) >= 3
    assert all(50 <= count <= 200 for count in lines)


@example
def test_an_example_brings_tests_that_cover_its_rules(path: Path) -> None:
    manifest, cases = load(path).manifest, cases_of(path)
    assert len(cases) >= 8
    named = {case.expect.policy_id for case in cases}
    for case in cases:
        named |= set(case.expect.denied.values()) if isinstance(case.expect.denied, dict) else set()
    denies = {policy.policy_id for policy in manifest.policies if policy.type is PolicyType.DENY}
    assert denies <= named, "every deny policy is seen denying something"


def test_the_demo_can_rely_on_the_rules_of_customer_support() -> None:
    policies = {policy.policy_id: policy for policy in load(FOLDER / "customer-support").manifest.policies}
    assert policies["deny-delete"].actions == ("*.delete",)
    assert policies["reply-rate"].parameters == {"max_calls": 3, "window_seconds": 60}
    condition = {"required": ["amount"], "properties": {"amount": {"exclusiveMinimum": 500}}}
    assert policies["approve-large-refund"].conditions.parameters == condition
    assert policies["refund-budget"].parameters["cost"] == "/amount"
    strict = {policy.policy_id: policy for policy in load(FOLDER / "customer-support-2.2.0").manifest.policies}
    assert strict["approve-close"].type is PolicyType.REQUIRE_APPROVAL
    assert strict["search-rate"].type is PolicyType.RATE_LIMIT


@example
def test_the_tests_of_an_example_pass(path: Path) -> None:
    from cra.cli._cases import run_case, without_returns

    atlas = without_returns(load(path))
    failed = [result for case in cases_of(path) if (result := run_case([atlas], case)).faults]
    assert failed == []


def test_every_code_of_a_problem_or_warning_is_in_the_docs() -> None:
    text = (FOLDER.parents[1] / "docs" / "atlases.md").read_text(encoding="utf-8")
    codes = set()
    for module in (FOLDER.parents[1] / "cra" / "atlas").glob("_*.py"):
        codes |= set(
            re.findall(r'(?:Problem|_problem|_warning|refuse)\(\s*(?:piece, )?"([a-z_0-9]+)"', module.read_text())
        )
    assert len(codes) > 25
    assert sorted(code for code in codes if f"`{code}`" not in text) == []
