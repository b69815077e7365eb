"""Fail when a .pyx is missing from a coverage report: no test ran it, and 100 % of the others would hide that."""

import json
import sys
from pathlib import Path


def main(report: str, core: str) -> int:
    """Print the share of executed lines of every .pyx in `core`, and return 1 if the report leaves one out."""
    files = json.loads(Path(report).read_text(encoding="utf-8"))["files"]
    measured = {Path(name).name: entry["summary"] for name, entry in files.items()}
    missing = 0
    for source in sorted(Path(core).glob("*.pyx")):
        summary = measured.get(source.name)
        if summary is None or not summary["covered_lines"]:
            missing += 1
            print(f"{source}: not in the report, so no test ran it", file=sys.stderr)
        else:
            print(f"{source}: {summary['percent_covered']:.1f} % of {summary['num_statements']} lines")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
