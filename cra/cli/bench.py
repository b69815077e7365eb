"""cra bench: how long governed calls take on this machine."""

from __future__ import annotations

import os
import platform
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cra.cli._exit import Exit
from cra.cli._options import JsonOption, settings
from cra.cli._output import Output

if TYPE_CHECKING:
    from cra.runtime.sync import CRARuntime

_VERBS = ("get", "list", "create", "update", "delete")
_ATLAS: dict[str, Any] = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.bench",
    "version": "1.0.0",
    "name": "Bench",
    "policies": [
        {"policy_id": "deny-delete", "type": "deny", "actions": ["*.delete"], "reason": "no deletes"},
        {"policy_id": "allow-all", "type": "allow", "actions": ["*"]},
    ],
    "actions": [
        {
            "action_id": f"item.{verb}",
            "name": verb,
            "parameters_schema": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
        }
        for verb in _VERBS
    ],
}


class Row(NamedTuple):
    """One measurement: microseconds for one operation, and for SHA-256 over the bytes that it hashed."""

    name: str
    p50_us: float
    p99_us: float
    floor_us: float | None
    note: str


def command(
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, max=60, help="How long each row is measured.")] = 0.5,
    json: JsonOption = False,
) -> int:
    """Measure resolve, execute, append and verify in memory, beside SHA-256 over the same bytes.

    A quick look at this machine; `make bench` in the repository compares with other engines.

    \b
    Examples:
      cra bench
      cra bench --seconds 2 --json
    """
    chosen = settings(json=json)
    out = Output(chosen.json)
    from cra._core.flavour import build_flavour

    with out.progress() as progress:
        rows = [
            make(seconds)
            for make in progress.track((_resolve, _execute, _denied, _append, _verify), description="measuring")
        ]
    machine = describe_machine()
    if chosen.json:
        out.data({"machine": machine, "seconds_per_row": seconds, "rows": [row._asdict() for row in rows]})
        return Exit.OK
    out.table(
        ("operation", "p50 us", "p99 us", "SHA-256 us", "ratio", ""),
        [
            (
                row.name,
                f"{row.p50_us:.2f}",
                f"{row.p99_us:.2f}",
                "" if row.floor_us is None else f"{row.floor_us:.2f}",
                "" if row.floor_us is None else f"{row.p50_us / row.floor_us:.1f}",
                row.note,
            )
            for row in rows
        ],
    )
    out.line()
    out.fields((name, value) for name, value in machine.items())
    if build_flavour != "release":
        out.note(f"the core is compiled as {build_flavour}; only the release flavour is fast")
    return Exit.OK


def describe_machine() -> dict[str, str]:
    """Return what has to stand beside a number."""
    from cra._core.flavour import build_flavour
    from cra._core.sha256 import implementation

    return {
        "processor": _processor(),
        "cpus": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "core": f"{build_flavour}, sha-256 {implementation()}",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


Make = Callable[[], Callable[[], object]]

# So many calls on one runtime, then a new one: a trace in memory has no other end.
_CALLS = 5_000
_LEAST = 50


def _measure(make: Make, seconds: float) -> tuple[float, float]:
    """Return p50 and p99 of single calls in microseconds; `make` is called for each few thousand of them."""
    clock = time.perf_counter_ns
    times = array("q")
    end = clock() + int(seconds * 1e9)
    while clock() < end or len(times) < _LEAST:
        function = make()
        for _ in range(20):
            function()
        for _ in range(_CALLS):
            start = clock()
            if start >= end and len(times) >= _LEAST:
                break
            function()
            times.append(clock() - start)
    found = sorted(times)
    return found[len(found) // 2] / 1000, found[len(found) * 99 // 100] / 1000


def _floor(data: bytes, seconds: float) -> float:
    """Return what SHA-256 alone takes over the events of `data`, one digest a line."""
    from cra._core.sha256 import sha256

    lines = data.splitlines()

    def digest_all() -> None:
        for line in lines:
            sha256(line)

    return _measure(lambda: digest_all, min(seconds, 0.2))[0]


def _governed(name: str, seconds: float, call: Callable[[CRARuntime, str], object]) -> Row:
    from cra.runtime.sync import CRARuntime

    events, size, last = 0, 0, b""

    def make() -> Callable[[], object]:
        nonlocal events, size, last
        runtime = CRARuntime()
        runtime.load_atlas_from_json(_ATLAS)
        runtime.register_executor("*", lambda parameters: None, inline=True)
        session_id = runtime.create_session("agent-1", "Measure").session_id
        runtime.resolve(session_id, "Do the thing")
        before = len(runtime.get_trace(session_id))
        call(runtime, session_id)
        last = runtime.get_trace(session_id, before).data
        events, size = last.count(b"\n"), len(last)
        return lambda: call(runtime, session_id)

    p50, p99 = _measure(make, seconds)
    return Row(name, p50, p99, _floor(last, seconds), f"{events} events, {size} bytes")


def _resolve(seconds: float) -> Row:
    return _governed("resolve", seconds, lambda runtime, session_id: runtime.resolve(session_id, "Do the thing"))


_CALL = {"id": "x"}


def _execute(seconds: float) -> Row:
    return _governed("execute", seconds, lambda runtime, session_id: runtime.execute(session_id, "item.get", _CALL))


def _denied(seconds: float) -> Row:
    from cra.errors import ActionDenied

    def call(runtime: CRARuntime, session_id: str) -> None:
        try:
            runtime.execute(session_id, "item.delete", _CALL)
        except ActionDenied:
            return
        raise AssertionError("a denied call ran")

    return _governed("execute, denied", seconds, call)


_EVENT = {"action_id": "item.get", "execution_id": "01890000-0000-7000-8000-000000000009", "duration_ms": 1}


def _append(seconds: float) -> Row:
    from cra._core.chain import Chain

    chain = Chain("01890000-0000-7000-8000-000000000000", "01890000-0000-7000-8000-000000000001")
    entropy = os.urandom(16)

    def append() -> bytes:
        batch = chain.begin(time.time_ns() // 1000, entropy)
        batch.add("action.executed", _EVENT)
        chain.advance(batch)
        return batch.data

    data = append()
    p50, p99 = _measure(lambda: append, seconds)
    return Row("append one event", p50, p99, _floor(data, seconds), f"1 event, {len(data)} bytes")


def _verify(seconds: float) -> Row:
    from cra._core.chain import Chain, verify

    chain = Chain("01890000-0000-7000-8000-000000000000", "01890000-0000-7000-8000-000000000001")
    count = 1000
    batch = chain.begin(1_700_000_000_000_000, os.urandom(16))
    for _ in range(count):
        batch.add("action.executed", _EVENT)
    data = batch.data
    p50, p99 = _measure(lambda: lambda: verify(data), seconds)
    note = f"per event, of {count}"
    return Row("verify", p50 / count, p99 / count, _floor(data, seconds) / count, note)
