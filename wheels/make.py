"""Make the sdist and, from it, the wheel of this Python; then prove both fit to ship.

usage: python wheels/make.py [--once]

Everything lands in `dist/`. The wheel is built twice, in different folders, and must be the same bytes; `--once`
leaves that out.
"""

import argparse
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
MAX_BYTES = 1_000_000


def main(once: bool) -> None:
    """Build, inspect, and smoke-test; any failure is a message and a non-zero exit."""
    epoch = os.environ.setdefault("SOURCE_DATE_EPOCH", _last_change())
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="cra-wheel-") as folder:
        scratch = Path(folder)
        sdist = _sdist(scratch, int(epoch))
        wheel = _wheel(sdist, scratch / "one", DIST)
        if not once:
            again = _wheel(sdist, scratch / "two", scratch)
            if _digest(again) != _digest(wheel):
                sys.exit(f"{wheel.name} is not reproducible: `{_digest(wheel)}` and `{_digest(again)}`")
            print("built twice in different folders: the same bytes")
        _inspect(wheel)
        if sys.platform == "linux":
            _run(sys.executable, "-m", "auditwheel", "show", wheel)
        _smoke(wheel, scratch)
    for made in (sdist, wheel):
        print(f"{_digest(made)}  {made.relative_to(ROOT)}  {made.stat().st_size:,} bytes")


def _sdist(scratch: Path, epoch: int) -> Path:
    """Build the sdist, then pack it again with sorted names and one date: setuptools keeps file times and owners."""
    _quiet(sys.executable, "-m", "build", "--sdist", *_installer(), "--outdir", scratch / "sdist", ROOT)
    (raw,) = (scratch / "sdist").glob("*.tar.gz")
    packed = io.BytesIO()
    with tarfile.open(raw) as source, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as target:
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
    DIST.mkdir(exist_ok=True)
    final = DIST / raw.name
    final.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch))
    return final


def _wheel(sdist: Path, folder: Path, out: Path) -> Path:
    folder.mkdir()
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    _quiet(sys.executable, "-m", "build", "--wheel", *_installer(), "--outdir", out, tree)
    (wheel,) = out.glob("*.whl")
    return wheel


def _inspect(wheel: Path) -> None:
    """Check what is in the wheel: every module compiled, every stub, no sources, nothing foreign, below the size."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    modules = {path.stem for path in (ROOT / "cra" / "_core").glob("*.pyx")}
    binaries = {Path(name).name.split(".")[0] for name in names if name.endswith((".so", ".pyd"))}
    wrong = [f"`{name}` was not compiled in" for name in sorted(modules - binaries)]
    wrong += [f"`cra/_core/{name}.pyi` is missing" for name in sorted(modules) if f"cra/_core/{name}.pyi" not in names]
    wrong += [f"`{name}` does not belong in a wheel" for name in names if name.endswith((".pyx", ".pxd", ".c", ".h"))]
    wrong += [f"`{name}` is outside the package" for name in names if not name.startswith(("cra/", "cra_core-"))]
    if "cra/py.typed" not in names:
        wrong.append("`cra/py.typed` is missing")
    size = wheel.stat().st_size
    if size >= MAX_BYTES:
        wrong.append(f"{size:,} bytes, expected less than {MAX_BYTES:,}")
    if wrong:
        sys.exit(f"{wheel.name}:\n  " + "\n  ".join(wrong))
    print(f"{wheel.name}: {len(names)} files, {len(binaries)} compiled modules, {size:,} bytes")


def _smoke(wheel: Path, scratch: Path) -> None:
    """Install the wheel into an environment that has nothing else, far from this tree, and use it."""
    home = scratch / "clean"
    venv.create(home, with_pip=not _uv())
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [_uv(), "pip", "install", "--python", python] if _uv() else [python, "-m", "pip", "install"]
    _run(*install, "-q", wheel)
    _run(python, "-I", "-W", "error", ROOT / "wheels" / "smoke.py", cwd=scratch)
    _run(*install, "-q", f"cra-core[all] @ {wheel.as_uri()}")
    _run(python, "-I", "-W", "error", ROOT / "wheels" / "smoke.py", "--all", cwd=scratch)


def _last_change() -> str:
    """Return the time of the last commit, or of the youngest source where there is no repository."""
    git = subprocess.run(["git", "log", "-1", "--pretty=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    if git.returncode == 0 and git.stdout.strip():
        return git.stdout.strip()
    return str(int(max(path.stat().st_mtime for path in (ROOT / "cra").rglob("*.py*"))))


def _uv() -> str | None:
    return shutil.which("uv", path=str(Path(sys.executable).parent))


def _installer() -> list[str]:
    return ["--installer", "uv"] if _uv() else []


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(*command: object, cwd: Path = ROOT) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, check=False, env=_environment())
    if done.returncode:
        sys.exit(f"failed: {' '.join(str(part) for part in command)}")


def _quiet(*command: object) -> None:
    """Run a build, and show what it printed only if it failed."""
    parts = [str(part) for part in command]
    done = subprocess.run(
        parts, cwd=ROOT, check=False, env=_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed: {' '.join(parts)}")


def _environment() -> dict[str, str]:
    """Return the environment without what would let the tree stand in for the installed wheel."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CRA_"))}
    kept["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="do not build the wheel again to compare the bytes")
    main(parser.parse_args().once)
