"""Tamper-evident lists as a user would write them: a record with sequence, id, time, previous hash and an event."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bench.machine import version_of

Append = Callable[[dict[str, Any]], None]
Encode = Callable[[dict[str, Any]], bytes]


class Ledger(NamedTuple):
    """A way to append an event to a chained list; `records` is that list of bytes."""

    append: Append
    records: list[bytes]
    head: Callable[[], str]


class Kind(NamedTuple):
    """A kind of ledger: what it is called, the package it needs, and its encoder's maker."""

    name: str
    package: str | None
    encoder: Callable[[], Encode]


def ledger(encode: Encode) -> Ledger:
    """Return an empty ledger: a fresh uuid4 and a timestamp of now for each record, SHA-256 over the encoded record."""
    records: list[bytes] = []
    previous = "0" * 64
    sequence = 0
    uuid4, now, utc, sha256 = uuid.uuid4, datetime.now, UTC, hashlib.sha256

    def append(event: dict[str, Any]) -> None:
        nonlocal previous, sequence
        data = encode(
            {
                "seq": sequence,
                "id": str(uuid4()),
                "ts": now(utc).isoformat(),
                "prev": previous,
                "event": event,
            }
        )
        previous = sha256(data).hexdigest()
        sequence += 1
        records.append(data)

    return Ledger(append, records, lambda: previous)


def check(made: Ledger) -> None:
    """Raise unless every record names the hash of the one before it."""
    previous = "0" * 64
    for number, data in enumerate(made.records):
        record = json.loads(data)
        if record["prev"] != previous or record["seq"] != number:
            raise AssertionError(f"record {number} does not follow")
        previous = hashlib.sha256(data).hexdigest()
    if made.head() != previous:
        raise AssertionError("the head is not the last record's hash")


def installed() -> list[Kind]:
    """Return the kinds whose package is there."""
    return [kind for kind in KINDS if kind.package is None or version_of(kind.package) is not None]


def _orjson() -> Encode:
    import orjson

    dumps, option = orjson.dumps, orjson.OPT_SORT_KEYS
    return lambda record: dumps(record, option=option)


def _msgspec() -> Encode:
    import msgspec

    return msgspec.json.Encoder(order="sorted").encode


def _json() -> Encode:
    dumps = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
    return lambda record: dumps(record).encode()


def _canonicaljson() -> Encode:
    from canonicaljson import encode_canonical_json

    encode: Encode = encode_canonical_json
    return encode


def _rfc8785() -> Encode:
    import rfc8785

    encode: Encode = rfc8785.dumps
    return encode


def _jcs() -> Encode:
    import jcs

    encode: Encode = jcs.canonicalize
    return encode


def _jcs_admit() -> Encode:
    import jcs_admit
    import orjson

    admit, dumps = jcs_admit.admit, orjson.dumps
    return lambda record: admit(dumps(record))


KINDS = (
    Kind("msgspec, order=sorted", "msgspec", _msgspec),
    Kind("orjson, OPT_SORT_KEYS", "orjson", _orjson),
    Kind("json, sort_keys", None, _json),
    Kind("canonicaljson", "canonicaljson", _canonicaljson),
    Kind("orjson + jcs-admit (RFC 8785)", "jcs-admit", _jcs_admit),
    Kind("jcs (RFC 8785)", "jcs", _jcs),
    Kind("rfc8785 (RFC 8785)", "rfc8785", _rfc8785),
)
