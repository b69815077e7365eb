"""Compile the core; everything else about the package is in `pyproject.toml`.

Environment:
    CRA_FLAVOUR  release (default), debug, sanitize, or trace (line coverage of the .pyx files)
    CRA_ONLY     comma-separated module names, to rebuild just those while working on them
"""

import copy
import lzma
import os
import shutil
import sys
import tarfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

FLAVOUR = os.environ.get("CRA_FLAVOUR", "release")
ONLY = {name for name in os.environ.get("CRA_ONLY", "").split(",") if name}
CORE = Path("cra/_core")
WINDOWS = sys.platform == "win32"
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# Symbols, unwind tables, padding and stubs for calls are a tenth of a wheel and nothing that a release uses: Python
# binds an extension module when it loads it, so its calls can go through the table of addresses themselves.
LEAN = (
    ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-plt"],
    ["-s", "-Wl,--build-id=none", "-Wl,-z,noseparate-code"],
)
lean_compile, lean_link = LEAN if sys.platform == "linux" else ([], [])

# PERF: -O3 saves 1.3 % of the instructions of an append and 1.0 % of a resolve, and makes the core a sixth larger.
FLAGS: dict[str, tuple[list[str], list[str]]] = {
    "release": (["-O2", "-g0", "-fvisibility=hidden", *lean_compile], lean_link),
    "debug": (["-O0", "-g"], []),
    "sanitize": (
        ["-O1", "-g", "-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"],
        ["-fsanitize=address,undefined"],
    ),
    "trace": (["-O1", "-g0"], []),
}
if FLAVOUR not in FLAGS:
    sys.exit(f"CRA_FLAVOUR is `{FLAVOUR}`, expected one of {', '.join(FLAGS)}")
compile_args, link_args = FLAGS[FLAVOUR]
if WINDOWS:
    compile_args, link_args = (["/O2"] if FLAVOUR == "release" else ["/Od"]), []
else:
    compile_args = ["-std=c11", "-Werror=implicit-function-declaration", *compile_args]

macros: list[tuple[str, str | None]] = [("CRA_FLAVOUR", f'"{FLAVOUR}"')]
# What Cython writes out wherever something is raised or a method called: 9 KB of the wheel for 0.5 % of a call.
macros += [("CYTHON_FAST_THREAD_STATE", "0"), ("CYTHON_UNPACK_METHODS", "0")]
if FLAVOUR == "trace":
    # NOTE: without CYTHON_USE_SYS_MONITORING=0 a traced build reports no lines at all on CPython 3.13, silently.
    macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]

# The C files a module needs beside its own; plain C without Python.h, so other runtimes can share them.
# They have their own folder: `sha256.pyx` is translated to a `sha256.c` and would overwrite a leaf beside it.
# The digest is linked once, into `sha256`; other modules cimport it from there, so that `force` holds for all.
LEAVES = {"sha256": ["leaf/sha256.c"], "glob": ["leaf/glob.c"], "policy": ["leaf/glob.c"]}

# Modules that an ordinary call spends little time in: small before fast. PERF: 2 % more instructions of a resolve, a
# quarter more time to verify, and a tenth less of the wheel. `calls` among them would be 4 % of a resolve.
SMALL = {
    "assemble", "context", "glob", "ledger", "pattern", "policy", "report", "schema", "value", "verifier", "windows",
}  # fmt: skip

# What the installed commands read and the repository keeps at its top: the archive in the wheel, the folder, and its
# parts. As archives, because the suite is hundreds of small files, and one atlas is the other with a few changes.
ARCHIVES = {
    "conformance": (Path("specs/conformance"), ("golden", "vectors")),
    "atlases": (Path("examples/atlases"), ("customer-support", "customer-support-2.2.0")),
}


class BuildExt(build_ext):
    """Compile modules side by side, and each flavour in folders of its own."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or CPUS
        if FLAVOUR != "release":
            # NOTE: setuptools sees no difference when only flags change and would copy the old binary back.
            self.build_lib = f"{self.build_lib}-{FLAVOUR}"
            self.build_temp = f"{self.build_temp}-{FLAVOUR}"

    def build_extension(self, ext: Extension) -> None:
        # Two modules may share a C file; one object folder each keeps parallel compilers off each other's output.
        own = copy.copy(self)
        own.build_temp = str(Path(self.build_temp, ext.name))
        super(BuildExt, own).build_extension(ext)


class BuildPy(build_py):
    """Put the conformance suite and the example atlases into the wheel."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        data = Path(self.build_lib, "cra/_data")
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        for name, (folder, parts) in ARCHIVES.items():
            if not folder.is_dir():
                continue
            smallest = 9 | lzma.PRESET_EXTREME
            with tarfile.open(data / f"{name}.tar.xz", "w:xz", preset=smallest, format=tarfile.USTAR_FORMAT) as archive:
                for path in sorted(path for part in parts for path in (folder / part).rglob("*")):
                    member = tarfile.TarInfo(path.relative_to(folder).as_posix())
                    if path.is_file() and "__pycache__" not in path.parts:
                        member.size = path.stat().st_size
                        with path.open("rb") as content:
                            archive.addfile(member, content)


extensions = [
    Extension(
        f"cra._core.{path.stem}",
        [str(path), *(str(CORE / leaf) for leaf in LEAVES.get(path.stem, []))],
        include_dirs=[str(CORE / "leaf")],
        depends=["setup.py", *(str(header) for header in sorted(CORE.glob("leaf/*.h")))],
        define_macros=macros,
        extra_compile_args=["-Os" if arg == "-O2" and path.stem in SMALL else arg for arg in compile_args],
        extra_link_args=link_args,
    )
    for path in sorted(CORE.glob("*.pyx"))
    if not ONLY or path.stem in ONLY
]

if __name__ == "__main__":
    setup(
        cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
        ext_modules=cythonize(
            extensions,
            nthreads=CPUS if sys.platform == "linux" else 0,
            # Coverage reads the line table from the C file beside the .pyx, so a traced build keeps it there.
            build_dir=None if FLAVOUR == "trace" else f"build/cython-{FLAVOUR}",
            annotate=FLAVOUR == "debug",
            compiler_directives={
                "language_level": 3,
                "boundscheck": FLAVOUR in ("debug", "sanitize"),
                "wraparound": False,
                "initializedcheck": False,
                "cdivision": True,
                "infer_types": True,
                # Functions of one argument take it by its place: less code, and less to do at a call.
                "always_allow_keywords": False,
                # Plain functions of C: what makes them look like Python's is a sixth of the core's size.
                "binding": False,
                "embedsignature": True,
                "embedsignature.format": "clinic",
                "autotestdict": False,
                "auto_pickle": False,
                "freethreading_compatible": True,
                "linetrace": FLAVOUR == "trace",
            },
        ),
    )
