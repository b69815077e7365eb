"""Cases of canonical JSON, of hashes, and of good and bad chains."""

# ruff: noqa: E501 - a case reads best on few lines

import hashlib
from collections.abc import Callable
from typing import Any

from specs.conformance.cases.make import REQUEST, SESSION, TRACE, Json, action, atlas, pack, request, rule
from specs.reference import chain

# (id, why, JSON text, canonical text)
CANONICAL: list[tuple[str, str, str, str]] = [
    ("null", "literals are themselves", "null", "null"),
    ("true", "literals are themselves", " true ", "true"),
    ("whitespace", "no white space is written", '{ "a" : [ 1 , 2 ] }', '{"a":[1,2]}'),
    ("empty", "empty containers", '[{},[],""]', '[{},[],""]'),
    ("key-order", "keys are sorted", '{"b":1,"a":2,"":3}', '{"":3,"a":2,"b":1}'),
    ("key-order-prefix", "a prefix comes first", '{"ab":1,"a":2}', '{"a":2,"ab":1}'),
    ("key-order-case", "capital letters come before small ones", '{"a":1,"B":2}', '{"B":2,"a":1}'),
    ("key-order-digits", "keys are text: 10 comes before 2", '{"2":1,"10":2}', '{"10":2,"2":1}'),
    ("key-order-utf16", "UTF-16 code units, not code points: U+1F600 comes before U+FB33",
     '{"\\ufb33":1,"\\ud83d\\ude00":2}', '{"😀":2,"\ufb33":1}'),
    ("key-order-rfc8785", "the sorting example of RFC 8785, section 3.2.3",
     '{"\\u20ac":"Euro Sign","\\r":"Carriage Return","\\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",'
     '"\\ud83d\\ude00":"Emoji: Grinning Face","\\u0080":"Control","\\u00f6":"Latin Small Letter O With Diaeresis"}',
     '{"\\r":"Carriage Return","1":"One","\x80":"Control","ö":"Latin Small Letter O With Diaeresis",'
     '"€":"Euro Sign","😀":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}'),
    ("rfc8785-example", "the example of RFC 8785, section 3.2.2, as a double is written",
     '{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],'
     '"string":"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/","literals":[null,true,false]}',
     '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
     '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'),
    ("nested-order", "every object is sorted, arrays are not", '[{"b":[{"d":1,"c":2}],"a":0}]', '[{"a":0,"b":[{"c":2,"d":1}]}]'),
    ("escape-short", "the short escapes", '"\\u0008\\u0009\\u000a\\u000c\\u000d"', '"\\b\\t\\n\\f\\r"'),
    ("escape-control", "other control characters, in small hexadecimal", '"\\u0000\\u001F"', '"\\u0000\\u001f"'),
    ("escape-not-needed", "a slash, DEL and U+2028 stand for themselves", '"\\/\\u007f\\u2028\\u2029"', '"/\x7f\u2028\u2029"'),
    ("escape-surrogate-pair", "an escaped pair becomes one character", '"\\ud83d\\ude00"', '"😀"'),
    ("no-normalisation", "composed and decomposed letters stay as they are", '["\\u00e9","e\\u0301"]', '["é","e\u0301"]'),
    ("integer-zero", "zero", "0", "0"),
    ("integer-minus-zero", "minus zero as an integer", "-0", "0"),
    ("integer-2-53-plus-1", "no double holds it; integers are exact", "9007199254740993", "9007199254740993"),
    ("integer-2-64", "one more than 64 bits", "18446744073709551616", "18446744073709551616"),
    ("integer-1e21-digits", "an integer of 22 digits is written out, the double 1e21 is not", "1000000000000000000000",
     "1000000000000000000000"),
    ("integer-100-digits", "any size", "-" + "1234567890" * 10, "-" + "1234567890" * 10),
    ("integer-4300-digits", "as long as an implementation must read them", "9" * 4300, "9" * 4300),
    ("double-1.0", "a double without a fraction", "1.0", "1"),
    ("double-minus-zero", "minus zero", "-0.0", "0"),
    ("double-1e2", "an exponent makes it a double", "1e2", "100"),
    ("double-1e20", "the largest power written out", "1e20", "100000000000000000000"),
    ("double-1e21", "the first with an exponent", "1e21", "1e+21"),
    ("double-1e-6", "the smallest written out", "0.000001", "0.000001"),
    ("double-1e-7", "the first with a negative exponent", "0.0000001", "1e-7"),
    ("double-shortest", "the shortest digits that read back the same", "0.1000000000000000055511151231257827", "0.1"),
    ("double-5e-324", "the smallest there is", "5e-324", "5e-324"),
    ("double-underflow", "what is closer to zero is zero", "1e-400", "0"),
    ("double-max", "the largest there is", "1.7976931348623157e308", "1.7976931348623157e+308"),
    ("double-tie", "ties go to the even digit, as in ECMAScript", "1424953923781206.25", "1424953923781206.2"),
    ("depth-128", "128 containers inside each other", "[" * 128 + "]" * 128, "[" * 128 + "]" * 128),
    ("depth-in-objects", "objects count like arrays", '{"a":' * 128 + "0" + "}" * 128, '{"a":' * 128 + "0" + "}" * 128),
]  # fmt: skip

