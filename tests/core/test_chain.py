"""The hash chain: what is written, and that nothing else is accepted."""

import hashlib
import json
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cra._core.canonical import dumps
from cra._core.chain import (
    Chain,
    EventBatch,
    Verdict,
    Verifier,
    verify,
)
from cra.errors import InvalidInput, NotCanonical

SESSION = "018f2b4e-7e1b-7c3a-8d2e-000000000001"
TRACE = "018f2b4e-7e1b-7c3a-8d2e-000000000002"
PARENT = "018f2b4e-7e1b-7c3a-8d2e-000000000003"
OTHER = "018f2b4e-7e1b-7c3a-8d2e-000000000004"
NOW = 1_732_290_000_123_456
ZEROS = "0" * 64
ENTROPY = bytes(range(16))
PAYLOAD = {"text": 'é😀"\n', "n": [1, -2.5, 1e21, 10**30, None, True], "empty": {}, "list": []}


def _hash(event: dict[str, object]) -> str:
    """Hash an event by the rule of the protocol, in plain Python."""
    order = [
        "trace_version",
        "event_id",
        "trace_id",
        "span_id",
        "parent_span_id",
        "session_id",
        "sequence",
        "timestamp",
    ]
    parts = [str(event[name] if event[name] is not None else "") for name in [*order, "event_type"]]
    joined = "".join(parts) + dumps(event["payload"]).decode() + str(event["previous_event_hash"])
    return hashlib.sha256(joined.encode()).hexdigest()


def _line(payload: bytes = b"{}", **fields: str) -> bytes:
    """Lay out the first event of a session from raw texts, with the right hash for them."""
    text = {
        "event_id": OTHER,
        "trace_id": TRACE,
        "span_id": OTHER,
        "parent": "null",
        "session_id": SESSION,
        "sequence": "0",
        "timestamp": "2024-11-22T15:40:00.123456Z",
        "event_type": "session.started",
        "previous": ZEROS,
    } | fields
    parent = "" if text["parent"] == "null" else text["parent"].strip('"')
    ids = text["event_id"] + text["trace_id"] + text["span_id"] + parent + text["session_id"]
    preimage = "1.0" + ids + text["sequence"] + text["timestamp"] + text["event_type"]
    digest = hashlib.sha256(preimage.encode() + payload + text["previous"].encode()).hexdigest()
    return (
        (
            f'{{"trace_version":"1.0","event_id":"{text["event_id"]}","trace_id":"{text["trace_id"]}",'
            f'"span_id":"{text["span_id"]}","parent_span_id":{text["parent"]},"session_id":"{text["session_id"]}",'
            f'"sequence":{text["sequence"]},"timestamp":"{text["timestamp"]}","event_type":"{text["event_type"]}","payload":'
        ).encode()
        + payload
        + f',"event_hash":"{digest}","previous_event_hash":"{text["previous"]}"}}\n'.encode()
    )


def _trace(batches: int = 5, per_batch: int = 2) -> bytes:
    chain = Chain(SESSION, TRACE)
    lines = []
    for i in range(batches):
        batch = chain.begin(NOW + i, bytes([i % 256]) * 16, PARENT if i % 2 else None)
        for j in range(per_batch):
            batch.add("action.requested", {"i": i, "j": j, "text": 'é"\n', "f": 0.5})
        chain.advance(batch)
        lines.append(batch.data)
    return b"".join(lines)


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", [None, PARENT])
def test_every_line_has_the_fields_in_order_and_the_hash_of_the_protocol(parent: str | None) -> None:
    chain = Chain(SESSION, TRACE)
    previous, sequence = ZEROS, 0
    for i in range(4):
        batch = chain.begin(NOW + i, ENTROPY, parent)
        batch.add("session.started", PAYLOAD)
        batch.add_canonical("action.executed", dumps(PAYLOAD))
        assert batch.data.endswith(b"\n")
        for line in batch.data.splitlines():
            event = json.loads(line)
            assert list(event) == [
                "trace_version", "event_id", "trace_id", "span_id", "parent_span_id", "session_id", "sequence",
                "timestamp", "event_type", "payload", "event_hash", "previous_event_hash",
            ]  # fmt: skip
            assert b'"payload":' + dumps(PAYLOAD) + b',"event_hash":"' in line
            assert (event["session_id"], event["trace_id"], event["parent_span_id"]) == (SESSION, TRACE, parent)
            assert (event["span_id"], event["timestamp"]) == (batch.span_id, batch.timestamp)
            assert (event["sequence"], event["previous_event_hash"]) == (sequence, previous)
            assert event["event_hash"] == _hash(event)
            previous, sequence = event["event_hash"], sequence + 1
        assert (batch.count, batch.head) == (2, previous)
        chain.advance(batch)
        assert (chain.head, chain.sequence, chain.last_us) == (previous, sequence, NOW + i)


