"""The import direction, the doors of the core, and the size of things, read from the sources themselves."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "cra" / "_core" / "sha256.pyx").is_file():
    pytest.skip("the sources are not here, only their tests", allow_module_level=True)

# Left to right: a room imports only rooms further right.
LEVELS = (
    {"cli"},
    {"server", "mcp", "integrations", "testing"},
    {"adapters", "observability", "audit", "client"},
    {"runtime"},
    {"atlas", "storage"},
    {"protocol", "_core"},
    {"errors"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
FRONT = {"__init__", "__main__"}  # the package's own face, which may show any room

# Third-party packages and where each may be imported: a room, or one module.
HOMES: dict[str, tuple[str, ...]] = {
    "msgspec": tuple(LEVEL.keys() - {"_core", "errors"}),
    "jsonschema": ("atlas",),
    "referencing": ("atlas",),
    "apsw": (
        "storage/sqlite.py",
        "storage/_sqlite_append.py",
        "storage/_sqlite_file.py",
        "storage/_sqlite_log.py",
        "storage/_sqlite_move.py",
        "storage/_sqlite_pool.py",
    ),
    "psycopg": (
        "storage/_postgres_migrate.py",
        "storage/_postgres_pool.py",
        "storage/_postgres_server.py",
        "storage/_postgres_wire.py",
        "testing/postgres.py",
    ),
    "psycopg_pool": ("storage/_postgres_pool.py",),
    "typer": ("cli",),
    "click": ("cli",),
    "rich": ("cli",),
    "httpx": ("client",),
    "starlette": ("server",),
    "uvicorn": ("server",),
    "uvloop": ("server",),
    "httptools": ("server",),
    "websockets": ("server",),
    "prometheus_client": ("server",),
    "joserfc": ("server",),
    "throttled": ("server",),
    "opentelemetry": ("observability",),
    "mcp": ("mcp",),
    "pytest": ("testing",),
    "hypothesis": ("testing",),
    # What Cython brings; not packages at run time.
    "cython": ("_core",),
    "cpython": ("_core",),
    "libc": ("_core",),
}
ONLY_WHERE_USED = {
    "jsonschema",
    "referencing",
    "apsw",
    "psycopg",
    "psycopg_pool",
    "httpx",
}  # never at the top of a module

# Modules above 500 lines, each with the one idea that keeps it whole.
LONG: dict[str, str] = {"cra/errors.py": "every error in one tree, each a few lines"}
LONG_LINES = 500

# What `import cra` must not load: it would cost a short-lived command or hook its start-up time.
HEAVY = {"asyncio", "jsonschema", "referencing", "apsw", "sqlite3", "typer", "click", "rich", "ssl", "http", "email"}


@dataclass(frozen=True)
class Import:
    """One imported module, as an absolute dotted name; `top` if importing the file performs it."""

    name: str
    line: int
    top: bool = True


# -- reading Python ---------------------------------------------------------------------------------------------------


def python_imports(source: str, module: str, *, package: bool = False) -> list[Import]:
    """Return what `source`, the text of the dotted `module`, imports; `from cra import errors` is `cra.errors`."""
    tree = ast.parse(source, module)
    inside = {id(node) for function in ast.walk(tree) if _is_function(function) for node in ast.walk(function)}
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        names: Iterable[str] = ()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node.module or "", node.level, module, package)
            names = _from(base, [alias.name for alias in node.names])
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                names = [node.args[0].value]
        found += [Import(name, node.lineno, id(node) not in inside | typing_only) for name in names]
    return found


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _absolute(name: str, level: int, module: str, package: bool) -> str:
    if not level:
        return name
    parents = module.split(".") if package else module.split(".")[:-1]
    parents = parents[: len(parents) - level + 1]
    return ".".join([*parents, name] if name else parents)


def _from(base: str, names: list[str]) -> list[str]:
    # From the package root or a room, a name may be a module; one level deeper it no longer matters.
    if base == "cra":
        return [f"cra.{name}" if name in LEVEL else "cra" for name in names]
    return [base]


# -- reading Cython ---------------------------------------------------------------------------------------------------

_QUIET = re.compile(
    r"""(?P<triple>[rbufRBUF]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''))"""
    r"""|(?P<string>[rbucfRBUCF]{0,2}(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))"""
    r"""|(?P<comment>\#[^\n]*)""",
    re.DOTALL,
)


