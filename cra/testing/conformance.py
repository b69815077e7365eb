"""Conformance: every vector and golden scenario put to this implementation; `python -m cra.testing.conformance`."""

import atexit
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from cra.errors import ConfigInvalid
from cra.testing._golden import Scenario
from cra.testing._vectors import SUITES, Mismatch, Skip, check

if TYPE_CHECKING:
    from cra.testing._remote import Service

LEVELS = ("CARP-Core", "TRACE-Core", "Atlas-Core", "CRA-Minimal", "CRA-Full")
SUITE_ORDER = tuple(SUITES)
_PACKAGE = Path(__file__).resolve().parent.parent

Outcome = Literal["passed", "failed", "skipped"]


class Result(Struct, frozen=True, kw_only=True):
    """What became of one test; `why`, `expected` and `found` are there for failures, `message` also when skipped."""

    id: str
    level: str
    outcome: Outcome
    why: str | UnsetType = UNSET
    expected: Any = UNSET
    found: Any = UNSET
    message: str | UnsetType = UNSET


class Report(Struct, frozen=True, kw_only=True):
    """What every test said, in the order of the files; true when none failed."""

    implementation: dict[str, str]
    against: str
    results: tuple[Result, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return self.totals["failed"] == 0

    def __bool__(self) -> bool:
        return self.ok

    @property
    def totals(self) -> dict[str, int]:
        """How many tests passed, failed and were skipped."""
        return _counted(self.results)

    @property
    def levels(self) -> dict[str, dict[str, int]]:
        """The same for each level's own tests."""
        return {level: _counted(tuple(result for result in self.results if result.level == level)) for level in LEVELS}

    @property
    def level(self) -> str | None:
        """The highest level of which every test passed, and every test of those below it; None for not even one."""
        reached = None
        for level, counts in self.levels.items():
            if counts["failed"] or counts["skipped"] or not counts["passed"]:
                break
            reached = level
        return reached

    @property
    def failures(self) -> tuple[Result, ...]:
        """The tests that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    def as_dict(self) -> dict[str, Any]:
        """Return the report as CONFORMANCE.md describes it."""
        return {
            "report_version": "1.0",
            "implementation": self.implementation,
            "against": self.against,
            "level": self.level,
            "totals": self.totals,
            "levels": self.levels,
            "results": msgspec.to_builtins(self.results, builtin_types=(), str_keys=True),
        }


def _counted(results: tuple[Result, ...]) -> dict[str, int]:
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for result in results:
        counts[result.outcome] += 1
    return counts


def place() -> Path:
    """Return where the suite is: a folder in a checkout, else the folder or archive in the installed package."""
    data = _PACKAGE / "_data"
    for found in (_PACKAGE.parent / "specs" / "conformance", data / "conformance", data / "conformance.tar.xz"):
        if (found / "vectors").is_dir() or found.is_file():
            return found
    raise ConfigInvalid("the conformance suite is missing from this installation", hint="install cra-core from a wheel")


def data_folder() -> Path:
    """Return the folder of the suite; an archive is unpacked into one that goes when the process ends."""
    found = place()
    return found if found.is_dir() else _unpacked(found)


@cache
def _unpacked(archive: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cra-conformance-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise ConfigInvalid(
            f"`{archive}` cannot be unpacked: {error}", hint="is this Python built with lzma?"
        ) from None
    return folder


def run(
    level: str | None = None,
    against: str | None = None,
    root: str | Path | None = None,
    progress: Callable[[Result], None] | None = None,
    *,
    api_key: str | None = None,
) -> Report:
    """Run the tests up to a level (all of them by default) and report on each; `progress` is told of every result.

    `root` is a folder with `vectors/` and `golden/`. `against` is the address of a service, whose credential is
    `api_key` or CRA_API_KEY; what cannot be driven there is skipped with the reason. It has to be a tenant without
    atlases, whose executors are those of `cra.testing.executors`.
    """
    wanted = _up_to(level)
    folder = data_folder() if root is None else Path(root)
    with _long_integers():
        if against is None:
            return Report(
                implementation=_implementation(), against="embedded", results=_told(_tests(folder, wanted), progress)
            )
        from cra.testing._remote import Service

        service = Service(against, api_key)
        try:
            version = service.check()
            results = _told(_remote_tests(folder, wanted, service), progress)
        finally:
            service.close()
    return Report(implementation={"name": "cra-service", "version": version}, against=against, results=results)


def _told(results: Iterator[Result], progress: Callable[[Result], None] | None) -> tuple[Result, ...]:
    found: list[Result] = []
    for result in results:
        found.append(result)
        if progress is not None:
            progress(result)
    return tuple(found)


def _up_to(level: str | None) -> tuple[str, ...]:
    if level is None:
        return LEVELS
    if level not in LEVELS:
        raise ConfigInvalid(f"level is `{level}`, expected one of {', '.join(LEVELS)}", pointer="/level")
    return LEVELS[: LEVELS.index(level) + 1]


def count(level: str | None = None, root: str | Path | None = None) -> int:
    """Return how many tests `run` would run."""
    wanted, folder = _up_to(level), data_folder() if root is None else Path(root)
    vectors = sum(case_level in wanted for _, case_level, _ in _cases(folder))
    return vectors + (len(scenarios(folder)) if "CRA-Minimal" in wanted else 0)


def scenarios(folder: Path) -> list[Path]:
    """Return the folders of the golden scenarios, in order."""
    return sorted(path.parent for path in folder.glob("golden/*/scenario.json"))


def _implementation() -> dict[str, str]:
    try:
        return {"name": "cra-core", "version": version("cra-core")}
    except PackageNotFoundError:
        return {"name": "cra-core", "version": "unknown"}


@contextmanager
def _long_integers() -> Iterator[None]:
    # Vectors hold integers of five thousand digits; Python reads 4300 unless it is asked.
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def _cases(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield suite, level and case of every vector."""
    with _long_integers():
        files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("vectors/*.json"))]
    for file in files:
        for case in file["cases"]:
            yield file["suite"], case.get("level", file["level"]), case