@given(st.binary(min_size=16, max_size=20), st.integers(0, 253402300799999999))
@example(b"\x00\x00" + b"\xff" * 14, NOW)
@example(b"\xff" * 16, NOW)
def test_ids_are_version_7_and_count_up_by_one_from_the_entropy(entropy: bytes, now_us: int) -> None:
    batch = Chain(SESSION, TRACE).begin(now_us, entropy)
    first = batch.new_id()
    batch.add("a.b", {})
    last = batch.new_id()
    ids = [batch.span_id, first, json.loads(batch.data)["event_id"], last]
    number = int.from_bytes(entropy[:10], "big") % 2**73
    for i, text in enumerate(ids):
        value = uuid.UUID(text)
        assert text == str(value)
        assert (value.version, value.variant) == (7, uuid.RFC_4122)
        assert value.int >> 80 == now_us // 1000
        assert (value.int >> 64 & 0xFFF) << 62 | value.int & (2**62 - 1) == number + i


@given(st.integers(0, 253402300799999999))
@example(0)
@example(951782400_000000)  # 2000-02-29
@example(4107542399_999999)  # the last moment of 2100-02-28, in a year that does not leap
@example(4107542400_000000)
@example(253402300799_999999)
def test_the_timestamp_is_the_calendar_time(now_us: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us)
    batch = Chain(SESSION, TRACE).begin(now_us, ENTROPY)
    assert batch.timestamp == moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    batch.add("a.b", {})
    assert verify(batch.data)


def test_a_clock_that_goes_back_repeats_the_last_time() -> None:
    chain = Chain(SESSION, TRACE, last_us=NOW)
    batch = chain.begin(NOW - 5_000_000, ENTROPY)
    assert batch.now_us == NOW
    assert int(batch.span_id[:8] + batch.span_id[9:13], 16) == NOW // 1000


@pytest.mark.parametrize("broken", [{"a": 1, "b": [float("nan")]}, {"x": "\ud800"}, {"x": object()}])
def test_an_event_that_fails_leaves_the_batch_as_it_was(broken: dict[str, object]) -> None:
    clean, failed = (Chain(SESSION, TRACE).begin(NOW, ENTROPY) for _ in range(2))
    for batch in (clean, failed):
        for i in range(3):
            if batch is failed:
                with pytest.raises(NotCanonical):
                    batch.add("action.requested", broken)
                with pytest.raises(ValueError, match="event type"):
                    batch.add("Not a type", {})
                with pytest.raises(ValueError, match="payload"):
                    batch.add_canonical("a.b", b"[]")
                assert batch.count == i
            batch.add("action.requested", {"i": i})
    assert failed.data == clean.data
    assert failed.head == clean.head
    assert failed.new_id() == clean.new_id()