def logical_lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of each logical line: strings emptied, comments gone, continuations joined."""

    def quiet(match: re.Match[str]) -> str:
        return "" if match["comment"] else '""' + "\n" * match[0].count("\n")

    # The line breaks of a triple-quoted string are kept behind it, so that the numbers stay right.
    text = _QUIET.sub(quiet, source)
    depth, start, pieces = 0, 1, []
    for number, line in enumerate(text.split("\n"), 1):
        if not pieces:
            start = number
        joined = line.endswith("\\")
        pieces.append(line.rstrip("\\") if joined else line)
        depth += sum(line.count(c) for c in "([{") - sum(line.count(c) for c in ")]}")
        if depth > 0 or joined:
            continue
        whole = " ".join([pieces[0].rstrip(), *(piece.strip() for piece in pieces[1:])]) if len(pieces) > 1 else line
        pieces, depth = [], 0
        if whole.strip():
            indent = whole[: len(whole) - len(whole.lstrip())]
            for part in whole.strip().split(";"):
                if part.strip():
                    yield start, indent + part.strip()


_FROM = re.compile(r"from\s+(\.*)\s*([\w.]*)\s+c?import\s+(.+)$")
_PLAIN = re.compile(r"c?import\s+(.+)$")


def cython_imports(source: str, module: str, *, package: bool = False) -> list[Import]:
    """Return what a .pyx or .pxd imports and cimports."""
    found = []
    for number, line in logical_lines(source):
        text = re.sub(r"^(?:if\b[^:]*|else|try|except\b[^:]*|finally)\s*:\s*", "", line.strip())
        if match := _FROM.match(text):
            base = _absolute(match[2], len(match[1]), module, package)
            names = [part.split()[0] for part in match[3].strip("() ").split(",") if part.strip("() ")]
            found += [Import(name, number, not line[0].isspace()) for name in _from(base, names)]
        elif match := _PLAIN.match(text):
            found += [Import(p.split()[0], number, not line[0].isspace()) for p in match[1].split(",") if p.strip()]
    return found


# C names that hold no reference; a class is written with a capital, and these are the builtins that are not.
_OBJECTS = {"bytes", "bytearray", "str", "unicode", "dict", "list", "tuple", "set", "frozenset", "type", "slice"}
_OBJECTS |= {"memoryview"}


def door_offences(source: str) -> list[tuple[int, str]]:
    """Return what is wrong with the doors of a .pyx: `cpdef`, and `def` arguments that would let None in unasked.

    A door is a `def` that others can reach by public names: inside a function or a `_Class`, or as `_name`, it is none.
    """
    offences = []
    scopes: list[tuple[int, str]] = []  # (indent, what) of the blocks we are in
    for number, line in logical_lines(source):
        indent = len(line) - len(line.lstrip())
        while scopes and indent <= scopes[-1][0]:
            scopes.pop()
        text = line.strip()
        if re.match(r"include\s+\"\"", text):
            offences.append((number, "includes text, expected a cimport"))
        if text.startswith("cpdef") or re.search(r"\bcpdef\b", text):
            offences.append((number, "is `cpdef`, which cannot refuse None"))
        head = _header(text)
        what = _block(head)
        public = all(scope == "class" for _, scope in scopes)
        if what == "function" and public and re.match(r"(async\s+)?def\s+(__|[^_\s])", head):
            method = bool(scopes) and scopes[-1][1] == "class"
            offences += [(number, problem) for problem in _arguments(head, method)]
        if what:
            scopes.append((indent, what))
    return offences


def _header(text: str) -> str:
    """Return the head of a block, up to its colon; the rest of the line, if any, is the block itself."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == ":" and not depth:
            return text[: place + 1]
    return ""


def _block(head: str) -> str:
    """Say what a head opens: a public or private class, a function, or nothing (branches are transparent)."""
    if match := re.match(r"(?:cdef\s+)?class\s+(_?)", head):
        return "private class" if match[1] else "class"
    if re.match(r"(async\s+)?def\b|cpdef\b|cdef\b(?!\s+extern)[^:]*\(", head):
        return "function"
    return ""


