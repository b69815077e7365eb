"""The ledger of a session: what it takes, what it keeps, and the lines that come out again."""

import json

import pytest

from cra._core.chain import Chain, EventBatch, lines_of, verify
from cra._core.ledger import FULL, KEPT, KNOWN, MISPLACED, Ledger, Room
from cra.errors import InvalidInput

SESSION = "018f2b4e-7e1b-7c3a-8d2e-000000000001"
TRACE = "018f2b4e-7e1b-7c3a-8d2e-000000000002"


def test_a_ledger_takes_only_the_batch_that_continues_it() -> None:
    chain, other = Chain(SESSION, TRACE), Chain(SESSION, TRACE)
    room = Room(8, 64)
    ledger = Ledger(room)
    lines = b""
    for count in (1, 3, 2):
        batch = _batch_of(chain, count)
        assert ledger.takes(chain.head, batch)
        for wrong in ("f" * 64, ""):
            assert not ledger.takes(wrong, batch) and ledger.append(wrong, batch) == MISPLACED
        ledger.add(batch, actions=1)
        assert not ledger.takes(batch.head, batch) and ledger.append(batch.head, batch) == MISPLACED
        chain.advance(batch)
        lines += batch.data
    assert _lines_of(ledger) == lines and ledger.pieces[::2] == [0, 1, 4]
    assert (ledger.sequence, ledger.head, ledger.last_us, ledger.actions) == (6, chain.head, chain.last_us, 3)
    assert room.left == 2
    late = _batch_of(other, 1)
    assert not ledger.takes(ledger.head, late)
    following = chain.begin(1_750_000_000_000_000, bytes(16))
    resumed = Ledger(room, 6, chain.head, chain.last_us, 3)
    assert resumed.takes(chain.head, following)
    ledger.close()
    assert not ledger.takes(chain.head, following) and ledger.append(chain.head, following) == MISPLACED


def test_a_ledger_refuses_what_has_no_room_or_was_asked_before_and_then_keeps_nothing() -> None:
    chain = Chain(SESSION, TRACE)
    ledger = Ledger(Room(3, 2))
    first = _batch_of(chain, 2)
    assert not ledger.knows("r1") and not ledger.knows(None)
    assert ledger.append(chain.head, first, 1, "r1", "one", 1) == KEPT
    chain.advance(first)
    held = ledger.pieces[:]
    assert ledger.append(chain.head, _batch_of(chain, 2), 1, "r2", "two", 2) == FULL
    assert ledger.append(chain.head, _batch_of(chain, 1), 1, "r1", "two", 2) == KNOWN
    assert (ledger.pieces, ledger.actions, ledger.requests, ledger.resolutions) == (held, 1, {"r1"}, {"one": 1})
    ledger.room.left = 10
    for number in (2, 3):
        batch = _batch_of(chain, 1)
        assert ledger.append(chain.head, batch, 0, f"r{number}", str(number), number) == KEPT
        chain.advance(batch)
    # The newest two.
    assert ledger.resolutions == {"2": 2, "3": 3} and ledger.knows("r1")


def test_what_a_ledger_keeps_is_short_and_becomes_the_very_lines_again() -> None:
    ledger, chain, parent = Ledger(Room(2000, 1)), Chain(SESSION, TRACE), "01890a5d-ac96-774b-bcce-b302099a8057"
    lines = b""
    # The second counts its ids over 62 bits, the third takes some between its events, the fourth has a parent.
    for number, entropy in enumerate((bytes(16), b"\xff" * 16, bytes(range(16)), bytes(16))):
        batch = chain.begin(1_750_000_000_000_000 + 1000 * number, entropy, parent if number == 3 else None)
        for _ in range(300):
            if number == 2:
                batch.new_id()
            batch.add("policy.evaluated", {"policy_id": "é" * number, "number": number})
        ledger.add(batch)
        chain.advance(batch)
        lines += batch.data
    assert verify(lines).events == 1200 and len(set(_field(lines, "event_id"))) == 1200
    assert _lines_of(ledger) == lines
    assert sum(len(kept) for kept in ledger.pieces[1::2]) * 3 < len(lines)
    assert lines_of(lines, SESSION, TRACE) is lines and lines_of(b"", SESSION, TRACE) == b""


def test_what_no_ledger_keeps_is_refused_and_not_read_beyond_its_end() -> None:
    chain = Chain(SESSION, TRACE)
    ledger = Ledger(Room(2, 1))
    ledger.add(_batch_of(chain, 2))
    (kept,) = ledger.pieces[1::2]
    for end in range(1, len(kept)):
        with pytest.raises(ValueError, match="not what a ledger keeps"):
            lines_of(kept[:end], SESSION, TRACE)
    for wrong in (kept + b"\0", b"\0\1" + kept[2:], b"\0\xff" + kept[2:], kept[:4] + b"\xff" * 4 + kept[8:]):
        with pytest.raises(ValueError, match="not what a ledger keeps"):
            lines_of(wrong, SESSION, TRACE)
    with pytest.raises(InvalidInput, match="session_id"):
        lines_of(kept, "s", TRACE)


def _lines_of(ledger: Ledger) -> bytes:
    return b"".join([lines_of(kept, SESSION, TRACE) for kept in ledger.pieces[1::2]])


def _field(lines: bytes, name: str) -> list[str]:
    return [json.loads(line)[name] for line in lines.splitlines()]


def _batch_of(chain: Chain, count: int) -> EventBatch:
    batch = chain.begin(1_750_000_000_000_000, bytes(16))
    for number in range(count):
        batch.add("action.requested", {"number": number})
    return batch