def test_an_empty_batch_has_no_bytes_and_the_head_of_its_chain() -> None:
    chain = Chain(SESSION, TRACE, 7, "ab" * 32)
    batch = chain.begin(NOW, ENTROPY)
    assert (batch.data, batch.count, batch.first_sequence) == (b"", 0, 7)
    assert batch.head == batch.previous_head == chain.head == "ab" * 32


def test_the_data_grows_with_events_added_after_it_was_read() -> None:
    batch = Chain(SESSION, TRACE).begin(NOW, ENTROPY)
    batch.add("a.b", {})
    first = batch.data
    assert batch.data is first
    batch.add("a.b", {})
    assert batch.data.startswith(first)
    assert verify(batch.data).events == 2


def test_a_chain_only_advances_by_a_batch_that_begins_at_its_head() -> None:
    chain = Chain(SESSION, TRACE)
    batch, rival = chain.begin(NOW, ENTROPY), chain.begin(NOW, ENTROPY)
    batch.add("a.b", {})
    rival.add("a.b", {"other": 1})
    chain.advance(batch)
    for stale in (batch, rival):
        with pytest.raises(ValueError, match="begins at event 0, expected one that begins at the head"):
            chain.advance(stale)
    with pytest.raises(ValueError, match="begins at event"):
        Chain(SESSION, TRACE, 1, ZEROS).advance(chain.begin(NOW, ENTROPY))
    with pytest.raises(ValueError, match="another session"):
        Chain(OTHER, TRACE, 1, batch.head).advance(chain.begin(NOW, ENTROPY))
    assert (chain.head, chain.sequence) == (batch.head, 1)


def test_a_chain_resumes_from_a_stored_head() -> None:
    first = Chain(SESSION, TRACE)
    batch = first.begin(NOW, ENTROPY)
    batch.add("a.b", {})
    first.advance(batch)
    resumed = Chain(SESSION, TRACE, first.sequence, first.head, first.last_us)
    again = resumed.begin(NOW + 1, ENTROPY)
    again.add("a.b", {})
    assert verify(batch.data + again.data).events == 2


def test_large_and_many_events_survive_the_growth_of_the_buffers() -> None:
    batch = Chain(SESSION, TRACE).begin(NOW, ENTROPY)
    for i in range(200):
        batch.add("a.b", {"text": "x" * (i * 97 % 5000), "keys": {f"k{j}": j for j in range(i)}})
    batch.add_canonical("a.b", dumps({"large": "é" * 300_000}))
    verdict = verify(batch.data)
    assert (verdict.ok, verdict.events, verdict.head) == (True, 201, batch.head)


def test_an_idle_chain_takes_less_than_400_bytes() -> None:
    chain = Chain(str(uuid.UUID(SESSION)), str(uuid.UUID(TRACE)))
    assert sys.getsizeof(chain) + sys.getsizeof(chain.session_id) + sys.getsizeof(chain.trace_id) < 400


