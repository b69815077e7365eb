"""Told: what a session's events say of the state that a dump has beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from cra.errors import InvalidInput
from cra.storage.base import ApprovalRecord, SessionDump

_STARTED, _ENDED, _GRANTED = "session.started", "session.ended", "approval.granted"


class _Line(Struct):
    event_type: str
    payload: msgspec.Raw


_decoder = msgspec.json.Decoder(_Line)


class Told:
    """Holds a dump against its events, which pass through it; the stores verify their chain.

    The record says who the agent is and whether the session goes on, and an approval lets a call run: what says
    otherwise than the chain is refused. What the events do not tell is taken as it is.
    """

    def __init__(self, dump: SessionDump) -> None:
        self._dump = dump
        self._ended = False
        self._granted: set[tuple[Any, ...]] = set()

    def passing(self) -> Iterator[bytes]:
        """Yield the events as they are, and raise `InvalidInput` behind the last one when the state is another."""
        yield from self._look(self._dump.events)
        record = self._dump.record
        if self._ended != (record.status == "ended"):
            raise self._other("status", record.status, "ended" if self._ended else "active")
        for approval in self._dump.approvals:
            if approval.status in ("granted", "used") and _granted(approval) not in self._granted:
                raise self._other(f"approval {approval.approval_id}", approval.status, "that it was not granted so")

    def _look(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        held: list[bytes] = []
        for piece in pieces:
            end, found, rest = piece.rpartition(b"\n")
            if not found:
                held.append(piece)
            else:
                for line in b"".join([*held, end]).split(b"\n"):
                    if b'"session.' in line or b'"approval.granted"' in line:
                        self._read(line)
                held = [rest]
            yield piece

    def _read(self, line: bytes) -> None:
        try:
            event = _decoder.decode(line)
            if event.event_type not in (_STARTED, _ENDED, _GRANTED):
                return
            payload: Any = msgspec.json.decode(event.payload, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            return  # no event, which the chain's verifier says
        if event.event_type == _ENDED:
            self._ended = True
        elif event.event_type == _GRANTED:
            self._granted.add(tuple([_text(payload, name) for name in _BOUND]))
        else:
            for name in ("agent_id", "goal"):
                known, told = getattr(self._dump.record, name), _text(payload, name)
                if told not in (None, known):
                    raise self._other(name, known, told)

    def _other(self, name: str, found: object, told: object) -> InvalidInput:
        return InvalidInput(
            f"session `{self._dump.record.session_id}` of the export: {name} is `{found}`, its events say `{told}`",
            hint="export it again; what is in an export is not to be changed",
        )


_BOUND = ("approval_id", "action_id", "parameters_hash", "approver")


def _granted(approval: ApprovalRecord) -> tuple[Any, ...]:
    return tuple([getattr(approval, name) for name in _BOUND])


def _text(payload: dict[str, msgspec.Raw], name: str) -> object:
    return msgspec.json.decode(payload[name]) if name in payload else None