def _arguments(head: str, method: bool) -> Iterator[str]:
    match = re.match(r"(?:async\s+)?def\s+(\w+)\s*\((.*)\)\s*(?:->[^:]*)?:$", head)
    if not match:
        yield f"cannot be read by this test: `{head}`"
        return
    name, inside = match[1], match[2]
    if name.startswith("__") and name not in ("__init__", "__cinit__", "__call__"):
        return  # the interpreter calls it, with what it likes
    for position, argument in enumerate(_split(inside)):
        if (method and position == 0) or argument.startswith("*") or argument == "/":
            continue
        declared, _, default = (part.strip() for part in argument.partition("="))
        if ":" in declared:  # an annotation refuses None by itself, unless it names it
            continue
        words = declared.split()
        refuses = words[-2:] in (["not", "None"], ["or", "None"])
        words = words[:-2] if refuses else words
        if len(words) == 1:
            yield f"`{name}`: argument `{words[0]}` has no type, expected one (`object` lets anything in)"
            continue
        kind = words[0].split("[")[0]
        holds = kind in _OBJECTS or (kind.lstrip("_")[:1].isupper() and not kind.startswith("Py_"))
        if holds and not refuses and default != "None":
            yield f"`{name}`: argument `{' '.join(words)}` lets None in, expected `not None`"


def _split(arguments: str) -> list[str]:
    depth, pieces = 0, [""]
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            pieces.append("")
        else:
            pieces[-1] += character
    return [piece.strip() for piece in pieces if piece.strip()]


# -- judging ----------------------------------------------------------------------------------------------------------


def direction_offences(path: str, imports: Iterable[Import]) -> list[str]:
    """Return what the file at `path` (relative to `cra/`) imports against the direction or outside its home."""
    room = path.split("/")[0].split(".")[0]
    if "/" not in path and room not in LEVEL and room not in FRONT:
        return [f"cra/{path}: `{room}` is no room of DESIGN section 3"]
    offences = []
    for imported in imports:
        where = f"cra/{path}:{imported.line}"
        top, _, rest = imported.name.partition(".")
        if top == "cra":
            target = rest.split(".")[0]
            if not target:
                offences.append(f"{where}: imports the package root, expected a room")
            elif target not in LEVEL:
                offences.append(f"{where}: imports `{imported.name}`, which is no room")
            elif room not in FRONT and target != room and LEVEL[target] <= LEVEL[room]:
                side = "its neighbour" if LEVEL[target] == LEVEL[room] else "against the direction:"
                offences.append(f"{where}: imports {side} `{imported.name}`")
        elif top in HOMES:
            if not any(path == home or path.split("/")[0].split(".")[0] == home for home in HOMES[top]):
                offences.append(f"{where}: imports `{top}`, whose home is {' and '.join(HOMES[top])}")
            elif imported.top and top in ONLY_WHERE_USED:
                offences.append(f"{where}: imports `{top}` at the top, expected it where it is used")
        elif top not in sys.stdlib_module_names:
            offences.append(f"{where}: imports `{top}`, which has no home in this test")
    return offences


def sources(*suffixes: str) -> list[Path]:
    return sorted(path for path in (ROOT / "cra").rglob("*") if path.suffix in suffixes and "_data" not in path.parts)


def imports_of(path: Path) -> list[Import]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if package else parts)
    read = python_imports if path.suffix in (".py", ".pyi") else cython_imports
    return read(path.read_text(encoding="utf-8"), module, package=package)


# -- the tree ---------------------------------------------------------------------------------------------------------


def test_rooms_import_only_rooms_to_their_right_and_packages_only_at_their_home() -> None:
    files = sources(".py", ".pyi", ".pyx", ".pxd")
    assert len(files) > 10
    offences = [
        offence
        for path in files
        for offence in direction_offences(path.relative_to(ROOT / "cra").as_posix(), imports_of(path))
    ]
    assert not offences, "\n" + "\n".join(offences)


