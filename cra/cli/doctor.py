"""cra doctor: what this installation is, and whether it works."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from cra.cli._exit import Exit
from cra.cli._options import AtlasOption, JsonOption, SettingOption, Settings, StorageOption, settings, sqlite_path
from cra.cli._output import Output

GOOD, WARNING, BAD = "ok", "warning", "bad"
_COLOURS = {GOOD: "green", WARNING: "yellow", BAD: "bold red"}
_MEMORY_HINT = "pip install 'cra-core[sqlite]'"


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: str
    value: str
    hint: str | None = None


def command(
    storage: StorageOption = None, atlas: AtlasOption = None, setting: SettingOption = None, json: JsonOption = False
) -> int:
    """Look at the build, the versions, the clock, the store and the atlases, and say what is not right.

    Nothing is created or changed. Exit code 1 when something does not work.

    \b
    Examples:
      cra doctor
      cra doctor --storage sqlite:///cra.db --json
    """
    chosen = settings(storage=storage, atlas=atlas, setting=setting, json=json)
    out = Output(chosen.json)
    checks: list[Callable[[], list[Finding]]] = [
        _versions,
        _core,
        _self_test,
        _clock,
        lambda: _settings(chosen),
        lambda: _store(chosen),
        lambda: _atlases(chosen),
        _data,
    ]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:
            findings.append(Finding(check.__name__.strip("_<>"), BAD, f"{type(error).__name__}: {error}"))
    bad = [finding for finding in findings if finding.state == BAD]
    if chosen.json:
        out.data({"ok": not bad, "findings": [finding._asdict() for finding in findings]})
    else:
        _print(out, findings)
    return Exit.VERDICT if bad else Exit.OK


def _print(out: Output, findings: list[Finding]) -> None:
    from rich.text import Text

    from cra.cli._output import shown

    width = max(len(finding.name) for finding in findings)
    for name, state, value, hint in findings:
        mark = Text(f"{state:<8}", style=_COLOURS[state])
        out.console.print(Text.assemble(mark, f"{name:<{width}}  ", shown(value)), soft_wrap=True)
        if hint:
            out.console.print(f"{'':<8}{'':<{width}}  hint: {shown(hint)}", soft_wrap=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versions() -> list[Finding]:
    own = _version("cra-core")
    found = [
        Finding(
            "cra",
            GOOD if own else WARNING,
            own or "not installed as a package",
            None if own else "pip install cra-core",
        ),
        Finding(
            "python",
            GOOD,
            f"{platform.python_implementation()} {platform.python_version()}"
            + ("" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", free-threaded"),
        ),
        Finding(
            "machine", GOOD, f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs"
        ),
    ]
    found += [Finding(name, GOOD, _version(name) or "?") for name in ("msgspec", "jsonschema", "typer", "rich")]
    return found


def _core() -> list[Finding]:
    from cra._core.flavour import build_flavour, compiler
    from cra._core.sha256 import implementation

    slow = build_flavour != "release"
    portable = implementation() == "portable"
    return [
        Finding(
            "core",
            WARNING if slow else GOOD,
            f"{build_flavour}, {compiler}",
            "benchmarks need the release flavour: make build FLAVOUR=release" if slow else None,
        ),
        Finding(
            "sha-256",
            GOOD,
            implementation() + (" (this processor has no instructions for it that we use)" if portable else ""),
        ),
    ]


def _self_test() -> list[Finding]:
    """Sum a few things whose sums are known."""
    import hashlib

    from cra._core.canonical import dumps
    from cra._core.chain import Chain, verify
    from cra._core.sha256 import sha256

    data = bytes(range(256)) * 5
    chain = Chain("01890000-0000-7000-8000-000000000000", "01890000-0000-7000-8000-000000000001")
    batch = chain.begin(1_700_000_000_000_000, bytes(16))
    batch.add("session.started", {"agent_id": "doctor", "goal": "see whether it works", "n": 1.0})
    good = {
        "sha-256": all(sha256(data[:size]) == hashlib.sha256(data[:size]).digest() for size in range(0, 300, 7)),
        "canonical JSON": dumps({"b": [1e21, -0.0, 10**30], "a": "\u20ac"})
        == '{"a":"€","b":[1e+21,0,1000000000000000000000000000000]}'.encode(),
        "chain": verify(batch.data).ok and not verify(batch.data.replace(b"doctor", b"doctos")).ok,
    }
    wrong = [name for name, holds in good.items() if not holds]
    if wrong:
        return [Finding("self-test", BAD, f"wrong sums: {', '.join(wrong)}", "install cra-core again, from a wheel")]
    return [Finding("self-test", GOOD, ", ".join(good))]


def _clock() -> list[Finding]:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from cra.protocol.times import format_timestamp
    from cra.runtime.config import system_clock

    now_us = system_clock()
    jump_us = _drift_us()
    plausible = 1_735_689_600_000_000 < now_us < 4_102_444_800_000_000
    findings = [
        Finding(
            "clock",
            GOOD if plausible else BAD,
            f"{format_timestamp(now_us)}, resolution {time.get_clock_info('time').resolution:g} s",
            None if plausible else "the year is not plausible: set the clock",
        )
    ]
    if abs(jump_us) > 100_000:
        findings.append(Finding("clock steps", WARNING, f"{jump_us} us within 20 ms", "something is setting the clock"))
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        findings.append(Finding("time zones", WARNING, "no database", "pip install tzdata"))
    else:
        findings.append(Finding("time zones", GOOD, "found"))
    return findings


def _drift_us() -> int:
    wall, steady = time.time_ns(), time.monotonic_ns()
    time.sleep(0.02)
    return ((time.time_ns() - wall) - (time.monotonic_ns() - steady)) // 1000


def _settings(chosen: Settings) -> list[Finding]:
    from cra.cli._runtime import make_config
    from cra.errors import ConfigInvalid

    names = sorted(name for name in os.environ if name in ("CRA_STORAGE", "CRA_ATLASES", "CRA_SET", "CRA_APPROVER"))
    try:
        make_config(chosen)
    except ConfigInvalid as error:
        return [Finding("settings", BAD, error.message, error.hint)]
    return [Finding("settings", GOOD, ", ".join(names) if names else "defaults, no CRA_* variable is set")]


def _store(chosen: Settings) -> list[Finding]:
    from cra.cli._runtime import make_config
    from cra.errors import CRAError
    from cra.server.settings import redacted_url
    from cra.storage.open import open_storage

    findings = []
    shown = redacted_url(chosen.storage)
    apsw = _version("apsw")
    if apsw is None:
        findings.append(Finding("sqlite", WARNING, "the package apsw is missing", _MEMORY_HINT))
    else:
        # Its own number is that of the SQLite inside, and one more for itself.
        findings.append(Finding("sqlite", GOOD, f"apsw {apsw}, SQLite {apsw.rpartition('.')[0]}"))
    place = sqlite_path(chosen.storage)
    if place is not None and not place.exists():
        folder = place.resolve().parent
        able = folder.is_dir() and os.access(folder, os.W_OK)
        findings.append(
            Finding(
                "storage",
                GOOD if able else BAD,
                f"{shown}, not made yet" if able else f"{shown}: `{folder}` cannot be written to",
                None if able else "name another with --storage or CRA_STORAGE",
            )
        )
        return findings
    try:
        config = make_config(chosen)
        store = open_storage(config.storage, max_sessions=config.max_sessions, max_events=config.max_events)
        try:
            sessions = store.sessions(limit=1_000)
        finally:
            store.close()
        many = "1000 or more" if len(sessions) == 1_000 else str(len(sessions))
        words = f"{shown}: {store.name}, durability {store.durability}, {many} sessions"
        findings.append(Finding("storage", GOOD, words))
    except CRAError as error:
        findings.append(Finding("storage", BAD, f"{shown}: {error.message}", error.hint))
    return findings


def _atlases(chosen: Settings) -> list[Finding]:
    from cra.atlas.loader import load
    from cra.errors import AtlasError

    findings = []
    for path in chosen.atlases:
        try:
            atlas = load(path)
        except AtlasError as error:
            findings.append(Finding("atlas", BAD, error.message, f"cra atlas validate {path}"))
        else:
            findings.append(Finding("atlas", GOOD, f"{atlas.atlas_id} {atlas.version}, digest {atlas.digest[:16]}..."))
    if not chosen.atlases:
        findings.append(Finding("atlas", GOOD, "none is set; --atlas PATH or CRA_ATLASES names them"))
    return findings


def _data() -> list[Finding]:
    from cra.cli._data import atlases
    from cra.errors import CRAError
    from cra.testing import conformance

    findings = []
    for name, place in (("atlases", atlases), ("conformance", conformance.place)):
        try:
            findings.append(Finding(name, GOOD, str(place())))
        except CRAError as error:
            findings.append(Finding(name, WARNING, error.message, error.hint))
    return findings