@pytest.mark.parametrize("bad", ["", SESSION.upper(), SESSION[:-1], SESSION + "0", SESSION.replace("-", "0"), "é" * 18])
def test_an_id_that_is_not_a_lower_case_uuid_is_refused(bad: str) -> None:
    for make in (
        lambda: Chain(bad, TRACE),
        lambda: Chain(SESSION, bad),
        lambda: Chain(SESSION, TRACE).begin(NOW, ENTROPY, bad),
        lambda: Verifier(session_id=bad),
    ):
        with pytest.raises(InvalidInput, match="expected a lower-case UUID of 36 characters"):
            make()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Chain(SESSION, TRACE, -1), InvalidInput, "sequence is `-1`"),
        (lambda: Chain(SESSION, TRACE, 0, "0" * 63), InvalidInput, "expected 64 lower-case hex digits"),
        (lambda: Chain(SESSION, TRACE, 0, "A" * 64), InvalidInput, "expected 64 lower-case hex digits"),
        (lambda: Chain(SESSION, TRACE, 0, ZEROS, -1), InvalidInput, "time is `-1`"),
        (lambda: Chain(SESSION, TRACE).begin(253402300800000000, ENTROPY), InvalidInput, "between 1970 and 9999"),
        (lambda: Chain(SESSION, TRACE).begin(NOW, b"short"), ValueError, "entropy has 5 bytes"),
        (lambda: Verifier(-1), InvalidInput, "start_sequence is `-1`"),
        (lambda: Verifier(0, "é" * 64), InvalidInput, "expected 64 lower-case hex digits"),
        (lambda: Verifier(0, "x"), InvalidInput, "expected 64 lower-case hex digits"),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_the_doors_refuse_none_and_direct_construction() -> None:
    batch = Chain(SESSION, TRACE).begin(NOW, ENTROPY)
    for call in (
        lambda: Chain(None, TRACE),  # type: ignore[arg-type]
        lambda: batch.add(None, {}),  # type: ignore[arg-type]
        lambda: batch.add("a.b", None),  # type: ignore[arg-type]
        lambda: batch.add_canonical("a.b", None),  # type: ignore[arg-type]
        lambda: verify(None),  # type: ignore[arg-type]
        lambda: Verifier().feed(None),  # type: ignore[arg-type]
        lambda: Chain(SESSION, TRACE).advance(None),  # type: ignore[arg-type]
        EventBatch,
        Verdict,
    ):
        with pytest.raises(TypeError):
            call()


# --- verifying -------------------------------------------------------------------------------------------------------


def test_an_intact_trace_verifies_and_says_where_it_ends() -> None:
    data = _trace()
    verdict = verify(data)
    assert verdict
    assert (verdict.ok, verdict.events, verdict.index, verdict.reason) == (True, 10, None, None)
    assert (verdict.message, verdict.offset) == (None, None)
    assert (verdict.session_id, verdict.trace_id) == (SESSION, TRACE)
    assert verdict.head == json.loads(data.splitlines()[-1])["event_hash"]


def test_no_bytes_are_an_intact_trace_of_no_events() -> None:
    verdict = verify(b"")
    assert (verdict.ok, verdict.events, verdict.head) == (True, 0, ZEROS)
    assert (verdict.session_id, verdict.trace_id) == (None, None)


@pytest.mark.untraced("minutes of tracing, and no line that other tests leave out")
def test_every_single_flipped_bit_is_found_at_its_event() -> None:
    data = _trace()
    lines = data.splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    reasons = set()
    for i, start in enumerate(starts):
        for at in range(start, start + len(lines[i])):
            for bit in range(8):
                broken = bytearray(data)
                broken[at] ^= 1 << bit
                verdict = verify(bytes(broken))
                assert (verdict.ok, verdict.index, verdict.offset, verdict.events) == (False, i, start, i), (at, bit)
                assert verdict.message is not None and verdict.message.startswith(f"event {i}: ")
                reasons.add(verdict.reason)
    assert reasons == {"hash", "link", "sequence", "grammar", "time", "session"}


def _flipped(lines: list[bytes], index: int, old: bytes, new: bytes) -> bytes:
    assert old in lines[index]
    return b"".join([*lines[:index], lines[index].replace(old, new, 1), *lines[index + 1 :]])


def test_the_reason_names_what_broke() -> None:
    lines = _trace().splitlines(keepends=True)
    second = json.loads(lines[2])
    late, early = (str(second["timestamp"]).replace("40:00", with_).encode() for with_ in ("41:00", "39:00"))
    time = str(second["timestamp"]).encode()
    previous, own = (str(second[name]).encode() for name in ("previous_event_hash", "event_hash"))
    cases = {
        "payload": (b'"i":1', b'"i":2', "hash"),
        "own hash": (own, own[::-1], "hash"),
        "later time": (time, late, "hash"),
        "earlier time": (time, early, "time"),
        "link": (previous, previous[::-1], "link"),
        "sequence": (b'"sequence":2', b'"sequence":3', "sequence"),
        "session": (SESSION.encode(), OTHER.encode(), "session"),
        "order of keys": (b'{"f":0.5,"i":1,', b'{"i":1,"f":0.5,', "grammar"),
        "number": (b"0.5", b"5e-1", "grammar"),
        "white space": (b'"i":1', b'"i": 1', "grammar"),
    }
    for name, (old, new, reason) in cases.items():
        verdict = verify(_flipped(lines, 2, old, new))
        assert (verdict.index, verdict.reason) == (2, reason), name
    assert not verify(_flipped(lines, 2, b'"i":1', b'"i":2'))


