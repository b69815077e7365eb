"""Ask cibuildwheel, offline, which wheels a release has, and compare with `wheels/identifiers.txt`.

usage: python wheels/identifiers.py --check | --write

It also catches a configuration that cibuildwheel would refuse, long before a release does.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
KNOWN = HERE / "identifiers.txt"
PLATFORMS = {"linux": "x86_64 aarch64", "macos": "x86_64 arm64", "windows": "AMD64 ARM64"}


def identifiers() -> str:
    """Return one build identifier a line, sorted, of all platforms."""
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"]
    config = ["--config-file", str(HERE / "cibuildwheel.toml")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CIBW_")}
    found: set[str] = set()
    for platform, archs in PLATFORMS.items():
        options = ["--platform", platform, "--archs", archs.replace(" ", ",")]
        done = subprocess.run(
            [*command, *config, *options, str(HERE.parent)], capture_output=True, text=True, check=False, env=clean
        )
        if done.returncode:
            sys.exit(f"cibuildwheel refuses wheels/cibuildwheel.toml for {platform}:\n{done.stderr}")
        found.update(done.stdout.split())
    return "".join(f"{name}\n" for name in sorted(found))


def main(mode: str) -> None:
    """Check or write the list."""
    now = identifiers()
    if mode == "--write":
        KNOWN.write_text(now, encoding="utf-8")
    elif now != KNOWN.read_text(encoding="utf-8"):
        known = set(KNOWN.read_text(encoding="utf-8").split())
        lines = [f"  new: {name}" for name in sorted(set(now.split()) - known)]
        lines += [f"  gone: {name}" for name in sorted(known - set(now.split()))]
        sys.exit(
            "the wheels of a release changed; if meant, run `python wheels/identifiers.py --write`\n" + "\n".join(lines)
        )


if __name__ == "__main__":
    if sys.argv[1:] not in (["--check"], ["--write"]):
        sys.exit(__doc__)
    main(sys.argv[1])
