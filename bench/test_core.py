"""The parts of the core, one by one: `pytest bench/test_core.py`, or as a section of `make bench`."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import pytest

from bench import data
from cra._core.canonical import dumps
from cra._core.context import ContextIndex
from cra._core.glob import glob_match
from cra._core.sha256 import hexdigest
from cra._core.windows import BudgetWindow, RateWindow
from cra.atlas.schema_check import ParameterSchema

_CALL = {
    "id": "T-1001",
    "amount": 125,
    "tags": ["a", "b"],
    "note": "Refund for a late parcel",
    "address": {"city": "Lyon", "zip": "69001"},
}
_SCHEMA = {
    "type": "object",
    "required": ["id", "amount"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 64},
        "amount": {"type": "integer", "minimum": 0, "maximum": 500},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 10},
        "note": {"type": "string", "maxLength": 500},
        "address": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zip": {"type": "string", "minLength": 4}},
            "required": ["city"],
        },
    },
}


def test_canonical_json_of_421_bytes(benchmark: Any) -> None:
    assert len(benchmark(dumps, data.event())) == 421


def test_canonical_json_of_421_bytes_by_orjson_sorted(benchmark: Any) -> None:
    orjson = pytest.importorskip("orjson")
    event = data.event()
    assert benchmark(orjson.dumps, event, None, orjson.OPT_SORT_KEYS) == dumps(event)


def test_canonical_json_of_421_bytes_by_json_sorted(benchmark: Any) -> None:
    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
    assert benchmark(encode, data.event()).encode() == dumps(data.event())


def test_canonical_json_of_421_bytes_by_rfc8785(benchmark: Any) -> None:
    rfc8785 = pytest.importorskip("rfc8785")
    assert benchmark(rfc8785.dumps, data.event()) == dumps(data.event())


@pytest.mark.parametrize("size", [64, 597, 4096])
def test_sha256(benchmark: Any, size: int) -> None:
    text = os.urandom(size)
    assert benchmark(hexdigest, text) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("size", [64, 597, 4096])
def test_sha256_by_hashlib(benchmark: Any, size: int) -> None:
    text = os.urandom(size)
    assert len(benchmark(lambda: hashlib.sha256(text).hexdigest())) == 64


def test_glob_with_two_stars(benchmark: Any) -> None:
    assert benchmark(glob_match, "ticket*.up*e", "tickets_eu.update")


def test_parameters_against_a_schema(benchmark: Any) -> None:
    assert benchmark(ParameterSchema(_SCHEMA).matches, _CALL)


def test_parameters_against_a_schema_by_jsonschema(benchmark: Any) -> None:
    from jsonschema import Draft202012Validator

    assert benchmark(Draft202012Validator(_SCHEMA).is_valid, _CALL)


def test_rate_window_with_1000_calls_in_it(benchmark: Any) -> None:
    window, now = RateWindow(1000, 60_000_000), iter(range(1, 1 << 60, 60_000))
    assert benchmark(lambda: window.take(next(now)))


def test_budget_window(benchmark: Any) -> None:
    window = BudgetWindow(1 << 60, 0)
    assert benchmark(window.take, 1, 1)


def test_context_of_20_kib_ranked_and_fitted(benchmark: Any) -> None:
    _, files = data.with_context({}, 20 * 1024)
    index = ContextIndex(
        [(0, 0, 0, len(text) // 4, hashlib.sha256(text.encode()).hexdigest(), text) for text in files.values()], [-1]
    )
    chosen, skipped = benchmark(index.select, "refund of an order over the limit", ("approve",), b"\1", 100_000)
    assert len(chosen) == 5
    assert not skipped