# (id, why, JSON text, pointer of the place or None where the text is not JSON at all)
REFUSED: list[tuple[str, str, str, str | None]] = [
    ("lone-high-surrogate", "a lone surrogate has no UTF-8 form", '{"a":["x","\\ud800"]}', "/a/1"),
    ("lone-low-surrogate", "nor has a low one", '"\\udc00x"', ""),
    ("swapped-surrogates", "a pair the wrong way round is two lone ones", '"\\ude00\\ud83d"', ""),
    ("lone-surrogate-key", "in a key: the place is the object", '{"a":{"\\ud800":1}}', "/a"),
    ("overflow", "a number beyond the doubles would be an infinity", '{"a/b":{"~":1e400}}', "/a~1b/~0"),
    ("depth-129", "129 containers inside each other", "[" * 129 + "]" * 129, "/0" * 128),
    ("duplicate-key", "two readers could take two different values", '{"a":1,"a":1}', None),
    ("duplicate-key-escaped", "the same key written differently", '{"a":1,"\\u0061":2}', None),
    ("nan", "NaN is not JSON", "[NaN]", None),
    ("infinity", "nor are infinities", "[-Infinity]", None),
    ("trailing-comma", "nor are trailing commas", "[1,]", None),
    ("leading-zero", "nor leading zeros", "[01]", None),
    ("leading-plus", "nor a plus", "[+1]", None),
    ("bare-point", "nor a bare point", "[1.]", None),
    ("single-quotes", "nor single quotes", "['a']", None),
    ("raw-control", "control characters are escaped in JSON", '"\n"', None),
    ("comment", "there are no comments", "[1/**/]", None),
    ("two-values", "one text is one value", "1 2", None),
    ("empty-text", "no text is no value", "", None),
]

# RFC 8785, appendix B: the bits of a double and what is written; None where it is refused.
DOUBLES: list[tuple[str, str | None]] = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("7fffffffffffffff", None),
    ("7ff0000000000000", None),
    ("fff0000000000000", None),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]

# Texts that stand for a value but are not the canonical text of it; a chain with one of them is refused.
NOT_CANONICAL: list[tuple[str, str, str]] = [
    ("space", "a space", '{"a": 1}'),
    ("unsorted", "keys out of order", '{"b":1,"a":1}'),
    ("code-point-order", "keys in code point order", '{"\ufb33":1,"😀":2}'),
    ("escaped-slash", "an escape that is not needed", '{"a":"\\/"}'),
    ("escaped-letter", "an escape that is not needed", '{"a":"\\u0041"}'),
    ("escaped-long", "a long escape where there is a short one", '{"a":"\\u000a"}'),
    ("escaped-capital", "capital hexadecimal digits", '{"a":"\\u001F"}'),
    ("escaped-non-ascii", "an escaped character that stands for itself", '{"a":"\\u00e9"}'),
    ("double-with-point", "1.0 is written 1", '{"a":1.0}'),
    ("double-exponent", "1e2 is written 100", '{"a":1e2}'),
    ("double-capital", "a capital E", '{"a":1E+21}'),
    ("double-no-plus", "the plus is written", '{"a":1e21}'),
    ("double-too-long", "more digits than needed", '{"a":0.10000000000000001}'),
    ("double-trailing-zero", "a trailing zero", '{"a":0.50}'),
    ("minus-zero", "minus zero", '{"a":-0}'),
    ("duplicate", "the same key twice", '{"a":1,"a":1}'),
]