def test_missing_repeated_and_exchanged_events_are_found_where_they_first_matter() -> None:
    lines = _trace().splitlines(keepends=True)
    for order, index in [
        ([1, 2, 3], 0),
        ([0, 2, 3], 1),
        ([0, 1, 1, 2], 2),
        ([0, 2, 1, 3], 1),
        ([0, 1, 2, 3, 0, 1], 4),
    ]:
        verdict = verify(b"".join(lines[i] for i in order))
        assert (verdict.index, verdict.reason, verdict.events) == (index, "sequence", index)


def test_an_event_that_was_changed_and_hashed_again_breaks_the_link_of_the_next() -> None:
    lines = _trace().splitlines(keepends=True)
    event = json.loads(lines[3])
    event["payload"]["i"] = 99
    event["event_hash"] = _hash(event)
    forged = b'{"trace_version"' + json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()[16:] + b"\n"
    forged = forged.replace(json.dumps(event["payload"], separators=(",", ":"), ensure_ascii=False).encode(),
                            dumps(event["payload"]))  # fmt: skip
    verdict = verify(b"".join([*lines[:3], forged, *lines[4:]]))
    assert (verdict.index, verdict.reason) == (4, "link")
    assert verdict.message is not None
    assert event["event_hash"] in verdict.message


def test_a_truncated_last_line_is_grammar_and_a_missing_one_is_seen_in_the_head() -> None:
    data = _trace()
    lines = data.splitlines(keepends=True)
    for cut in (1, 2, 70, len(lines[-1]) - 1):
        verdict = verify(data[:-cut])
        assert (verdict.index, verdict.reason, verdict.offset) == (9, "grammar", len(data) - len(lines[-1]))
    shorter = verify(b"".join(lines[:-1]))
    assert (shorter.ok, shorter.events) == (True, 9)
    assert shorter.head != verify(data).head


@given(st.lists(st.integers(1, 900), max_size=30), st.booleans())
def test_the_verdict_does_not_depend_on_how_the_bytes_are_cut(sizes: list[int], broken: bool) -> None:
    data = _trace()
    if broken:
        data = data[:5000] + b"x" + data[5001:]
    verifier = Verifier()
    at = 0
    for size in sizes:
        verifier.feed(data[at : at + size])
        at += size
    well = verifier.feed(data[at:])
    verdict, whole = verifier.finish(), verify(data)
    assert well is verdict.ok
    names = ("ok", "events", "index", "reason", "message", "offset", "head", "session_id", "trace_id")
    assert [getattr(verdict, name) for name in names] == [getattr(whole, name) for name in names]
    assert verifier.finish() is verdict
    with pytest.raises(ValueError, match="has given its verdict"):
        verifier.feed(b"")


def test_a_trace_is_verified_in_parts_from_a_known_head() -> None:
    lines = _trace().splitlines(keepends=True)
    first = verify(b"".join(lines[:4]))
    rest = verify(b"".join(lines[4:]), 4, first.head)
    assert (rest.ok, rest.events, rest.head) == (True, 6, verify(b"".join(lines)).head)
    assert verify(b"".join(lines[4:]), 4).reason == "link"
    assert verify(b"".join(lines[4:]), 5, first.head).reason == "sequence"
    other = Verifier(4, first.head, OTHER)
    assert not other.feed(lines[4])
    assert other.finish().reason == "session"


