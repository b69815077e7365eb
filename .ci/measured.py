"""Fail when a .pyx is missing from a coverage report, or was imported and hardly run: the others would hide that."""

import json
import sys
from pathlib import Path

LEAST_PERCENT = 80.0  # importing a module runs about 5


def main(report: str, core: str) -> int:
    """Print the share of executed lines of every .pyx in `core`, and return 1 if the tests leave one out."""
    files = json.loads(Path(report).read_text(encoding="utf-8"))["files"]
    measured = {Path(name).name: entry["summary"] for name, entry in files.items()}
    bad = 0
    for source in sorted(Path(core).glob("*.pyx")):
        summary = measured.get(source.name)
        percent = summary["percent_covered"] if summary else 0.0
        words = f"{percent:.1f} % of {summary['num_statements']} lines" if summary else "not in the report"
        if percent < LEAST_PERCENT:
            bad += 1
            words += f", expected at least {LEAST_PERCENT:.0f} %"
        print(f"{source}: {words}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