def test_one_module_alone_knows_jsonschema() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in sources(".py")
        for imported in imports_of(path)
        if imported.name.split(".")[0] in ("jsonschema", "referencing")
    }
    assert len(users) <= 1, f"{sorted(users)} import jsonschema, expected one module"


def test_the_doors_of_the_core_refuse_none() -> None:
    offences = [
        f"{path.relative_to(ROOT)}:{line}: {problem}"
        for path in sources(".pyx")
        for line, problem in door_offences(path.read_text(encoding="utf-8"))
    ]
    assert not offences, "\n" + "\n".join(offences)


def test_every_pyx_has_a_stub_and_every_stub_of_the_core_a_source() -> None:
    core = ROOT / "cra" / "_core"
    compiled = {path.stem for path in core.glob("*.pyx")}
    stubs = {path.stem for path in core.glob("*.pyi")}
    assert compiled == stubs


def test_no_module_is_above_500_lines_without_a_reason() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(".py", ".pyx", ".c")
    }
    above = {name: lines for name, lines in lengths.items() if lines > LONG_LINES}
    assert above.keys() - LONG.keys() == set(), f"{above}: look for the second idea"
    assert LONG.keys() - above.keys() == set(), "listed, and short by now"


def test_importing_cra_loads_only_msgspec_and_the_core() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import msgspec; before = set(sys.modules); import cra; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(ROOT)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    tops = {name.split(".")[0] for name in done.stdout.split()}
    foreign = {top for top in tops if top not in sys.stdlib_module_names and top != "cra"}
    # Cython keeps its shared types in modules without a file, and `sysconfig` its data in one named for the platform.
    foreign -= {top for top in foreign if top.startswith(("_cython_", "cython_runtime", "_sysconfigdata_"))}
    assert not foreign
    assert not tops & HEAVY


# -- the checker itself -----------------------------------------------------------------------------------------------

BAD_PYTHON = [
    ("protocol/carp.py", "from cra.runtime import engine", "against the direction"),
    ("protocol/carp.py", "import cra.atlas.loader as loader", "against the direction"),
    ("protocol/carp.py", "from cra._core import chain", "its neighbour"),
    ("_core/__init__.py", "from cra.protocol.carp import Request", "its neighbour"),
    ("atlas/loader.py", "from cra import storage", "its neighbour"),
    ("atlas/loader.py", "import cra", "package root"),
    ("atlas/loader.py", "from cra import CRARuntime", "package root"),
    ("atlas/loader.py", "from .. import CRARuntime", "package root"),
    ("atlas/loader.py", "from ..runtime.engine import decide", "against the direction"),
    ("atlas/loader.py", "def late():\n    from cra.cli import main\n", "against the direction"),
    ("atlas/loader.py", "import importlib\nimportlib.import_module('cra.runtime.engine')", "against the direction"),
    ("atlas/loader.py", "if TYPE_CHECKING:\n    from cra.runtime import Session", "against the direction"),
    ("atlas/schema.py", "import jsonschema", "at the top"),
    ("atlas/loader.py", "import requests", "no home"),
    ("errors.py", "import msgspec", "whose home"),
    ("runtime/engine.py", "import apsw", "whose home"),
    ("storage/memory.py", "def f():\n    import apsw", "whose home"),
    ("runtime/engine.py", "from starlette.applications import Starlette", "whose home"),
    ("audit/verify.py", "from cra.observability import siem", "its neighbour"),
    ("audit/verify.py", "from cra.nowhere import x", "no room"),
    ("helpers.py", "", "no room"),
]


@pytest.mark.parametrize(("path", "source", "words"), BAD_PYTHON)
def test_the_checker_finds_an_import_against_the_rules(path: str, source: str, words: str) -> None:
    module = "cra." + path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    offences = direction_offences(path, python_imports(source, module, package=path.endswith("__init__.py")))
    assert len(offences) == 1
    assert words in offences[0]