# --- grammar: every field has one form, so the joined preimage has one reading ---------------------------------------


def test_the_hand_made_line_is_good() -> None:
    assert verify(_line())
    assert verify(_line(parent=f'"{PARENT}"'))
    assert verify(_line(b'{"a":[1,{"b":null}]}'))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event_id", OTHER.upper()),
        ("event_id", "{" + OTHER[1:]),
        ("event_id", OTHER.replace("-", "")),
        ("trace_id", TRACE + "0"),
        ("span_id", ""),
        ("parent", f'"{PARENT[:-1]}"'),
        ("parent", '""'),
        ("parent", "nul"),
        ("session_id", SESSION[:-1]),
        ("sequence", "00"),
        ("sequence", "-0"),
        ("sequence", "0.0"),
        ("sequence", "+0"),
        ("sequence", ""),
        ("sequence", '"0"'),
        ("timestamp", "2024-11-22T15:40:00.123456"),
        ("timestamp", "2024-11-22T15:40:00.12345Z"),
        ("timestamp", "2024-11-22 15:40:00.123456Z"),
        ("timestamp", "2024-11-22T15:40:00.123456z"),
        ("timestamp", "2024-13-22T15:40:00.123456Z"),
        ("timestamp", "2024-00-22T15:40:00.123456Z"),
        ("timestamp", "2024-11-31T15:40:00.123456Z"),
        ("timestamp", "2024-11-00T15:40:00.123456Z"),
        ("timestamp", "2023-02-29T15:40:00.123456Z"),
        ("timestamp", "2100-02-29T15:40:00.123456Z"),
        ("timestamp", "0000-11-22T15:40:00.123456Z"),
        ("timestamp", "2024-11-22T24:00:00.000000Z"),
        ("timestamp", "2024-11-22T15:60:00.000000Z"),
        ("timestamp", "2024-11-22T15:40:60.000000Z"),
        ("timestamp", "2024-11-22T15:40:00.12345-Z"),
        ("event_type", "session"),
        ("event_type", ""),
        ("event_type", "session."),
        ("event_type", ".started"),
        ("event_type", "session..started"),
        ("event_type", "session._started"),
        ("event_type", "Session.started"),
        ("event_type", "session.started2"),
        ("event_type", 'session.started{"a":1}'),
        ("event_type", "a." + "b" * 63),
        ("previous", "0" * 63),
        ("previous", "0" * 65),
        ("previous", "A" * 64),
    ],
)
def test_a_field_outside_its_grammar_is_refused_though_its_hash_is_right(name: str, value: str) -> None:
    verdict = verify(_line(b"{}", **{name: value}))
    assert (verdict.index, verdict.reason) == (0, "grammar"), verdict.message


@pytest.mark.parametrize(
    "timestamp", ["2024-02-29T00:00:00.000000Z", "2000-02-29T23:59:59.999999Z", "0001-01-01T00:00:00.000000Z"]
)
def test_a_day_that_is_in_the_calendar_is_accepted(timestamp: str) -> None:
    assert verify(_line(timestamp=timestamp))


