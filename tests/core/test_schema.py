"""The compiled schema check: exact where Python and JSON differ, and of one mind with jsonschema everywhere else."""

import itertools
import json
from enum import IntEnum, StrEnum
from fractions import Fraction
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema._utils import equal
from jsonschema.validators import extend

from cra._core.pattern import Pattern
from cra._core.schema import Node, Schema
from cra.atlas.schema_check import ParameterSchema


def matches(schema: Any, value: Any) -> bool:
    compiled = ParameterSchema(schema)
    answer = compiled.matches(value)
    assert (compiled.errors(value) == []) is answer
    return answer


@pytest.mark.parametrize(
    ("schema", "value", "answer"),
    [
        ({"type": "integer"}, 1.0, True),
        ({"type": "integer"}, -0.0, True),
        ({"type": "integer"}, 1e300, True),
        ({"type": "integer"}, 10**400, True),
        ({"type": "integer"}, 1.5, False),
        ({"type": "integer"}, 4503599627370495.5, False),
        ({"type": "integer"}, True, False),
        ({"type": "number"}, False, False),
        ({"type": "boolean"}, 1, False),
        ({"type": ["integer", "null"]}, 0.5, False),
        ({"const": 1}, True, False),
        ({"const": 1}, 1.0, True),
        ({"const": True}, 1, False),
        ({"const": False}, 0.0, False),
        ({"const": 0}, -0.0, True),
        ({"const": None}, False, False),
        ({"const": "1"}, 1, False),
        ({"enum": [[1, {"a": True}]]}, [1.0, {"a": True}], True),
        ({"enum": [[1, {"a": True}]]}, [1, {"a": 1}], False),
        ({"enum": [{"a": [0]}]}, {"a": [False]}, False),
        ({"enum": [{"a": 1, "b": 2}]}, {"b": 2.0, "a": 1}, True),
        ({"enum": [2**53]}, float(2**53), True),
        ({"enum": [2**53 + 1]}, float(2**53), False),
        ({"enum": []}, None, False),
        ({"const": 1, "enum": [1, 2]}, 2, False),
        ({"maximum": 1e308}, 10**400, False),
        ({"minimum": 1e308}, 10**400, True),
        ({"maximum": 10**400}, 1e308, True),
        ({"minimum": -(10**400)}, -1e308, True),
        ({"maximum": 2**53}, 2.0**53, True),
        ({"exclusiveMaximum": 2**53 + 1}, 2**53, True),
        ({"exclusiveMinimum": 2.0**53}, 2**53 + 1, True),
        ({"minimum": 0}, -0.0, True),
        ({"exclusiveMinimum": 0}, -0.0, False),
        ({"maximum": 2**63}, 2**63, True),
        ({"maximum": 2**63 - 1}, 2**63, False),
        ({"minimum": -(2**62)}, -(2**62) - 1, False),
        ({"minimum": 5, "maximum": 4}, 4, False),
        ({"exclusiveMinimum": 4, "exclusiveMaximum": 5}, 4.5, True),
        ({"multipleOf": 0.01}, 19.99, True),
        ({"multipleOf": 0.1}, 0.3, True),
        ({"multipleOf": 0.01}, 0.001, False),
        ({"multipleOf": 0.5}, 1e308, True),
        ({"multipleOf": 1e-308}, 1e308, True),
        ({"multipleOf": 3}, 10**400, False),
        ({"multipleOf": 3}, 9.0, True),
        ({"multipleOf": 2.5}, 10**400, True),
        ({"multipleOf": 7}, -14, True),
        ({"multipleOf": 7}, 0, True),
        ({"minLength": 2}, "\U0001f600", False),
        ({"maxLength": 1}, "\U0001f600", True),
        ({"maxLength": 1}, "e\u0301", False),
        ({"maxLength": 1}, "\ud800", True),
        ({"maxLength": 2.0}, "abc", False),
        ({"maxLength": 1e300}, "abc", True),
        ({"pattern": "^\\S$"}, "\ud800", True),
        ({"uniqueItems": True}, [1, True], True),
        ({"uniqueItems": True}, [1, 1.0], False),
        ({"uniqueItems": True}, [0, False, None, "", [], {}], True),
        ({"uniqueItems": True}, [[1], [True], [1]], False),
        ({"uniqueItems": True}, [{"a": 1, "b": 2}, {"b": 2, "a": 1.0}], False),
        ({"uniqueItems": True}, ["1", 1, "n1;"], True),
        ({"uniqueItems": True}, [["a", "b"], ["ab"], ["a:b"]], True),
        ({"uniqueItems": True}, [10**400, 10**400], False),
        ({"uniqueItems": True}, [10.0**22, 10**22], False),
        ({"uniqueItems": True}, [0.0, -0.0], False),
        ({"uniqueItems": False}, [1, 1], True),
        ({"minItems": 1}, (), False),
        ({"type": "array", "items": {"type": "integer"}}, (1, "a"), False),
        ({"const": [1, 2]}, (1, 2), True),
        ({"required": ["a"]}, {"a": None}, True),
        ({"required": ["a"]}, [], True),
        ({"properties": {"a": False}}, {"a": 1}, False),
        ({"additionalProperties": {"type": "string"}, "properties": {"a": {}}}, {"a": 1, "b": "x"}, True),
        ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, False),
        ({"minProperties": 1, "maxProperties": 1}, {"a": 1, "b": 2}, False),
        ({"contains": {"const": 1}, "minContains": 0}, [], True),
        ({"not": {}}, None, False),
        (False, None, False),
        (True, object, False),
    ],
)
def test_values_are_judged_as_json_not_as_python(schema: Any, value: Any, answer: bool) -> None:
    assert matches(schema, value) is answer


