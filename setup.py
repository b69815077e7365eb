"""Compile the core; everything else about the package is in `pyproject.toml`.

Environment:
    CRA_FLAVOUR  release (default), debug, sanitize, or trace (line coverage of the .pyx files)
    CRA_ONLY     comma-separated module names, to rebuild just those while working on them
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

FLAVOUR = os.environ.get("CRA_FLAVOUR", "release")
ONLY = {name for name in os.environ.get("CRA_ONLY", "").split(",") if name}
CORE = Path("cra/_core")
MSVC = sys.platform == "win32"

FLAGS: dict[str, tuple[list[str], list[str]]] = {
    "release": (["-O3", "-g0", "-fvisibility=hidden"], ["-s"] if sys.platform == "linux" else []),
    "debug": (["-O0", "-g"], []),
    "sanitize": (
        ["-O1", "-g", "-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"],
        ["-fsanitize=address,undefined"],
    ),
    "trace": (["-O1", "-g0"], []),
}
compile_args, link_args = FLAGS[FLAVOUR]
if MSVC:
    compile_args, link_args = (["/O2"] if FLAVOUR == "release" else ["/Od"]), []
else:
    compile_args = ["-std=c11", "-Werror=implicit-function-declaration", *compile_args]

# CYTHON_USE_SYS_MONITORING=0: without it a traced build reports no lines at all on CPython 3.13, silently.
macros: list[tuple[str, str | None]] = (
    [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
    if FLAVOUR == "trace"
    else []
)
macros.append(("CRA_FLAVOUR", f'"{FLAVOUR}"'))

# The C files a module needs beside its own; plain C without Python.h, so other runtimes can share them.
LEAVES = {"sha256": ["sha256.c"], "chain": ["sha256.c"], "assemble": ["sha256.c"], "glob": ["glob.c"], "policy": ["glob.c"]}

extensions = [
    Extension(
        f"cra._core.{path.stem}",
        [str(path), *(str(CORE / leaf) for leaf in LEAVES.get(path.stem, []))],
        include_dirs=[str(CORE)],
        depends=[str(header) for header in sorted(CORE.glob("*.h"))],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for path in sorted(CORE.glob("*.pyx"))
    if not ONLY or path.stem in ONLY
]

setup(
    ext_modules=cythonize(
        extensions,
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
            "binding": True,
            "embedsignature": True,
            "autotestdict": False,
            "auto_pickle": False,
            "freethreading_compatible": True,
            "linetrace": FLAVOUR == "trace",
        },
    )
)