@pytest.mark.parametrize("event_type", ["a.b", "carp.request.received", "a_b.c_", "a." + "b" * 62])
def test_an_event_type_of_the_grammar_is_accepted_and_written(event_type: str) -> None:
    assert verify(_line(event_type=event_type))
    batch = Chain(SESSION, TRACE).begin(NOW, ENTROPY)
    batch.add(event_type, {})
    assert verify(batch.data)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"null", "an object"),
        (b"[]", "an object"),
        (b"", "an object"),
        (b'{"a":1,"a":1}', "a key that sorts after"),
        (b'{"b":1,"a":1}', "a key that sorts after"),
        ('{"\ufb33":1,"😀":1}'.encode(), "a key that sorts after"),
        (b'{"!":1,"\\u001f":1}', "a key that sorts after"),
        (b'{"\\\\":1,"Z":1}', "a key that sorts after"),
        (b'{"a":1,}', "text"),
        (b'{"a":1 }', "`,` or `}`"),
        (b'{"a" :1}', "`:`"),
        (b'{"a":[1,]}', "a value"),
        (b'{"a":[1;2]}', "`,` or `]`"),
        (b'{"a":01}', "leading zeros"),
        (b'{"a":-0}', "`0` for zero"),
        (b'{"a":-}', "a value"),
        (b'{"a":+1}', "a value"),
        (b'{"a":1.0}', "shortest"),
        (b'{"a":1e5}', "shortest"),
        (b'{"a":1E400}', "`,` or `}`"),
        (b'{"a":1e400}', "shortest"),
        (b'{"a":0.10}', "shortest"),
        (b'{"a":1.}', "a number"),
        (b'{"a":1e}', "a number"),
        (b'{"a":1e-7e}', "a number"),
        (b'{"a":0.1000000000000000055511151231257827}', "shortest"),
        (b'{"a":NaN}', "a value"),
        (b'{"a":True}', "a value"),
        (b'{"a":nul}', "`null`"),
        (b'{"a":"\\/"}', "shortest escape"),
        (b'{"a":"\\u0041"}', "shortest escape"),
        (b'{"a":"\\u000a"}', "shortest escape"),
        (b'{"a":"\\u001F"}', "shortest escape"),
        (b'{"a":"\\u00e9"}', "shortest escape"),
        (b'{"a":"\\x"}', "shortest escape"),
        (b'{"a":"\t"}', "an escape for the control character"),
        (b'{"a":"\xff"}', "valid UTF-8"),
        (b'{"a":"\xc0\x80"}', "valid UTF-8"),
        (b'{"a":"\xc3"}', "valid UTF-8"),
        (b'{"a":"\xe0\x80\x80"}', "valid UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "valid UTF-8"),
        (b'{"a":"\xf0\x80\x80\x80"}', "valid UTF-8"),
        (b'{"a":"\xf4\x90\x80\x80"}', "valid UTF-8"),
        (b'{"a":"\xf5\x80\x80\x80"}', "valid UTF-8"),
        (b'{"a":' + b"[" * 128 + b"]" * 128 + b"}", "at most 128 levels"),
        (b'{"a":' * 129 + b"1" + b"}" * 129, "at most 128 levels"),
        (b'{"a":' * 100_000, "at most 128 levels"),
        (b'{},"event_hash":"x"', "64 lower-case hex digits"),
        (b'{},"extra":1', '`,"event_hash":"`'),
    ],
)
def test_a_payload_that_is_not_canonical_is_refused_and_the_message_says_why(payload: bytes, expected: str) -> None:
    verdict = verify(_line(payload))
    assert (verdict.index, verdict.reason) == (0, "grammar")
    assert verdict.message is not None
    assert f"expected {expected}" in verdict.message or expected in verdict.message
    assert "\n" not in verdict.message
    assert " at byte " in verdict.message


def test_a_payload_of_128_levels_is_written_and_verified() -> None:
    value: object = 1
    for _ in range(127):
        value = [value]
    batch = Chain(SESSION, TRACE).begin(NOW, ENTROPY)
    batch.add("a.b", {"deep": value})
    assert verify(batch.data)


def test_every_escape_that_is_written_is_accepted() -> None:
    batch = Chain(SESSION, TRACE).begin(NOW, ENTROPY)
    controls = "".join(map(chr, range(0x20))) + '"\\\x7f'
    batch.add("a.b", {controls: controls} | {c + "key": [c] for c in controls})
    assert verify(batch.data)


def test_a_line_cut_at_any_byte_and_ended_there_is_grammar() -> None:
    line = _line('{"a":"é\\n\\u0001😀","b":[1,-2.5e-7,true],"c":{}}'.encode(), parent=f'"{PARENT}"')
    for cut in range(len(line) - 1):
        verdict = verify(line[:cut] + b"\n")
        assert (verdict.index, verdict.reason, verdict.offset) == (0, "grammar", 0), cut


