"""Transfer: everything a store has, as lines of JSON that any store takes."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Any, TypeVar

from msgspec import Struct, convert, structs

from cra._core.canonical import dumps
from cra.errors import InvalidInput, SessionExists, SessionNotFound
from cra.storage._told import Told
from cra.storage.base import CounterRecord, Document, IdempotencyRecord, SessionDump, Storage, Stored
from cra.storage.records import approval_bytes, approval_of, resolution_bytes, resolution_of, session_bytes, session_of

VERSION = 1
_PAGE = 256
_PIECE_BYTES = 1 << 18
_MORE_BYTES = 64 << 20
# Every store keeps numbers below.
_MOST = 1 << 62

T = TypeVar("T", bound=Stored)

# The file, one object a line, each with one name:
#   header     {"cra_export": 1, "store", "tenants"}
#   tenant     the tenant that everything up to the next one is of
#   revisions  how often documents of each kind were written; then each `document`
#   counter    what one counter has counted
#   session    the record and the number of actions; then `requests`, `resolution`s, `idempotency`, `approval`s, then
#              its events in `lines`, exactly as they were hashed, and `end` with the SHA-256 of all these lines
#   total      the end of the file, with the number of sessions


class Imported(Struct, frozen=True, kw_only=True):
    """What an import has done: sessions that are new, and those that were there already and are the same."""

    tenants: int
    sessions: int
    known: int


def export(store: Storage, tenants: Iterable[str]) -> Iterator[bytes]:
    """Yield the lines of a file with these tenants; it never holds more than a piece of one session."""
    names = list(tenants)
    yield _line("cra_export", VERSION, store=store.name, tenants=names)
    sessions = 0
    for name in names:
        part = store.of_tenant(name)
        yield _line("tenant", name)
        # Before the sessions: what they were decided by is then at most newer in them, never missing.
        yield _line("revisions", {kind: part.revision(kind) for kind in part.kinds()})
        for kind in part.kinds():
            for document in part.documents(kind):
                yield _line("document", {**document._asdict(), "body": _text(document.body)})
        for counter in part.counters():
            yield _line("counter", structs.asdict(counter))
        after: str | None = None
        while page := part.sessions(after=after, limit=_PAGE):
            for record in page:
                after = record.session_id
                try:
                    dump = part.dump(after)
                except SessionNotFound:
                    continue  # purged since it was listed
                yield from _session(dump)
                sessions += 1
    yield _line("total", {"sessions": sessions})


def _session(dump: SessionDump) -> Iterator[bytes]:
    digest = sha256()
    for line in _session_lines(dump):
        digest.update(line)
        yield line
    yield _line("end", digest.hexdigest())


def _session_lines(dump: SessionDump) -> Iterator[bytes]:
    yield _line("session", _value(session_bytes(dump.record)), actions=dump.record.action_count)
    requests = iter(sorted(dump.requests))
    while some := list(islice(requests, _PAGE)):
        yield _line("requests", some)
    for resolution in dump.resolutions:
        yield _line("resolution", _value(resolution_bytes(resolution)))
    for known in sorted(dump.idempotency, key=lambda record: record.key):
        response = None if known.response is None else _text(known.response)
        yield _line("idempotency", {"key": known.key, "call": known.call, "response": response})
    for approval in dump.approvals:
        yield _line("approval", _value(approval_bytes(approval)))
    for piece in _pieces(dump.events):
        # Not ASCII: it may have been cut inside of a character.
        yield _line("lines", piece.decode()) if piece.isascii() else _line("bytes", _text(piece))


def _pieces(data: Iterable[bytes]) -> Iterator[bytes]:
    """Cut what a store has in pieces of its own into pieces of one size, so that every store writes the same file."""
    held = bytearray()
    for part in data:
        held += part
        while len(held) >= _PIECE_BYTES:
            yield bytes(held[:_PIECE_BYTES])
            del held[:_PIECE_BYTES]
    if held:
        yield bytes(held)


def import_(store: Storage, lines: Iterable[bytes], *, tenants: frozenset[str] | None = None) -> Imported:
    """Add what a file has, session by session, each whole or not at all; `tenants` are the ones to take, all when None.

    It can be done again after it was stopped: a session that is there already and is the same is left alone. Raises
    `InvalidInput` for what is no such file, `InvalidTrace` for a chain that does not verify, `SessionExists` for a
    session that is there and is another.
    """
    taking = _Import(store, _read(lines), tenants)
    try:
        return taking.run()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"line {taking.number} of the export has another shape than expected") from error


class _Import:
    def __init__(
        self, store: Storage, items: Iterator[tuple[int, bytes, dict[str, Any]]], wanted: frozenset[str] | None
    ) -> None:
        self._store = store
        self._items = items
        self._wanted = wanted
        # Of the lines of the session that is being read.
        self._digest = sha256()
        self.number = 0
        self._held: dict[str, Any] | None = None

    def run(self) -> Imported:
        header = self._next()
        if header.get("cra_export") != VERSION:
            raise InvalidInput(
                f"line 1 is no header of an export of version {VERSION}", hint="`cra storage export` writes such files"
            )
        missing = sorted((self._wanted or frozenset()) - frozenset(header["tenants"]))
        if missing:
            raise InvalidInput(
                f"the export has no tenant `{missing[0]}`", hint=f"it has {', '.join(header['tenants']) or 'none'}"
            )
        part, taken, tenants, sessions, known, seen = self._store, True, 0, 0, 0, 0
        revisions: dict[str, int] = {}
        documents: list[Document] = []
        while True:
            item = self._next()
            if "document" in item:
                documents.append(self._document(item["document"]))
                continue
            if taken and revisions:
                part.restore_documents(documents, revisions)
            revisions, documents = {}, []
            if "total" in item:
                if item["total"]["sessions"] != seen:
                    raise InvalidInput(f"the file ends after {seen} sessions, expected {item['total']['sessions']}")
                if next(self._items, None) is not None:
                    raise InvalidInput(
                        f"the export goes on behind its end, on line {self.number + 1}",
                        hint="import several exports one by one; what was before that line has been taken",
                    )
                return Imported(tenants=tenants, sessions=sessions, known=known)
            if "tenant" in item:
                taken = self._wanted is None or item["tenant"] in self._wanted
                part = self._store.of_tenant(item["tenant"])
                tenants += taken
            elif "revisions" in item:
                revisions = item["revisions"]
            elif "counter" in item:
                if taken:
                    part.restore_counters(self._counters(item["counter"]))
            elif "session" in item:
                seen += 1
                dump = self._dump(item)
                if not taken:
                    for _ in dump.events:
                        pass
                elif self._add(part, dump):
                    sessions += 1
                else:
                    known += 1
            else:
                raise self._wrong("is of no kind that is expected here")

    def _next(self) -> dict[str, Any]:
        item, self._held = self._held, None
        if item is None:
            try:
                self.number, line, item = next(self._items)
            except StopIteration:
                raise InvalidInput(
                    f"the file ends after line {self.number}, in the middle", hint="export it again"
                ) from None
            if "session" in item:
                self._digest = sha256()
            if "end" not in item:
                self._digest.update(line)
        return item

    def _wrong(self, words: str) -> InvalidInput:
        return InvalidInput(f"line {self.number} of the export {words}")

    def _document(self, value: dict[str, Any]) -> Document:
        body = b64decode(value["body"], validate=True)
        return convert((value["kind"], value["name"], value["revision"], body), Document)

    def _counters(self, value: dict[str, Any]) -> Iterator[CounterRecord]:
        """Yield this counter and some of those on the lines behind it."""
        for _ in range(_PAGE):
            yield _fitting(CounterRecord(**{**value, "calls_us": tuple(value["calls_us"])}))
            item = self._next()
            if "counter" not in item:
                self._held = item
                return
            value = item["counter"]
        self._held = item

    def _dump(self, item: dict[str, Any]) -> SessionDump:
        record = _fitting(session_of(dumps(item["session"]), item["actions"]))
        requests: list[str] = []
        resolutions, idempotency, approvals = [], [], []
        while True:
            item = self._next()
            if "requests" in item:
                requests += convert(item["requests"], list[str])
            elif "resolution" in item:
                resolutions.append(_fitting(resolution_of(dumps(item["resolution"]))))
            elif "idempotency" in item:
                value = item["idempotency"]
                response = None if value["response"] is None else b64decode(value["response"], validate=True)
                known = IdempotencyRecord(key=value["key"], call=value["call"], response=response)
                idempotency.append(_fitting(known))
            elif "approval" in item:
                approvals.append(_fitting(approval_of(dumps(item["approval"]))))
            else:
                self._held = item
                break
        return SessionDump(
            record, self._lines(), tuple(requests), tuple(resolutions), tuple(idempotency), tuple(approvals)
        )

    def _lines(self) -> Iterator[bytes]:
        while True:
            item = self._next()
            if "end" in item:
                if item["end"] != self._digest.hexdigest():
                    raise self._wrong("has another digest than the lines of the session before it")
                return
            if "lines" in item:
                yield item["lines"].encode()
            elif "bytes" in item:
                yield b64decode(item["bytes"], validate=True)
            else:
                raise self._wrong("is of no kind that is expected among events")

    def _add(self, part: Storage, dump: SessionDump) -> bool:
        """Add a session; False when it was there."""
        session_id = dump.record.session_id
        try:
            there = part.dump(session_id)
        except SessionNotFound:
            part.restore(dump._replace(events=Told(dump).passing()))
            return True
        if _digest(there.events) != _digest(dump.events) or _state(there) != _state(dump):
            raise SessionExists(
                f"session `{session_id}` exists already in tenant `{part.tenant}`, and is another than the export's",
                hint="import into an empty store, or leave this tenant out with --tenant",
            )
        return False


def _digest(pieces: Iterable[bytes]) -> str:
    digest = sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _state(dump: SessionDump) -> tuple[Any, ...]:
    known = sorted(dump.idempotency, key=lambda record: record.key)
    return dump.record, sorted(dump.requests), dump.resolutions, known, dump.approvals


def _fitting(record: T) -> T:
    """Return a record whose fields have the types it says; raises `ValueError`."""
    fields = structs.asdict(record)
    convert(fields, type(record))
    if any(isinstance(value, int) and not 0 <= value < _MOST for value in fields.values()):
        raise ValueError("a number is out of range")
    return record


def _read(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if len(line) > _MORE_BYTES:
            raise InvalidInput(f"line {number} of the export is longer than {_MORE_BYTES} bytes")
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            raise InvalidInput(f"line {number} of the export is not JSON") from None
        if not isinstance(item, dict):
            raise InvalidInput(f"line {number} of the export is not an object")
        yield number, line, item


def _line(name: str, value: object, **more: object) -> bytes:
    return dumps({name: value, **more}) + b"\n"


def _value(data: bytes) -> Any:
    return json.loads(data)


def _text(data: bytes) -> str:
    return b64encode(data).decode()
