"""What every test run has in common: its seed, its hypothesis profile, and a header that says what was tested."""

import os
import platform
import random
from importlib import import_module

import pytest
from hypothesis import settings

CI = bool(os.environ.get("CI"))

# CI draws the same examples every time; at a desk every run draws new ones. Both print what reproduces a failure.
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("desk", deadline=None, print_blob=True)
settings.load_profile("ci" if CI else "desk")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked `slow` too")
    parser.addoption("--seed", type=int, help="the seed of the seeded generators (default: printed in the header)")


def pytest_configure(config: pytest.Config) -> None:
    wanted, found = os.environ.get("CRA_FLAVOUR"), _ask("flavour", "build_flavour")
    if wanted and wanted != found:
        pytest.exit(f"the core under test is {found}, expected {wanted}", returncode=3)
    if found == "sanitize" and "ASAN_OPTIONS" in os.environ:
        # Ours has read them; a compiler or shell that a test starts would be blamed for what it leaks itself.
        os.environ["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"].replace("detect_leaks=1", "detect_leaks=0")
    if config.option.seed is None:
        # Workers of a parallel run are told the seed, so that the header's is the one they all use.
        inherited = getattr(config, "workerinput", {}).get("cra_seed")
        config.option.seed = inherited if inherited is not None else 20260101 if CI else random.randrange(2**32)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    node.workerinput["cra_seed"] = node.config.option.seed  # type: ignore[attr-defined]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _ask("flavour", "build_flavour") == "trace":
        for item in items:
            if marker := item.get_closest_marker("untraced"):
                item.add_marker(pytest.mark.skip(reason=marker.args[0]))
    if config.option.slow or "slow" in config.option.markexpr:
        return
    slow = [item for item in items if "slow" in item.keywords]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if "slow" not in item.keywords]


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which core is under test; a core that does not import is reported, not raised, so that its tests can."""
    return [
        f"core: {_ask('flavour', 'build_flavour')}, sha256: {_ask('sha256', 'implementation')}, "
        f"{_ask('flavour', 'compiler')}, {platform.machine()}",
        f"seed: {config.option.seed} (repeat with --seed), hypothesis profile: {'ci' if CI else 'desk'}",
    ]


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """Return the seed that the header printed."""
    return int(request.config.option.seed)


def _ask(module: str, name: str) -> str:
    try:
        value = getattr(import_module(f"cra._core.{module}"), name)
        return str(value() if callable(value) else value)
    except (ImportError, AttributeError):
        return "not built"