def _tests(folder: Path, wanted: tuple[str, ...]) -> Iterator[Result]:
    for suite, level, case in _cases(folder):
        if level not in wanted:
            continue
        test_id = f"{suite}/{case['id']}"
        if suite in SUITES:
            yield _judged(test_id, level, case["why"], partial(check, suite, case))
        else:
            yield Result(id=test_id, level=level, outcome="skipped", message=f"suite `{suite}` is not known here")
    if "CRA-Minimal" in wanted:
        for place in scenarios(folder):
            yield _golden(Scenario(place), proving="CRA-Full" in wanted)


def _remote_tests(folder: Path, wanted: tuple[str, ...], service: "Service") -> Iterator[Result]:
    from cra.testing import _remote

    for suite, level, case in _cases(folder):
        if level in wanted:
            test = partial(_remote.check, service, suite, case)
            yield _judged(f"{suite}/{case['id']}", level, case["why"], test)
    if "CRA-Minimal" in wanted:
        for place in scenarios(folder):
            yield _remote_golden(Scenario(place), service, proving="CRA-Full" in wanted)


def _remote_golden(scenario: Scenario, service: "Service", *, proving: bool) -> Result:
    from cra.testing import _remote

    test_id, why = f"golden/{scenario.name}", scenario.document["why"]
    reason = _remote.obstacle(scenario)
    if reason is not None:
        return Result(id=test_id, level="CRA-Minimal", outcome="skipped", message=reason)
    compare = partial(_remote.compare, service, scenario)
    unproven = proving and any(step["do"] == "what_if" for step in scenario.document["steps"])
    result = _judged(test_id, "CRA-Minimal", why, partial(compare, proving=proving and not unproven))
    if result.outcome == "passed" and unproven:
        # All that can be asked was answered well, and the test is more than that.
        words = "passes but for the step `what_if`, which has no form over HTTP"
        return Result(id=test_id, level="CRA-Full", outcome="skipped", message=words)
    return result


def _golden(scenario: Scenario, *, proving: bool) -> Result:
    test_id, why = f"golden/{scenario.name}", scenario.document["why"]
    result = _judged(test_id, "CRA-Minimal", why, lambda: _compare(scenario, proving=proving))
    if result.outcome == "failed" and proving:
        minimal = _judged(test_id, "CRA-Minimal", why, lambda: _compare(scenario, proving=False))
        if minimal.outcome == "passed":
            # Only what it takes to prove itself failed.
            return msgspec.structs.replace(result, level="CRA-Full")
    return result


def _compare(scenario: Scenario, *, proving: bool) -> None:
    check_recording(scenario.expected(), scenario.run(proving=proving).files())


def check_recording(expected: dict[str, str], found: dict[str, str]) -> None:
    """Raise `Mismatch` naming the first line that differs between two recordings."""
    if not expected:
        raise Mismatch("expected/", None, "nothing was recorded; python -m cra.testing.conformance --record")
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            line, one, other = _first_line(expected.get(name, ""), found.get(name, ""))
            raise Mismatch(one, other, f"expected/{name}, line {line}")


def _first_line(expected: str, found: str) -> tuple[int, str | None, str | None]:
    one, other = expected.splitlines(), found.splitlines()
    for number in range(max(len(one), len(other))):
        first = one[number] if number < len(one) else None
        second = other[number] if number < len(other) else None
        if first != second:
            return number + 1, first, second
    return 0, None, None


def _judged(test_id: str, level: str, why: str, test: Callable[[], None]) -> Result:
    try:
        test()
    except Mismatch as error:
        return Result(
            id=test_id,
            level=level,
            outcome="failed",
            why=why,
            expected=error.expected,
            found=error.found,
            message=str(error),
        )
    except Skip as skip:
        return Result(id=test_id, level=level, outcome="skipped", message=str(skip))
    except Exception as error:
        # A test that breaks has failed; the others still run.
        return Result(
            id=test_id, level=level, outcome="failed", why=why, message=f"{type(error).__name__}: {error}"[:1000]
        )
    return Result(id=test_id, level=level, outcome="passed")


def record(root: Path) -> list[str]:
    """Write `expected/` of every golden scenario and return the files that changed; a change is one of the wire."""
    changed: list[str] = []
    for place in scenarios(root):
        scenario = Scenario(place)
        found, before = scenario.run().files(), scenario.expected()
        folder = place / "expected"
        folder.mkdir(exist_ok=True)
        for name in before.keys() - found.keys():
            (folder / name).unlink()
        for name, text in found.items():
            if before.get(name) != text:
                (folder / name).write_text(text, encoding="utf-8")
        changed += [
            f"{place.name}/{name}"
            for name in sorted(before.keys() | found.keys())
            if before.get(name) != found.get(name)
        ]
    return changed


def main(arguments: list[str]) -> int:
    """Run the suite and write the report, or with `--record` write the golden scenarios anew."""
    if "--record" in arguments:
        changed = record(data_folder())
        sys.stdout.write("".join(f"{name}\n" for name in changed) + f"{len(changed)} files changed\n")
        return 0
    report = run()
    sys.stdout.write(json.dumps(report.as_dict(), indent=1) + "\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