def uuid(number: int) -> str:
    """Return a UUID with a number at its end."""
    return f"01920000-0000-7000-8000-{number:012x}"


def event(sequence: int, event_type: str, payload: Json, **fields: Any) -> Json:
    """Return an event without hashes; times are a millisecond apart."""
    return {
        "trace_version": "1.0",
        "event_id": uuid(0x100 + sequence),
        "trace_id": TRACE,
        "span_id": uuid(0x50),
        "parent_span_id": None,
        "session_id": SESSION,
        "sequence": sequence,
        "timestamp": f"2026-01-05T14:30:00.{sequence:03d}000Z",
        "event_type": event_type,
        "payload": payload,
        **fields,
    }


EVENTS: list[tuple[str, str, Json]] = [
    ("plain", "an event without a parent span",
     event(0, "session.started", {"agent_id": "agent-1", "goal": "help a customer", "atlases": []})),
    ("parent", "a parent span is joined in, its absence is nothing at all",
     event(0, "session.started", {}, parent_span_id=uuid(0x51))),
    ("unicode", "the payload is hashed as UTF-8", event(7, "error.occurred", {"é": "😀\n", "": "\u2028"})),
    ("numbers", "integers are exact, doubles in shortest form",
     event(12345, "action.requested", {"parameters": {"big": 2**70, "small": 1e-7, "one": 1.0, "zero": -0.0}}, timestamp="2026-01-05T14:30:00.012345Z")),
    ("utf16-order", "keys are sorted by UTF-16 code units", event(1, "error.occurred", {"\ufb33": 1, "😀": 2})),
    ("three-part-type", "an event type of three words", event(1, "carp.request.received", {"request_id": REQUEST})),
]  # fmt: skip

EXTERNAL_REQUESTS: list[tuple[str, str, Json]] = [
    ("request-minimal", "defaults are filled in before hashing", request()),
    ("request-defaults-written", "writing the defaults out changes nothing",
     request(risk_tier="low", hints=[], required=[], atlas_ids=[], context={})),
    ("request-full", "everything given",
     request("Gib 5 € zurück", risk_tier="high", hints=["refund"], required=["pay"], atlas_ids=["com.acme.pay"],
             context={"order": 2**64, "rate": 0.1})),
    ("request-hint-order", "the order of hints is part of the request", request(hints=["b", "a"])),
    ("request-timestamp-as-given", "the timestamp is hashed as it was written",
     request(timestamp="2026-01-05T15:30:00+01:00")),
]  # fmt: skip

ATLASES: list[tuple[str, str, Json, dict[str, str]]] = [
    ("atlas-minimal", "defaults are filled in before hashing", atlas("com.acme.one", ["ticket.get"]), {}),
    ("atlas-with-files", "context files are under the digest",
     atlas("com.acme.one", ["ticket.get"], context_packs=[pack("guide", "context/a.md", "context/b.txt")]),
     {"context/a.md": "# Guide\n", "context/b.txt": "Grüße"}),
    ("atlas-with-window", "the defaults of a time window are filled in too",
     atlas("com.acme.one", [action("ticket.get", rate_limit={"max_calls": 1, "window_seconds": 60})],
           [rule("p", "deny", conditions={"time_window": {"start": "09:00", "end": "17:00"}})]), {}),
]  # fmt: skip


def sample_chain() -> list[Json]:
    """Return five linked events."""
    return chain.link_all(
        [
            event(0, "session.started", {"agent_id": "agent-1", "goal": "help", "atlases": []}),
            event(1, "carp.request.received", {"request_id": REQUEST, "goal": "help é 😀"}),
            event(2, "policy.evaluated", {"policy_id": "p", "result": "allow", "action_id": "ticket.get"}),
            event(3, "action.requested", {"action_id": "ticket.get", "parameters": {"n": 1.5, "big": 10**20}}),
            event(4, "session.ended", {"reason": "completed", "duration_ms": 4, "action_count": 1}),
        ]
    )