def test_subclasses_count_as_what_they_are_in_json() -> None:
    class Color(StrEnum):
        RED = "red"

    class Level(IntEnum):
        HIGH = 3

    class Text(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 0

    assert matches({"enum": ["red", 3]}, Color.RED)
    assert matches({"enum": ["red", 3], "type": "integer", "maximum": 3}, Level.HIGH)
    assert not matches({"enum": ["red"]}, Text("blue"))
    assert not matches({"pattern": "^a"}, Text("blue"))


@pytest.mark.parametrize("value", [{1: 2}, {None: 1, "a": 2}, float("nan"), float("inf"), {1, 2}, b"x", object(), 1j])
def test_what_is_no_json_does_no_harm(value: Any) -> None:
    schema = {
        "type": ["object", "number", "string"],
        "properties": {"a": {"type": "string"}},
        "propertyNames": {"pattern": "^a"},
        "additionalProperties": {"multipleOf": 2},
        "enum": [{"b": 1}, 3, "x"],
        "uniqueItems": True,
        "multipleOf": 0.5,
        "maximum": 7,
    }
    assert not matches(schema, value)
    assert not matches({"type": "array"}, value)
    matches({"uniqueItems": True}, [value, value])


def test_a_node_is_defined_once() -> None:
    node = Node()
    node.define({"type": ["string"]})
    with pytest.raises(TypeError):
        node.define({})
    assert Schema(node).matches("a")
    with pytest.raises(TypeError):
        Schema(None)  # type: ignore[arg-type]


def test_colliding_numbers_do_not_make_uniqueness_slow() -> None:
    # All of these have the same hash; a set of them would take quadratic time.
    collisions = [(2**61 - 1) * n for n in range(30_000)]
    assert matches({"uniqueItems": True}, collisions)


NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 5)
    | st.sampled_from([0.0, -0.0, 1.0, 1.5, 0.1, 0.3, 2.5, 1e300, 2**53, 2**53 + 1, 10**30])
    | st.sampled_from(["", "a", "ab", "b", "\u00e9\u00e9", "\U0001f600", "1"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
COUNTS = st.integers(0, 3)
NUMBERS = st.integers(-3, 5) | st.sampled_from([0.5, 1.0, 1.5, 1e300])
PATTERNS = st.sampled_from(["^a", "b", "^.$", "^[a-c]{1,2}$", "(a|b)+", "^$", "[^a]"])


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(NAMES, inner, max_size=3)
    some = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(VALUES, max_size=3),
        "const": VALUES,
        "minimum": NUMBERS,
        "maximum": NUMBERS,
        "exclusiveMinimum": NUMBERS,
        "exclusiveMaximum": NUMBERS,
        "multipleOf": st.sampled_from([1, 2, 3, 0.1, 0.5, 1.5]),
        "minLength": COUNTS,
        "maxLength": COUNTS,
        "pattern": PATTERNS,
        "minItems": COUNTS,
        "maxItems": COUNTS,
        "uniqueItems": st.booleans(),
        "items": inner,
        "prefixItems": several,
        "contains": inner,
        "minContains": COUNTS,
        "maxContains": COUNTS,
        "minProperties": COUNTS,
        "maxProperties": COUNTS,
        "required": st.lists(NAMES, max_size=2, unique=True),
        "properties": named,
        "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=2),
        "dependentSchemas": named,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "unevaluatedItems": inner,
        "unevaluatedProperties": inner,
        "$ref": st.sampled_from(["#/$defs/a", "#/$defs/b"]),
        "title": st.text(max_size=2),
        "format": st.just("email"),
    }
    return st.lists(st.sampled_from(sorted(some)), max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: some[name] for name in names})
    )