def test_a_long_trace_is_verified_in_one_go() -> None:
    data = _trace(batches=3000, per_batch=1)
    verdict = verify(data)
    assert (verdict.ok, verdict.events) == (True, 3000)


def test_what_is_printed_says_what_it_is() -> None:
    chain = Chain(SESSION, TRACE)
    assert repr(chain) == f"Chain(session_id='{SESSION}', sequence=0, head='{ZEROS}')"
    assert repr(chain.begin(NOW, ENTROPY)) == f"EventBatch(first_sequence=0, count=0, head='{ZEROS}')"
    assert repr(verify(b"")) == f"Verdict(ok=True, events=0, head='{ZEROS}')"
    assert repr(verify(b"x")) == (
        "Verdict(ok=False, events=0, index=0, reason='grammar', offset=0, "
        "message='event 0: line ends after 1 bytes, expected a line feed')"
    )


def test_bytes_before_between_and_after_events_are_refused() -> None:
    line = _line()
    for data in (
        b"\n" + line,
        b" " + line,
        line[:-1] + b" \n",
        line[:-1] + b"\r\n",
        b"\xef\xbb\xbf" + line,
        line + b"\n",
    ):
        assert verify(data).reason == "grammar"
    assert verify(_line().replace(b'"1.0"', b'"1.1"')).reason == "grammar"


SCALARS = """0 -1 1.5 1e+21 1E5 -0 0.1 10 1e-7 null true "" "a" "\\n" "\\u000b" "\\u0061" "é" "😀" 1.0
5e-324 1e+20 0.25 1e-6 123456789012345678901234567890 100000000000000000000""".encode().split()
KEYS = """"a" "b" "aa" "\\n" "!" "\\"" "é" "😀" "\uffff\"""".encode().split()
JSON_BYTES = st.recursive(
    st.sampled_from(SCALARS),
    lambda child: (
        st.lists(child, max_size=3).map(lambda items: b"[" + b",".join(items) + b"]")
        | st.lists(st.tuples(st.sampled_from(KEYS), child).map(b":".join), max_size=4).map(
            lambda members: b"{" + b",".join(members) + b"}"
        )
    ),
    max_leaves=8,
)


@given(JSON_BYTES)
def test_a_payload_is_accepted_exactly_if_writing_what_it_says_gives_its_bytes(value: bytes) -> None:
    payload = b'{"p":' + value + b"}"
    assert verify(_line(payload)).ok is (dumps(json.loads(payload)) == payload)


@given(st.integers(0, 60), st.sampled_from(list(b'0123456789.eE+-"\\u{}[],: nultrefas\x00\x80\xc3\xa9')))
def test_a_changed_byte_in_a_payload_is_accepted_exactly_if_it_stays_canonical(at: int, byte: int) -> None:
    payload = bytearray(b'{"a":[0,-1.5,"x\\n\xc3\xa9"],"b":{"c":null,"d":1e+21},"e":12345678}')
    payload[1 + at % (len(payload) - 2)] = byte
    try:
        canonical = dumps(json.loads(payload)) == payload
    except (ValueError, NotCanonical):
        canonical = False
    assert verify(_line(bytes(payload))).ok is canonical


def test_a_payload_that_is_just_as_long_as_there_is_room_for_stays_in_it() -> None:
    # Every length around what the buffer begins with and grows to; the sanitizer's build sees a byte beyond.
    for length in (*range(600, 1100), *range(3700, 4200)):
        payload = {"a": "x" * length}
        written, given = (Chain(SESSION, TRACE).begin(1_750_000_000_000_000, bytes(16)) for _ in range(2))
        written.add("a.b", payload)
        given.add_canonical("a.b", dumps(payload))
        assert given.data == written.data