Edit = Callable[[list[Json]], bytes]


def text(events: list[Json]) -> bytes:
    """Return the stored lines."""
    return b"".join(chain.line(item) for item in events)


def changed(index: int, **fields: Any) -> Edit:
    """Change fields of one event and nothing else."""
    return lambda events: text([{**item, **fields} if n == index else item for n, item in enumerate(events)])


def relinked(index: int, **fields: Any) -> Edit:
    """Change fields of one event and link the chain anew from there."""
    return lambda events: text(
        chain.link_all([{**item, **fields} if n == index else item for n, item in enumerate(events)])
    )


def rehashed(index: int, **fields: Any) -> Edit:
    """Change fields of one event and its own hash, but not what follows."""

    def edit(events: list[Json]) -> bytes:
        item = {**events[index], **fields}
        item["event_hash"] = chain.event_hash(item)
        return text([*events[:index], item, *events[index + 1 :]])

    return edit


def replaced(old: str, new: str) -> Edit:
    """Replace the first occurrence in the text."""

    def edit(events: list[Json]) -> bytes:
        data = text(events)
        return data.replace(old.encode(), new.encode(), 1)

    return edit


def with_payload(raw: str) -> Edit:
    """Give the last event a payload that is written just so, with a hash over exactly that."""

    def edit(events: list[Json]) -> bytes:
        last = {**events[4], "payload": {}}
        hashed = chain.preimage(last)
        digest = hashlib.sha256(hashed.replace(b"{}", raw.encode())).hexdigest()
        line = chain.line({**last, "event_hash": digest}).replace(b'"payload":{}', b'"payload":' + raw.encode(), 1)
        return text(events[:4]) + line

    return edit


def pick(*indexes: int) -> Edit:
    """Keep only these events, in this order."""
    return lambda events: text([events[index] for index in indexes])


def _first_sequence_one(events: list[Json]) -> bytes:
    return text(chain.link_all([{**item, "sequence": item["sequence"] + 1} for item in events]))


def _swap_hashes(events: list[Json]) -> bytes:
    return replaced('"event_hash":', '"event_hashes":')(events)


def _reordered_fields(events: list[Json]) -> bytes:
    first = events[0]
    return replaced(
        f'"event_id":"{first["event_id"]}","trace_id":"{first["trace_id"]}"',
        f'"trace_id":"{first["trace_id"]}","event_id":"{first["event_id"]}"',
    )(events)


def _moved_border(events: list[Json]) -> bytes:
    """Move a character over the border between sequence and timestamp: the joined bytes, and so the hash, stay."""
    return replaced('"sequence":1,"timestamp":"2026', '"sequence":12,"timestamp":"026')(events)


def _moved_border_type(events: list[Json]) -> bytes:
    """Move the start of the payload over the border to event_type: the joined bytes stay the same."""
    return replaced('"event_type":"policy.evaluated","payload":{', '"event_type":"policy.evaluated{","payload":')(
        events
    )