SCHEMAS = st.recursive(st.booleans() | keywords(st.just({})), keywords, max_leaves=6)


def unique(validator: Any, wanted: bool, instance: Any, schema: Any) -> Any:
    # NOTE: jsonschema 4.26 compares only neighbours after sorting, so it takes [[1], [True], [1]] for unique.
    if wanted and isinstance(instance, list):
        if any(equal(one, two) for one, two in itertools.combinations(instance, 2)):
            yield jsonschema.ValidationError("not unique")


def multiple(validator: Any, divisor: Any, instance: Any, schema: Any) -> Any:
    # NOTE: jsonschema divides floats, so 19.99 is no multiple of 0.01 for it.
    if validator.is_type(instance, "number"):
        if (Fraction(repr(instance)) / Fraction(repr(divisor))).denominator != 1:
            yield jsonschema.ValidationError("no multiple")


Oracle = extend(jsonschema.Draft202012Validator, {"uniqueItems": unique, "multipleOf": multiple})


@settings(max_examples=500, deadline=None)
@given(SCHEMAS, SCHEMAS, SCHEMAS, st.lists(VALUES, min_size=1, max_size=6))
def test_random_schemas_and_values_are_judged_as_jsonschema_judges_them(
    schema: Any, first: Any, second: Any, values: list[Any]
) -> None:
    schema = {"allOf": [schema], "$defs": {"a": first, "b": second}}
    if any("leads back" in words for _, words in ParameterSchema.problems(schema)):
        return
    oracle = Oracle(schema)
    compiled = ParameterSchema(schema)
    for value in values:
        expected = oracle.is_valid(value)
        assert compiled.matches(value) is expected
        assert (compiled.errors(value) == []) is expected
        assert compiled.matches(json.loads(json.dumps(value))) is expected


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES)
def test_const_and_uniqueness_agree_on_what_is_equal(one: Any, two: Any) -> None:
    same = bool(equal(one, two))
    assert matches({"const": one}, two) is same
    assert matches({"enum": [two]}, one) is same
    assert matches({"uniqueItems": True}, [one, two]) is not same


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, SCALARS), st.randoms(use_true_random=False))
def test_the_order_of_keys_means_nothing(value: dict[str, Any], random: Any) -> None:
    schema = ParameterSchema(
        {
            "properties": {"a": {"type": "integer"}, "b": {"minLength": 2, "type": "string"}},
            "additionalProperties": {"type": "null"},
            "required": ["c", "b"],
        }
    )
    items = list(value.items())
    random.shuffle(items)
    assert schema.errors(dict(items)) == schema.errors(value)


def test_a_pattern_program_that_leads_nowhere_is_refused() -> None:
    for program in ([], [[0, 97, 0]], [[3, 5, 0], [7, 0, 0]], [[1, 0, 0], [7, 0, 0]], [[9, 0, 0], [7, 0, 0]]):
        with pytest.raises(ValueError):
            Pattern("x", program, [], False)
