"""cra init: an atlas to begin with."""

from __future__ import annotations

import json as json_
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from cra.cli._exit import Exit, FileTrouble, UsageError
from cra.cli._options import JsonOption, settings
from cra.cli._output import Output
from cra.errors import AtlasConflict
from cra.protocol.fields import ATLAS_ID_PATTERN


def command(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to; made if absent.", show_default=False)],
    atlas_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="The atlas's id; com.example.FOLDER if absent.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Its name.", show_default=False)] = None,
    json: JsonOption = False,
) -> int:
    """Make a small working atlas: actions, policies, a document and tests, to be changed into yours.

    \b
    Examples:
      cra init my-atlas
      cra init desk --id com.acme.desk --name "Acme desk"
    """
    from cra.atlas.loader import load

    chosen = settings(json=json)
    out = Output(chosen.json)
    if not folder:
        raise UsageError("FOLDER is empty, expected a path", hint="`.` is this folder")
    place = Path(folder)
    word = re.sub(r"[^a-z0-9]+", "-", place.resolve().name.lower()).strip("-")
    atlas_id = atlas_id or f"com.example.{word if word[:1].isalpha() else 'atlas'}"
    if not re.match(ATLAS_ID_PATTERN, atlas_id):
        raise UsageError(
            f"--id is `{atlas_id}`, expected lower-case words joined by dots", hint="such as com.acme.desk"
        )
    title = name or place.resolve().name.replace("-", " ").replace("_", " ").strip().capitalize() or "Atlas"
    files = skeleton(atlas_id, title[:100])
    taken = [path for path in files if (place / path).exists()]
    if taken:
        raise AtlasConflict(f"`{place / taken[0]}` is there already", hint="name another folder; nothing was written")
    try:
        for path, text in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise FileTrouble(f"`{folder}` is a file, expected a folder", hint="name another folder") from None
    except OSError as error:
        raise FileTrouble(f"`{folder}` cannot be written to: {(error.strerror or str(error)).lower()}") from None
    atlas = load(place)
    if chosen.json:
        out.data({"path": folder, "atlas_id": atlas.atlas_id, "digest": atlas.digest, "files": sorted(files)})
        return Exit.OK
    out.line(f"{atlas.atlas_id} {atlas.version} is in {folder}", style="bold green")
    for path in files:
        out.line(f"  {path}")
    out.line()
    out.line("Next:")
    out.line(f"  cra atlas validate {folder}")
    out.line(f"  cra atlas test {folder}")
    out.line(f'  cra simulate "Tidy up the old notes" --agent writer-1 -a {folder}')
    return Exit.OK


def skeleton(atlas_id: str, name: str) -> dict[str, str]:
    """Return the files of a small atlas about notes."""
    values: dict[str, Any] = {
        "atlas.json": _manifest(atlas_id, name),
        "actions/note.json": _ACTIONS,
        "policies/rules.json": _POLICIES,
        "tests/cases.json": _CASES,
    }
    files = {path: json_.dumps(value, indent=2, ensure_ascii=False) + "\n" for path, value in values.items()}
    files["context/guide.md"] = _GUIDE
    return files


def _manifest(atlas_id: str, name: str) -> dict[str, Any]:
    return {
        "atlas_version": "1.0",
        "atlas_id": atlas_id,
        "version": "0.1.0",
        "name": name,
        "description": "Notes that agents may read and write, with the rules for it.",
        "capabilities": [
            {
                "capability_id": "notes",
                "name": "Notes",
                "description": "Read and write notes.",
                "actions": ["note.*"],
                "context_packs": ["guide"],
            }
        ],
        "context_packs": [
            {
                "pack_id": "guide",
                "name": "Guide",
                "description": "How notes are written here.",
                "files": ["context/guide.md"],
            }
        ],
    }


_ID = {"type": "string", "pattern": "^N-[0-9]{1,9}$", "description": "Note number, as in N-7"}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 2000}


def _action(action_id: str, name: str, description: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "action_id": action_id,
        "name": name,
        "description": description,
        **more,
        "parameters_schema": {
            "type": "object",
            "required": list(properties),
            "properties": properties,
            "additionalProperties": False,
        },
        "returns_schema": {"type": "object"},
    }


_ACTIONS = [
    _action("note.get", "Read note", "Read one note.", {"note_id": _ID}, risk_tier="low", idempotent=True),
    _action("note.create", "Write note", "Write a new note.", {"text": _TEXT}, risk_tier="medium"),
    _action(
        "note.share",
        "Share note",
        "Send a note to somebody.",
        {"note_id": _ID, "to": {"type": "string", "maxLength": 254}},
        risk_tier="high",
    ),
    _action("note.delete", "Delete note", "Remove a note for good.", {"note_id": _ID}, risk_tier="critical"),
]
_POLICIES = [
    {
        "policy_id": "deny-delete",
        "type": "deny",
        "actions": ["*.delete"],
        "reason": "agents do not delete notes; ask the owner",
    },
    {
        "policy_id": "approve-sharing-outside",
        "type": "require_approval",
        "actions": ["note.share"],
        "conditions": {
            "parameters": {"required": ["to"], "properties": {"to": {"not": {"pattern": "@example\\.com$"}}}}
        },
        "reason": "somebody looks before a note leaves the house",
    },
    {
        "policy_id": "create-rate",
        "type": "rate_limit",
        "actions": ["note.create"],
        "parameters": {"max_calls": 5, "window_seconds": 60},
    },
    {"policy_id": "allow-reading", "type": "allow", "actions": ["note.get"]},
    {
        "policy_id": "allow-writers",
        "type": "allow",
        "actions": ["note.create", "note.share"],
        "conditions": {"agents": ["writer-*"]},
    },
]
_CASES = [
    {
        "name": "a writer may write, and nobody may delete",
        "request": {"goal": "Keep the notes in order", "agent_id": "writer-1"},
        "expect": {
            "decision": "partial",
            "allowed": ["note.get", "note.create"],
            "denied": {"note.delete": "deny-delete"},
            "context": ["guide/context/guide.md"],
        },
    },
    {
        "name": "others may only read",
        "request": {"goal": "Look something up", "agent_id": "reader-1"},
        "expect": {"allowed": ["note.get"], "denied": {"note.create": None, "note.share": None}},
    },
    {
        "name": "sharing inside the house needs nobody",
        "request": {"goal": "Share the notes", "agent_id": "writer-1"},
        "call": {"action_id": "note.share", "parameters": {"note_id": "N-1", "to": "ada@example.com"}},
        "expect": {"status": "success"},
    },
    {
        "name": "sharing outside waits for a person",
        "request": {"goal": "Share the notes", "agent_id": "writer-1"},
        "call": {"action_id": "note.share", "parameters": {"note_id": "N-1", "to": "bob@elsewhere.test"}},
        "expect": {"status": "pending_approval", "policy_id": "approve-sharing-outside"},
    },
    {
        "name": "the sixth note in a minute is too many",
        "request": {"goal": "Write notes", "agent_id": "writer-1"},
        "call": {"action_id": "note.create", "parameters": {"text": "Hello"}, "times": 6},
        "expect": {"status": "denied", "policy_id": "create-rate"},
    },
]
_GUIDE = """# How notes are written here

A note says one thing, in words that a newcomer understands. It names its sources.

- Read what is there before you write: a second note about the same thing helps nobody.
- Notes are not deleted. A note that is wrong gets a new one that says so.
- What leaves the house is looked at by a person first.
"""