BAD_CYTHON = [
    ("from cra.protocol.carp cimport Request", "its neighbour", 1),
    ("# cython\ncimport cra.atlas.index", "against the direction", 2),
    ("from ..runtime import engine", "against the direction", 1),
    ("from cra.runtime cimport (\n    engine,\n    other as o,\n)", "against the direction", 1),
    ("x = 1; import cra", "package root", 1),
    ("cdef int f() except -1:\n    from cra.storage \\\n        import base", "against the direction", 2),
    ('"""\nimport cra\n"""\nimport msgspec', "whose home", 4),
    ("cdef extern from *:\n    '''\n    import cra\n    '''\n    int x\nimport numpy", "no home", 6),
    ("try: import cra.runtime.x\nexcept ImportError: pass", "against the direction", 1),
]


@pytest.mark.parametrize(("source", "words", "line"), BAD_CYTHON)
def test_the_checker_reads_cython(source: str, words: str, line: int) -> None:
    offences = direction_offences("_core/made_up.pyx", cython_imports(source, "cra._core.made_up"))
    assert len(offences) == 1, offences
    assert words in offences[0]
    assert f":{line}:" in offences[0]


GOOD_CYTHON = '''
"""import cra"""
# from cra.protocol import carp
cimport cython
from libc.string cimport memcpy, memcmp
from cpython.bytes cimport PyBytes_AS_STRING
from cra._core.canonical cimport Buffer, write_value  # the writer
from cra import errors
from cra.errors import NotCanonical
cdef extern from "sha256.h" nogil:
    void cra_sha256(const unsigned char *data, size_t n)
cdef str text = "import cra; from cra.runtime import engine"
cdef char quote = c"'"

cdef class Chain:
    cdef bytes head
    cdef int _grow(self, bytes wanted, x) except -1:
        def inner(loose):
            return loose
        return 0
    def __init__(self, str session_id not None, str trace_id not None, unsigned long long sequence=0, bytes head=None):
        pass
    def __eq__(self, other):
        return False
    def verify(self, object anything, *, int64_t now_us, double[::1] cells) -> bool:
        return True

def digest(bytes data not None, tuple more not None = (), *rest, **named) -> str:
    def sort_key(pair):
        return pair
    return ""

def note(text: str, str hint or None, Py_ssize_t n = 0) -> None: pass
def _sum(numbers): return numbers
class _Parser:
    def take(self, text): return text
'''


def test_the_checker_accepts_good_cython() -> None:
    assert direction_offences("_core/chain.pyx", cython_imports(GOOD_CYTHON, "cra._core.chain")) == []
    assert door_offences(GOOD_CYTHON) == []


BAD_DOORS = [
    ("cpdef int f(int x): return x", "cpdef", 1),
    ("def f(bytes data): pass", "lets None in", 1),
    ("def f(data): pass", "has no type", 1),
    ("def f(int n, Buffer buffer): pass", "lets None in", 1),
    ("def f(_Private buffer): pass", "lets None in", 1),
    ("if True:\n    def f(int n, str late): pass", "lets None in", 2),
    ("cdef class C:\n    def add(self, dict payload): pass", "lets None in", 2),
    ("cdef class C:\n    def __cinit__(self, str name): pass", "lets None in", 2),
    ("def f(\n    int n,\n    list items,\n):\n    pass", "lets None in", 1),
    ("cdef class C:\n    cpdef add(self): pass", "cpdef", 2),
    ('include "other.pxi"', "includes text", 1),
]


@pytest.mark.parametrize(("source", "words", "line"), BAD_DOORS)
def test_the_checker_finds_a_door_that_lets_none_in(source: str, words: str, line: int) -> None:
    ((found, problem),) = door_offences(source)
    assert words in problem
    assert found == line


def test_a_rightward_import_is_fine() -> None:
    source = "import json\nimport msgspec\nfrom cra import errors\nfrom cra.protocol import carp\n"
    source += "from cra._core import chain\n"
    assert direction_offences("runtime/engine.py", python_imports(source, "cra.runtime.engine")) == []
    inside = "from cra.runtime import engine\ndef f():\n    import apsw\n"
    assert (
        direction_offences("storage/sqlite.py", python_imports("def f():\n    import apsw", "cra.storage.sqlite")) == []
    )
    assert len(direction_offences("storage/sqlite.py", python_imports(inside, "cra.storage.sqlite"))) == 1
    assert direction_offences("__init__.py", python_imports("from cra.cli import main", "cra", package=True)) == []
