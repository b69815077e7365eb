"""What a chain shows about tampering, on a trace of 200 events that the runtime itself wrote.

A chain shows that the events stand as they were written up to its head: nothing in between was changed, taken out, put
in or moved. It cannot show that the head is the right one: whoever can write the whole file can hash it all again from
any event on, or leave out its end. Then it is the head that differs from the one that the store, or anybody who was
told it, remembers; the last tests say so.
"""

import hashlib
import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cra._core.chain import Verifier, verify
from cra.errors import CRAError
from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.testing.clock import FixedClock, SeededIds
from specs.reference import canonical, chain

ATLAS = Path(__file__).parents[2] / "examples/atlases/customer-support"
EVENTS = 200
AGENT = "support-agent"


def _recorded() -> bytes:
    """Return the first 200 events of a session with allowed, denied, failed and waiting calls."""
    clock = FixedClock()
    with CRARuntime(RuntimeConfig(clock=clock, ids=SeededIds(7), capture_parameters="full")) as runtime:
        atlas = runtime.load_atlas(ATLAS)
        # What most actions promise to return has more in it, so that there are failures too.
        runtime.register_executor("*", lambda parameters: {"customers": []}, inline=True)
        session = runtime.create_session(AGENT, 'answer "тикет" 7', context={"channel": "mail"}).session_id
        number = 0
        while len(runtime.get_trace(session)) < EVENTS:
            number += 1
            clock.advance(us=number * 1_234_567)
            answer = runtime.resolve(session, f"refund ticket {number}", risk_tier=("low", "high")[number % 2])
            for action in atlas.manifest.actions[number % 2 :: 2]:
                with suppress(CRAError):
                    runtime.execute(session, action.action_id, action.examples[0], answer.resolution_id)
            with suppress(CRAError):
                runtime.execute(session, "ticket.undeclared", {"é": [1.5, 10**20, None]}, answer.resolution_id)
        return b"".join(runtime.get_trace(session).data.splitlines(keepends=True)[:EVENTS])


DATA = _recorded()
LINES = DATA.splitlines(keepends=True)
EVENT = [json.loads(line) for line in LINES]
STARTS = [sum(map(len, LINES[:at])) for at in range(EVENTS)]
HEADS = [chain.FIRST_HEAD, *(event["event_hash"] for event in EVENT)]
SESSION = EVENT[0]["session_id"]


def found_at(data: bytes) -> tuple[int | None, str | None]:
    verdict = verify(data)
    assert verdict.ok is (verdict.index is None)
    return verdict.index, verdict.reason


def joined(*parts: list[bytes]) -> bytes:
    return b"".join(line for part in parts for line in part)


def test_the_trace_is_intact_and_has_every_kind_of_event_that_a_session_writes() -> None:
    verdict = verify(DATA)
    assert (verdict.ok, verdict.events, verdict.head) == (True, EVENTS, HEADS[-1])
    kinds = {event["event_type"] for event in EVENT}
    assert {
        "session.started", "carp.request.received", "policy.evaluated", "context.injected", "carp.resolution.completed",
        "action.requested", "action.approved", "action.executed", "action.failed", "action.denied", "policy.violated",
        "approval.requested",
    } <= kinds  # fmt: skip


# --- every bit -------------------------------------------------------------------------------------------------------


@pytest.mark.untraced("minutes of tracing; tests/core covers the lines")
def test_every_single_bit_flip_of_200_events_is_found_at_its_event() -> None:
    """Verify every flip from its event on.

    What the verifier knows after the good events before it is their number, head, session and last time, so it can
    start there. The last time is left out: it can only add a reason to refuse.
    """
    flips = 0
    for at, line in enumerate(LINES):
        rest = LINES[at + 1] if at + 1 < EVENTS else b""
        head = HEADS[at]
        for place, byte in enumerate(line):
            before, after = line[:place], line[place + 1 :] + rest
            for bit in (1, 2, 4, 8, 16, 32, 64, 128):
                verifier = Verifier(at, head, SESSION)
                verifier.feed(b"%b%c%b" % (before, byte ^ bit, after))
                verdict = verifier.finish()
                if verdict.ok or verdict.index != 0:
                    pytest.fail(f"event {at}, byte {place}, bit {bit}: {verdict}")
                flips += 1
    assert flips == 8 * len(DATA)
    print(f"{flips} flips found")


