"""Measure everything, print one table, write it to `bench/results/`.

usage: python -m bench [--quick] [--only NAME ...] [--check] [--publish]

--quick    smaller sizes and fewer rounds: a minute, and rougher figures; nothing is written
--only     only these groups of rows; nothing is written, but for `--only http stores`: the service
--check    exit with 1 when a promise is missed
--publish  also put the promises into docs/performance.md
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, promises, table
from bench.effort import FULL, QUICK, Effort
from bench.rows import append, decide, durable, execute, http, resolve, slopes, startup
from bench.table import Row, Section

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"
DOCUMENT = ROOT / "docs/performance.md"
PACKAGES = ["msgspec", "orjson", "jsonschema", "pytest-benchmark"]


def core(effort: Effort) -> list[Section]:
    """Measure the parts of the core with pytest-benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        options = ["--benchmark-only", f"--benchmark-json={report}", "--benchmark-quiet", "-p", "no:cacheprovider"]
        seconds = f"--benchmark-max-time={max(effort.turn_seconds * 5, 0.05)}"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "bench/test_core.py", *options, seconds],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    rows = []
    for one in found:
        stats = one["stats"]
        name = one["name"].removeprefix("test_").replace("_", " ").replace("sha256", "SHA-256")
        ours = not re.search(r"\bby\b", name)
        rows.append(Row(name, stats["median"] * 1e6, ours=ours, quiet=stats["min"] * 1e6, block=stats["mean"] * 1e6))
    note = "Median by pytest-benchmark; `quiet` is its least, `block` its mean."
    return [Section("core", "parts of the core", rows, "us", note)]


GROUPS: dict[str, Callable[[Effort], list[Section]]] = {
    "resolve": resolve.five,
    "sizes": resolve.sizes,
    "context": resolve.context,
    "execute": execute.execute,
    "decide": decide.decide,
    "append": append.append,
    "verify": append.verify_and_replay,
    "durable": durable.durable,
    "core": core,
    "load": startup.load,
    "import": startup.imports,
    "memory": startup.memory,
    "wheel": startup.wheel,
    "slopes": slopes.slopes,
    "http": http.http,
    "stores": slopes.stores,
}
# What has a run of its own, with a table and promises of its own.
SERVICE = ("http", "stores")
SERVICE_PACKAGES = ["starlette", "uvicorn", "uvloop", "httptools", "msgspec", "apsw", "psycopg"]


def main() -> int:
    """Run, report, and say whether every promise is kept."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds; writes nothing")
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="NAME", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a promise is missed")
    parser.add_argument("--publish", action="store_true", help="also put the promises into docs/performance.md")
    options = parser.parse_args()
    service = set(options.only or ()) == set(SERVICE)
    found = machine.describe(SERVICE_PACKAGES if service else PACKAGES)
    if not found["core"].startswith("release"):
        print(f"the core is compiled as {found['core'].partition(',')[0]}: build the release flavour first")
        return 2
    begun = time.monotonic()
    for name, value in found.items():
        print(f"{name:<10} {value}")
    print("\n* ours; ratio to the first row of its section; quiet is the lowest median of any round", flush=True)
    sections: list[Section] = []
    for name in options.only or [name for name in GROUPS if name not in SERVICE]:
        for section in GROUPS[name](QUICK if options.quick else FULL):
            print(table.text(section), flush=True)
            sections.append(section)
    kept = promises.judge(sections, promises.SERVICE if set(options.only or ()) & set(SERVICE) else promises.CEILINGS)
    measured = [promise for promise in kept if promise.verdict != "not measured"]
    print(f"\n{promises.text(kept if not options.only else measured)}")
    took = f"{time.monotonic() - begun:.0f} s"
    print(f"\n{took}")
    if not options.quick and (service or not options.only):
        _write(found, sections, kept, took, name="http" if service else "latest", publish=options.publish)
    return int(options.check and any(promise.verdict == "missed" for promise in kept))


_HOW_READ = {
    "latest": (
        "Our rows are bold. `p50` and `p99` are of single calls with the clock's own cost taken off, medians over "
        "interleaved rounds; `quiet` is the lowest median of any round; `block` is the mean of calls without clock "
        "reads; `ratio` is to the section's first row, the median over the rounds. What is shorter than 0.3 us is "
        "quoted from blocks. Ratios below about 1.5 may be noise. How it is measured: "
        "[docs/performance.md](../../docs/performance.md)."
    ),
    "http": (
        "Our rows are bold. Figures are medians over interleaved rounds, `best` is of the best round, `ratio` is to "
        "the section's first row, the median over the rounds. How it is measured: "
        "[docs/performance.md](../../docs/performance.md#http)."
    ),
}


def _write(
    found: dict[str, str], sections: list[Section], kept: list[promises.Kept], took: str, *, name: str, publish: bool
) -> None:
    now = datetime.now(UTC)
    more = "" if name == "latest" else f" {name}"
    # One file for each kind of machine and Python: running again replaces it, and version control keeps the past.
    words = f"{found['processor']} {found['cpus']} cpus {found['python']}{more}".lower()
    place = RESULTS / f"{re.sub('[^a-z0-9.]+', '-', words).strip('-')}.json"
    RESULTS.mkdir(exist_ok=True)
    document = {
        "measured": now.isoformat(timespec="seconds"),
        "seconds": took,
        "machine": found,
        "promises": [promise._asdict() for promise in kept],
        "sections": [table.as_json(section) for section in sections],
    }
    place.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    command = "make bench ARGS='--only http stores'" if more else "make bench"
    head = f"Measured on {now:%Y-%m-%d} by `{command}` in {took}.\n\n" + "\n".join(
        f"- {what}: {value}" for what, value in found.items()
    )
    summary = f"{head}\n\n{promises.markdown(kept)}\n"
    tables = "\n\n".join(map(table.markdown, sections))
    title = "Latest measurement of the service" if more else "Latest measurement"
    report = RESULTS / f"{name}.md"
    report.write_text(f"# {title}\n\n{summary}\n{_HOW_READ[name]}\n\n{tables}\n", encoding="utf-8")
    print(f"written to {place.relative_to(ROOT)} and {report.relative_to(ROOT)}")
    if publish:
        text = DOCUMENT.read_text(encoding="utf-8")
        start, end = f"<!-- measured{more} -->\n", f"<!-- end{more} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        DOCUMENT.write_text(f"{before}{start}\n{summary}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    # Hashing of names differs from one interpreter to the next unless it is fixed, and with it every dict.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]])
    sys.exit(main())
