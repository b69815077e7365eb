"""Start-up: loading atlases, importing, memory per idle session, the size of the wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

from bench import work
from bench.data import five_actions
from bench.effort import Effort
from bench.harness import Candidate, always, race
from bench.table import Row, Section, timed
from cra import CRARuntime

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ("customer-support", "devops", "data-analytics")
IMPORT = "import cra"
CPU = "import cra, processor time"


def load(effort: Effort) -> list[Section]:
    """Measure loading the example atlases: read, validate, digest, compile the decision tables."""

    def loaded(name: str) -> None:
        runtime = CRARuntime()
        atlas = runtime.load_atlas(ROOT / "examples/atlases" / name)
        if not atlas.manifest.actions or not runtime.snapshot.actions:
            raise AssertionError(f"{name} has no actions")

    timings = race(
        [Candidate(f"load {name}", always(partial(loaded, name))) for name in EXAMPLES],
        rounds=max(1, effort.rounds // 2),
        turn_seconds=effort.turn_seconds,
        least=effort.least,
    )
    ours = [timing.name for timing in timings.values()]
    note = "From a folder of JSON parts and documents to a runtime that can decide; files are in the page cache."
    return [timed("load", "load an example atlas", timings.values(), ours=ours, note=note, scale=1e-3, unit="ms")]


def imports(effort: Effort) -> list[Section]:
    """Measure fresh interpreters, in turn."""
    statements = {
        IMPORT: ("", "import cra"),
        "import cra, after msgspec": ("import msgspec", "import cra"),
        "import msgspec": ("", "import msgspec"),
        "import asyncio": ("", "import asyncio"),
    }
    times: dict[str, list[float]] = {name: [] for name in (*statements, CPU)}
    for turn in range(effort.processes + 1):
        for name, (before, statement) in statements.items():
            took, processor = _import_ms(before, statement)
            # The first one may have compiled the bytecode.
            if turn:
                times[name].append(took)
                if name == IMPORT:
                    times[CPU].append(processor)
    rows = [
        Row(
            name,
            median(found),
            ours=name.startswith(IMPORT),
            p99=max(found),
            quiet=min(found),
            ratio=median(found) / median(times[IMPORT]),
        )
        for name, found in times.items()
    ]
    note = (
        f"{effort.processes} interpreters each, in turn; `quiet` is the least, `p99` the most. msgspec itself imports "
        "typing_extensions where that is installed."
    )
    return [Section("import", "import in a fresh interpreter", rows, "ms", note)]


def _import_ms(before: str, statement: str) -> tuple[float, float]:
    """Return how long a statement takes in a new interpreter, by the wall and by the processor."""
    code = (
        f"{before}\nimport time; wall, cpu = time.perf_counter(), time.process_time()\n{statement}\n"
        "print((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    wall, processor = map(float, done.stdout.split())
    return wall, processor


_MEMORY = """
import gc, json, resource, sys, tracemalloc
from bench import work
from bench.data import five_actions
count, traced = int(sys.argv[1]), sys.argv[2] == "traced"
runtime = work.runtime_of(five_actions())
for _ in range(100):
    work.session_of(runtime)
gc.collect()
def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
if traced:
    tracemalloc.start()
before = tracemalloc.get_traced_memory()[0] if traced else resident()
for _ in range(count):
    work.session_of(runtime)
gc.collect()
after = tracemalloc.get_traced_memory()[0] if traced else resident()
assert len(runtime.list_sessions(limit=10**9)) == count + 100
print(json.dumps((after - before) / count))
"""


def memory(effort: Effort) -> list[Section]:
    """Measure what an idle session holds: its record, its chain's head, its first event."""
    rows = [
        Row(name, _memory_bytes(effort.idle_sessions, how), ours=True)
        for name, how in (("allocated by Python (tracemalloc)", "traced"), ("resident (RSS)", "resident"))
    ]
    runtime = work.runtime_of(five_actions())
    first = len(runtime.get_trace(work.session_of(runtime)).data)
    note = f"{effort.idle_sessions:,} sessions in memory, each with its first event of {first} bytes."
    return [Section("memory", "memory per idle session", rows, "bytes", note)]


def _memory_bytes(count: int, how: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(count), how], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout))


def wheel(effort: Effort) -> list[Section]:
    """Weigh the wheel, where one has been made."""
    wheels = sorted((ROOT / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        return []
    newest = wheels[-1]
    age_hours = (time.time() - newest.stat().st_mtime) / 3600
    rows = [Row("wheel", float(newest.stat().st_size), ours=True)]
    return [Section("wheel", "wheel", rows, "bytes", f"`{newest.name}`, made {age_hours:.1f} hours before.")]