def test_a_flip_is_found_at_the_same_event_when_the_whole_trace_is_read(seed: int) -> None:
    random = Random(seed)
    for _ in range(1500):
        place = random.randrange(len(DATA))
        broken = bytearray(DATA)
        broken[place] ^= 1 << random.randrange(8)
        at = max(number for number, start in enumerate(STARTS) if start <= place)
        verdict = verify(bytes(broken))
        assert (verdict.ok, verdict.index, verdict.events, verdict.offset) == (False, at, at, STARTS[at]), seed
        assert verdict.head == HEADS[at]
        assert verdict.message is not None
        assert verdict.message.startswith(f"event {at}: ")
        assert verdict.message.isprintable()


def test_the_reference_finds_flips_at_the_same_event_for_the_same_reason(seed: int) -> None:
    random = Random(seed)
    for _ in range(150):
        at = random.randrange(12)
        broken = bytearray(joined(LINES[: at + 2]))
        broken[STARTS[at] + random.randrange(len(LINES[at]))] ^= 1 << random.randrange(8)
        verdict = verify(bytes(broken))
        expected = chain.verify(bytes(broken))
        assert (verdict.ok, verdict.index, verdict.reason) == (False, at, expected["reason"]), seed
        assert expected["index"] == at


# --- every event -----------------------------------------------------------------------------------------------------


def test_every_deleted_event_is_missed() -> None:
    for at in range(EVENTS - 1):
        assert found_at(joined(LINES[:at], LINES[at + 1 :])) == (at, "sequence")
    for first in range(0, EVENTS - 20, 17):
        assert found_at(joined(LINES[:first], LINES[first + 13 :])) == (first, "sequence")


def test_every_two_events_that_change_places_are_found() -> None:
    for at in range(EVENTS - 1):
        assert found_at(joined(LINES[:at], [LINES[at + 1], LINES[at]], LINES[at + 2 :])) == (at, "sequence")
    assert found_at(joined(LINES[::-1])) == (0, "sequence")


def test_every_duplicated_event_is_found() -> None:
    for at in range(EVENTS):
        assert found_at(joined(LINES[: at + 1], LINES[at:])) == (at + 1, "sequence")


