# ruff: noqa: T201 - a program prints
"""Note down where the chains of a store end, and later hold the store against such notes.

A chain that was rewritten as a whole is consistent in itself; only what was noted down elsewhere shows it. Run `note`
regularly, as a role that only reads, and send what it prints to storage that nobody can overwrite:

    python deploy/anchor.py note --storage URL > heads.jsonl
    python deploy/anchor.py check --storage URL heads.jsonl

Exit code 1 when a chain is not a continuation of what was noted.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cra._core.chain import verify
from cra.errors import CRAError, SessionNotFound
from cra.protocol.times import format_timestamp
from cra.protocol.trace import Trace
from cra.runtime.kernel import administration_id
from cra.storage.base import Storage
from cra.storage.open import open_storage

_PAGE = 500


def note(store: Storage) -> Iterator[dict[str, object]]:
    """Yield one line for each session of every tenant: how many events it has, and the hash of the last."""
    at = format_timestamp(time.time_ns() // 1000)
    for tenant in store.tenants():
        part, after = store.of_tenant(tenant), None
        while records := part.sessions(after=after, limit=_PAGE):
            for record in records:
                try:
                    _, head = part.load(record.session_id)
                except SessionNotFound:
                    continue  # purged meanwhile
                yield {
                    "tenant": tenant,
                    "session_id": record.session_id,
                    "events": head.sequence,
                    "head": head.hash,
                    "at": at,
                }
            after = records[-1].session_id


def check(store: Storage, noted: dict[str, object]) -> str | None:
    """Return what is wrong with a session that was noted down, None when it is what it was, or more."""
    tenant, session_id, events, head = (noted[name] for name in ("tenant", "session_id", "events", "head"))
    part = store.of_tenant(str(tenant))
    try:
        verdict = verify(part.events(str(session_id), 0, int(str(events))))
    except SessionNotFound:
        return _gone(part, str(session_id), int(str(events)), str(head))
    if not verdict.ok:
        return f"event {verdict.index}: {verdict.message}"
    if verdict.events < int(str(events)):
        return f"has {verdict.events} events, {events} were noted"
    if verdict.head != head:
        return f"event {int(str(events)) - 1} is not the one that was noted"
    return None


def _gone(part: Storage, session_id: str, events: int, head: str) -> str | None:
    """A session may only be gone when the record of the administration says so, and says the same of it."""
    try:
        record = part.events(administration_id(part.tenant))
    except SessionNotFound:
        record = b""
    for event in Trace(record).of_type("session.purged"):
        payload = event.payload
        if payload["session_id"] == session_id:
            if payload["events"] == events and payload["head_hash"] != head:
                return "was purged with another last event than was noted"
            return None if payload["events"] >= events else f"was purged with fewer events than {events}"
    return "is gone, and no purge of it is recorded"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="what", required=True)
    for name in ("note", "check"):
        action = actions.add_parser(name)
        action.add_argument("--storage", required=True, metavar="URL")
    action.add_argument("notes", type=Path, help="a file that `note` has written")
    options = parser.parse_args()
    try:
        store = open_storage(options.storage, max_sessions=1, max_events=1)
    except CRAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 5
    if options.what == "note":
        for line in note(store):
            print(json.dumps(line, separators=(",", ":")))
        return 0
    bad = checked = 0
    with options.notes.open(encoding="utf-8") as lines:
        for line in lines:
            checked += 1
            noted = json.loads(line)
            if (words := check(store, noted)) is not None:
                bad += 1
                print(f"{noted['tenant']} {noted['session_id']}: {words}")
    print(f"{checked} chains, {bad} are not what was noted", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