# (id, why, edit, expected index and reason; None for a good chain)
CHAINS: list[tuple[str, str, Edit, tuple[int, str] | None]] = [
    ("good", "five linked events", text, None),
    ("good-empty", "no events are a good chain", lambda events: b"", None),
    ("good-one", "one event", pick(0), None),
    ("good-truncated-after-an-event", "a shorter chain is a good chain: compare its head with one you trust",
     pick(0, 1, 2), None),
    ("good-same-time", "equal timestamps are in order", relinked(2, timestamp="2026-01-05T14:30:00.001000Z"), None),
    ("good-other-trace-id", "a caller may hand in a trace id for one request", relinked(2, trace_id=uuid(0x99)), None),
    ("good-parent", "with a parent span", relinked(1, parent_span_id=uuid(0x98)), None),
    ("good-unknown-type", "an event type that is not known yet", relinked(2, event_type="custom.thing_happened"), None),
    ("good-leap-day", "29 February of a leap year", relinked(4, timestamp="2028-02-29T23:59:59.999999Z"), None),
    ("good-type-64", "an event type of 64 characters", relinked(2, event_type="a." + "b" * 62), None),
    ("payload-changed", "a changed value", replaced('"result":"allow"', '"result":"denyy"'), (2, "hash")),
    ("payload-number-changed", "a changed digit", replaced('"n":1.5', '"n":2.5'), (3, "hash")),
    ("goal-changed", "one letter", replaced('"goal":"help"', '"goal":"Help"'), (0, "hash")),
    ("event-hash-changed", "the hash itself", changed(1, event_hash="0" * 64), (1, "hash")),
    ("last-event-changed", "the last event has no successor to give it away", replaced('"duration_ms":4', '"duration_ms":5'),
     (4, "hash")),
    ("event-id-changed", "ids are under the hash", changed(3, event_id=uuid(0x777)), (3, "hash")),
    ("parent-removed", "the parent span is under the hash", changed(2, parent_span_id=uuid(0x98)), (2, "hash")),
    ("changed-and-rehashed", "a changed event with a fitting hash breaks the link of its successor",
     rehashed(2, payload={"policy_id": "p", "result": "deny", "action_id": "ticket.get"}), (3, "link")),
    ("previous-hash-changed-and-rehashed", "an event that hangs on something else",
     rehashed(2, previous_event_hash="1" * 64), (2, "link")),
    ("first-previous-hash", "the first event follows 64 zeros", rehashed(0, previous_event_hash="1" * 64), (0, "link")),
    ("deleted-first", "the first event is missing", pick(1, 2, 3, 4), (0, "sequence")),
    ("deleted-middle", "an event in the middle is missing", pick(0, 1, 3, 4), (2, "sequence")),
    ("duplicated", "an event twice", pick(0, 1, 1, 2, 3, 4), (2, "sequence")),
    ("reordered", "two events changed places", pick(0, 2, 1, 3, 4), (1, "sequence")),
    ("sequence-from-one", "a chain that starts at 1", _first_sequence_one, (0, "sequence")),
    ("sequence-gap-relinked", "a gap in a chain that is otherwise linked", relinked(3, sequence=5), (3, "sequence")),
    ("sequence-repeated-relinked", "the same sequence twice", relinked(2, sequence=1), (2, "sequence")),
    ("time-back-relinked", "an event before its predecessor", relinked(3, timestamp="2026-01-05T14:30:00.001999Z"),
     (3, "time")),
    ("session-changed-relinked", "an event of another session", relinked(2, session_id=uuid(0x97)), (2, "session")),
    ("no-final-line-feed", "a line that was not finished", lambda events: text(events)[:-1], (4, "grammar")),
    ("cut-in-the-middle", "half a line", lambda events: text(events)[:-200], (4, "grammar")),
    ("empty-line", "an empty line between events",
     lambda events: text(events[:2]) + b"\n" + text(events[2:]), (2, "grammar")),
    ("crlf", "lines end with LF only", lambda events: text(events).replace(b"\n", b"\r\n", 1), (0, "grammar")),
    ("byte-order-mark", "there is no byte order mark", lambda events: b"\xef\xbb\xbf" + text(events), (0, "grammar")),
    ("invalid-utf-8", "what is not UTF-8 is refused",
     lambda events: text(events).replace("é".encode(), b"\xc3\x28"), (1, "grammar")),
    ("encoded-surrogate", "a surrogate in UTF-8 clothes is not UTF-8",
     lambda events: text(events).replace("😀".encode(), b"\xed\xa0\xbd\xed\xb8\x80"), (1, "grammar")),
    ("space", "a space outside strings", replaced('"sequence":1,', '"sequence": 1,'), (1, "grammar")),
    ("fields-reordered", "fields have one order", _reordered_fields, (0, "grammar")),
    ("field-renamed", "field names are fixed", _swap_hashes, (0, "grammar")),
    ("field-added", "no other fields", replaced('"payload":{"action_id"', '"extra":1,"payload":{"action_id"'),
     (2, "grammar")),
    ("version-2", "another version of the protocol", changed(0, trace_version="2.0"), (0, "grammar")),
    ("uuid-upper-case", "UUIDs are lower-case", changed(1, event_id=uuid(0x101).replace("f", "F").replace("1", "A", 1)),
     (1, "grammar")),
    ("uuid-without-dashes", "UUIDs have dashes", changed(1, event_id="0" * 36), (1, "grammar")),
    ("uuid-braces", "and nothing around them", changed(1, span_id="{" + uuid(0x50) + "}"), (1, "grammar")),
    ("parent-empty", "no parent is null, not an empty text", changed(1, parent_span_id=""), (1, "grammar")),
    ("sequence-leading-zero", "numbers have no leading zeros", replaced('"sequence":1,', '"sequence":01,'), (1, "grammar")),
    ("sequence-text", "the sequence is a number", replaced('"sequence":1,', '"sequence":"1",'), (1, "grammar")),
    ("sequence-negative", "it is not negative", replaced('"sequence":0,', '"sequence":-0,'), (0, "grammar")),
    ("sequence-float", "it has no fraction", replaced('"sequence":1,', '"sequence":1.0,'), (1, "grammar")),
    ("time-three-digits", "microseconds have six digits", changed(1, timestamp="2026-01-05T14:30:00.001Z"), (1, "grammar")),
    ("time-offset", "times are UTC and end with Z", changed(1, timestamp="2026-01-05T14:30:00.001000+00:00"), (1, "grammar")),
    ("time-30-february", "a day that does not exist", relinked(1, timestamp="2026-02-30T14:30:00.001000Z"), (1, "grammar")),
    ("time-no-leap-day", "29 February of a common year", relinked(4, timestamp="2027-02-29T00:00:00.000000Z"), (4, "grammar")),
    ("time-leap-second", "there are no leap seconds", relinked(4, timestamp="2026-12-31T23:59:60.000000Z"), (4, "grammar")),
    ("time-24-hours", "an hour that does not exist", relinked(4, timestamp="2026-01-05T24:00:00.000000Z"), (4, "grammar")),
    ("time-month-13", "a month that does not exist", relinked(4, timestamp="2026-13-05T00:00:00.000000Z"), (4, "grammar")),
    ("time-year-0", "there is no year 0", relinked(0, timestamp="0000-01-01T00:00:00.000000Z"), (0, "grammar")),
    ("type-one-word", "an event type has at least two words", relinked(2, event_type="policy"), (2, "grammar")),
    ("type-capital", "in small letters", relinked(2, event_type="policy.Evaluated"), (2, "grammar")),
    ("type-digit", "without digits", relinked(2, event_type="policy.v2"), (2, "grammar")),
    ("type-empty-word", "no word is empty", relinked(2, event_type="policy..evaluated"), (2, "grammar")),
    ("type-65", "at most 64 characters", relinked(2, event_type="a." + "b" * 63), (2, "grammar")),
    ("type-with-brace", "an event type that runs into the payload", relinked(2, event_type="policy.evaluated{"), (2, "grammar")),
    ("border-moved-to-sequence", "the joined bytes are the same, so the hash is too; the grammar is not", _moved_border,
     (1, "grammar")),
    ("border-moved-to-type", "the same at the border to the payload", _moved_border_type, (2, "grammar")),
    ("hash-upper-case", "hashes are lower-case",
     lambda events: text([*events[:4], {**events[4], "event_hash": events[4]["event_hash"].upper()}]), (4, "grammar")),
    ("hash-short", "hashes have 64 digits", changed(2, event_hash="ab"), (2, "grammar")),
    ("payload-array", "a payload is an object", with_payload("[]"), (4, "grammar")),
    ("payload-null", "and not null", with_payload("null"), (4, "grammar")),
    ("payload-unbalanced", "a payload that closes the event early", with_payload('{},"x":{}'), (4, "grammar")),
    ("payload-depth-128", "128 containers inside each other", with_payload('{"a":' * 128 + "1" + "}" * 128), None),
    ("payload-depth-129", "129 are too many", with_payload('{"a":' * 129 + "1" + "}" * 129), (4, "grammar")),
    ("payload-overflow", "a number beyond the doubles", with_payload('{"a":1e+400}'), (4, "grammar")),
    ("payload-lone-surrogate", "a lone surrogate", with_payload('{"a":"\\ud800"}'), (4, "grammar")),
    ("payload-big-integer", "integers have any size", with_payload('{"a":1' + "0" * 400 + "}"), None),
    *((f"payload-{name}", f"hashed as it stands, but not canonical: {why}", with_payload(raw), (4, "grammar"))
      for name, why, raw in NOT_CANONICAL),
]  # fmt: skip