def test_every_event_cut_in_the_middle_is_found() -> None:
    for at, line in enumerate(LINES):
        for cut in (line[: len(line) // 2] + b"\n", line[: len(line) // 2], line[len(line) // 2 :], line[:-1]):
            assert found_at(joined(LINES[:at], [cut], LINES[at + 1 :])) == (at, "grammar")


def test_an_event_of_another_session_is_found() -> None:
    with CRARuntime(RuntimeConfig(clock=FixedClock(), ids=SeededIds(8))) as runtime:
        session = runtime.create_session(AGENT, "another").session_id
        runtime.resolve(session, "goal")
        others = runtime.get_trace(session).data.splitlines(keepends=True)
    assert verify(b"".join(others)).ok
    for at in (0, 1):
        index, reason = found_at(joined(LINES[:at], [others[at]], LINES[at + 1 :]))
        assert (index, reason) == (1, "session")
    assert found_at(joined(LINES, others)) == (EVENTS, "session")


def forged(at: int, **changed: Any) -> bytes:
    """Return an event with other fields and the right hash for them."""
    event = {**EVENT[at], **changed}
    event["event_hash"] = chain.event_hash(event)
    return chain.line(event)


def test_an_event_hashed_again_without_its_successors_breaks_the_next_link() -> None:
    for at in range(EVENTS - 1):
        forgery = forged(at, payload={**EVENT[at]["payload"], "forged": True})
        assert found_at(joined(LINES[:at], [forgery], LINES[at + 1 :])) == (at + 1, "link")


def test_an_event_put_in_is_found_however_it_is_linked() -> None:
    for at in range(1, EVENTS - 1, 7):
        between = forged(at, event_type="action.approved", payload={"action_id": "x.y"}, previous_event_hash=HEADS[at])
        assert found_at(joined(LINES[:at], [between], LINES[at:])) == (at + 1, "sequence")


def test_a_time_before_the_last_and_a_gap_in_the_numbers_are_found_even_with_right_hashes() -> None:
    early = forged(9, timestamp="2020-01-01T00:00:00.000000Z")
    assert found_at(joined(LINES[:9], [early])) == (9, "time")
    assert found_at(joined(LINES[:9], [forged(9, sequence=10)])) == (9, "sequence")
    assert found_at(joined(LINES[:9], [forged(9, previous_event_hash="0" * 64)])) == (9, "link")


# --- the joined fields cannot be cut another way ---------------------------------------------------------------------

ORDER = (
    "trace_version", "event_id", "trace_id", "span_id", "parent_span_id", "session_id", "sequence", "timestamp",
    "event_type", "payload", "previous_event_hash",
)  # fmt: skip


def raw(fields: dict[str, str], digest: str) -> bytes:
    """Lay out a line from texts as they are, whatever is in them."""
    quoted = {
        name: text
        if name in ("sequence", "payload")
        else ("null" if (name, text) == ("parent_span_id", "") else f'"{text}"')
        for name, text in fields.items()
    }
    pairs = [f'"{name}":{quoted[name]}' for name in ORDER[:-1]]
    line = ",".join([*pairs, f'"event_hash":"{digest}"', f'"previous_event_hash":{quoted["previous_event_hash"]}'])
    return ("{" + line + "}\n").encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("at", [0, 1, 10, 117, 199])
@pytest.mark.parametrize("parent", [None, "01920000-0000-7000-8000-00000000000c"])
def test_the_same_preimage_cut_at_other_places_is_refused(at: int, parent: str | None) -> None:
    event = {**EVENT[at], "parent_span_id": parent}
    digest = chain.event_hash(event)
    fields = {name: str(event[name]) for name in ORDER}
    fields["parent_span_id"] = parent or ""
    fields["payload"] = canonical.dumps(event["payload"]).decode()
    whole = "".join(fields.values())
    assert verify(raw(fields, digest), at, HEADS[at]).ok
    tried = 0
    for left, right in pairwise(ORDER):
        for shift in (-64, -37, -36, -35, -27, -2, -1, 1, 2, 27, 35, 36, 37, 64):
            both = fields[left] + fields[right]
            cut = len(fields[left]) + shift
            if not 0 <= cut <= len(both):
                continue
            moved = {**fields, left: both[:cut], right: both[cut:]}
            assert "".join(moved.values()) == whole
            verdict = verify(raw(moved, digest), at, HEADS[at])
            assert (verdict.ok, verdict.reason) == (False, "grammar"), (left, shift)
            tried += 1
    assert tried > 60
    # The parent's place: one id fewer or one more, the rest moved along.
    if parent is not None:
        swallowed = {**fields, "parent_span_id": "", "session_id": parent + fields["session_id"]}
        assert found_at(raw(swallowed, digest))[1] == "grammar"


def test_what_means_the_same_json_but_is_written_otherwise_is_refused() -> None:
    at = next(number for number, event in enumerate(EVENT) if event["event_type"] == "action.executed")
    line = LINES[at].decode()
    event = EVENT[at]
    body = line[1:-2]
    variants = [
        line.replace('":', '": ', 1),
        " " + line,
        line[:-1] + " \n",
        line[:-1] + "\r\n",
        "\ufeff" + line,
        "\n" + line,
        line.replace(event["event_id"], event["event_id"].upper()),
        line.replace(event["event_hash"], event["event_hash"].upper()),
        line.replace("action.executed", "action\\u002eexecuted"),
        line.replace('"sequence":', '"sequence":0'),
        line.replace(f'"sequence":{at}', f'"sequence":{at}.0'),
        line.replace(f'"sequence":{at}', f'"sequence":{at}e0'),
        line.replace(f'"sequence":{at}', f'"sequence":"{at}"'),
        line.replace(f'"sequence":{at}', f'"sequence":+{at}'),
        line.replace('Z","event_type"', '+00:00","event_type"'),
        line.replace('Z","event_type"', '0Z","event_type"'),
        line.replace("T", " ", 1),
        line.replace('"parent_span_id":null', '"parent_span_id":""'),
        line.replace('"trace_version":"1.0"', '"trace_version":1.0'),
        line.replace('"trace_version":"1.0"', '"trace_version":"1.1"'),
        "{" + body + ',"extra":1}\n',
        "{" + body + ',"event_type":"action.executed"}\n',
        '{"trace_version":"1.0",' + body + "}\n",
        "[" + body + "]\n",
        json.dumps(dict(sorted(event.items())), separators=(",", ":")) + "\n",
        line.replace('"payload":{', '"payload":{"action_id":"a.b",'),
        line.replace('"payload":{', '"payload":{"a":NaN,'),
        line.replace('"payload":{', '"payload":{"a":1.0,'),
        line.replace('"payload":{', '"payload":{"a":"\\u0041",'),
        line.replace('"payload":{', '"payload":{"a":"\\ud800",'),
        line.replace('"payload":{', '"payload":{"a":' + "[" * 200 + "]" * 200 + ","),
        line.replace('"payload":{', '"payload":{ '),
    ]
    for number, variant in enumerate(variants):
        assert variant != line, number
        # With the hash that this text would have: only the grammar is left to refuse it.
        payload = variant.partition('"payload":')[2].rpartition(',"event_hash"')[0]
        data = variant.replace(event["event_hash"], chain_hash(event, payload), 1).encode()
        for tried in (data, variant.encode()):
            verdict = verify(joined(LINES[:at], [tried], LINES[at + 1 :]))
            assert (verdict.index, verdict.reason) == (at, "grammar"), (number, variant[:300])


def chain_hash(event: dict[str, Any], payload: str) -> str:
    return hashlib.sha256(
        chain.preimage({**event, "payload": {}}).replace(
            b"{}" + event["previous_event_hash"].encode(), payload.encode() + event["previous_event_hash"].encode()
        )
    ).hexdigest()


# --- what a chain cannot show ----------------------------------------------------------------------------------------


def test_a_trace_hashed_again_from_a_forged_event_on_is_a_chain_with_another_head() -> None:
    for at in (0, 77, EVENTS - 1):
        events = [*EVENT[:at], {**EVENT[at], "payload": {**EVENT[at]["payload"], "forged": 1}}, *EVENT[at + 1 :]]
        again, head = [], chain.FIRST_HEAD
        for event in events:
            linked = chain.link(event, head)
            again.append(chain.line(linked))
            head = linked["event_hash"]
        verdict = verify(b"".join(again))
        assert (verdict.ok, verdict.events, verdict.head) == (True, EVENTS, head)
        # INVARIANT: whoever remembers the head sees it; and the heads agree exactly as far as the events do.
        assert head != HEADS[-1]
        assert [line == mine for line, mine in zip(again, LINES, strict=True)] == [n < at for n in range(EVENTS)]


def test_events_left_out_at_the_end_are_seen_in_the_head_only() -> None:
    for kept in (0, 1, 100, EVENTS - 1):
        verdict = verify(joined(LINES[:kept]))
        assert (verdict.ok, verdict.events, verdict.head) == (True, kept, HEADS[kept])
        assert verdict.head != HEADS[-1]
