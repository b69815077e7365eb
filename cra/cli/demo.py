"""cra demo: a governed support agent from the first question to the replay."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cra.cli._data import example_atlas
from cra.cli._exit import Exit, FileTrouble
from cra.cli._options import JsonOption, settings, sqlite_url
from cra.cli._output import Output

ATLAS = "customer-support"
STRICTER = "customer-support-2.2.0"
FILES = ("tickets.db", "cra.db", "cra.db-wal", "cra.db-shm", "support.trace.jsonl", "tampered.trace.jsonl")


def command(
    out_folder: Annotated[
        str, typer.Option("--out", "-o", metavar="FOLDER", help="Where its files go; made if absent.")
    ] = "demo-out",
    json: JsonOption = False,
) -> int:
    """Watch an agent at a support desk: allowed, denied, limited, approved, recorded, replayed.

    A scripted agent works on a real SQLite ticket database under the customer-support example atlas. Every step
    checks what it claims: exit code 0 means that all of it held. The trace stays on disk.

    \b
    Examples:
      cra demo
      cra demo --out /tmp/desk
      cra demo --json
    """
    from cra.cli._demo.story import ClaimFailed, Story

    chosen = settings(json=json)
    out = Output(chosen.json)
    folder = Path(out_folder)
    _prepare(folder)
    atlases = [example_atlas(name, folder / "atlases") for name in (ATLAS, STRICTER)]
    story = Story(out)
    failure: str | None = None
    session_id = ""
    try:
        session_id = _play(story, folder, *atlases)
    except ClaimFailed as error:
        failure = str(error)
    commands = _commands(folder, session_id, *atlases)
    if chosen.json:
        out.data(
            {
                "ok": failure is None,
                "failed": failure,
                "claims": story.claims,
                "session_id": session_id or None,
                "files": {name: str(folder / name) for name in FILES if (folder / name).is_file()},
                "commands": commands,
            }
        )
    elif failure is not None:
        out.error("demo_failed", f"a claim did not hold: {failure}", "this is a defect, please report it")
    else:
        _farewell(out, story, folder, commands)
    return Exit.OK if failure is None else Exit.VERDICT


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    except FileExistsError:
        raise FileTrouble(f"`{folder}` is a file, expected a folder", hint="name another with --out") from None
    except OSError as error:
        raise FileTrouble(
            f"folder `{folder}` cannot be used: {(error.strerror or str(error)).lower()}",
            hint="name another with --out",
        ) from None


def _play(story: Any, folder: Path, atlas: Path, stricter: Path) -> str:
    from cra.cli._demo import scenes
    from cra.cli._demo.desk import Desk
    from cra.runtime.config import RuntimeConfig
    from cra.runtime.sync import CRARuntime

    trace = folder / "support.trace.jsonl"
    config = RuntimeConfig(storage=_storage(folder), capture_parameters="full")
    with CRARuntime(config) as runtime:
        runtime.load_atlas(atlas)
        shift = scenes.Shift(story, runtime, Desk(folder / "tickets.db"))
        shift.work()
        scenes.write_trace(story, runtime, shift.session_id, trace)
    scenes.tamper(story, trace, folder / "tampered.trace.jsonl")
    scenes.replay(story, trace, atlas, stricter)
    return shift.session_id


def _storage(folder: Path) -> str:
    try:
        import cra.storage.sqlite  # noqa: F401  # only whether it can be had
    except ImportError:
        return "memory"
    return sqlite_url(str(folder / "cra.db"))


def _commands(folder: Path, session_id: str, atlas: Path, stricter: Path) -> list[list[str]]:
    trace, tampered = str(folder / "support.trace.jsonl"), str(folder / "tampered.trace.jsonl")
    found = [
        ["trace", "show", trace, "--type", "action.*"],
        ["trace", "verify", trace],
        ["trace", "verify", tampered],
        ["replay", trace, "--atlas", _short(atlas)],
        ["replay", trace, "--atlas", _short(atlas), "--against", _short(stricter)],
    ]
    if session_id and (folder / "cra.db").is_file():
        store = sqlite_url(str(folder / "cra.db"))
        found.append(["session", "show", session_id, "--storage", store])
        found.append(["approvals", "list", "--status", "all", "--storage", store])
    return found


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _name() -> str:
    """Return how this command can be called again."""
    called = Path(sys.argv[0])
    if called.name != "cra":
        return "cra"
    found = shutil.which("cra")
    return "cra" if found and Path(found).resolve() == called.resolve() else str(called)


def _farewell(out: Output, story: Any, folder: Path, commands: list[list[str]]) -> None:
    out.line()
    out.line(f"All {len(story.claims)} claims held.", style="bold green")
    out.line(f"The trace is in {folder / 'support.trace.jsonl'}. Look at it:")
    out.line()
    for words in commands:
        out.line("  " + shlex.join([_name(), *words]))
