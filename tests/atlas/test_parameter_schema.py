"""ParameterSchema: the whole suite of draft 2020-12, what is refused at load, and the words of errors."""

import copy
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cra._core import report
from cra.atlas import _schema_reader, schema_check
from cra.atlas._metaschema import DOCUMENTS
from cra.atlas.schema_check import ParameterSchema
from cra.errors import InvalidInput

SUITE = Path(__file__).parents[1] / "data/json-schema-test-suite"
REMOTES = {
    "http://localhost:1234/" + path.relative_to(SUITE / "remotes").as_posix(): json.loads(path.read_text())
    for path in (SUITE / "remotes").rglob("*.json")
}
# Optional parts of the suite that the specification leaves to implementations, and that we do differently: older
# drafts' `dependencies` is ignored, `format` is an annotation, other dialects are refused.
OPTIONAL = ["anchor", "bignum", "dynamicRef", "ecmascript-regex", "float-overflow", "id", "no-schema",
            "non-bmp-regex", "refOfUnknownKeyword", "unknownKeyword"]  # fmt: skip


def suite() -> Iterator[Any]:
    folder = SUITE / "tests/draft2020-12"
    for path in [*sorted(folder.glob("*.json")), *(folder / f"optional/{name}.json" for name in OPTIONAL)]:
        for group in json.loads(path.read_text()):
            yield pytest.param(group, id=f"{path.stem}: {group['description']}")


@pytest.mark.parametrize("group", list(suite()))
def test_the_json_schema_test_suite_is_judged_as_it_says(group: dict[str, Any]) -> None:
    schema = group["schema"]
    compiled: Any
    try:
        compiled = ParameterSchema(schema)
        matches, errors = compiled.matches, compiled.errors
    except InvalidInput as error:
        assert "leads outside the schema" in error.message or "`$schema` is" in error.message
        assert "localhost:1234" in json.dumps(schema)
        if "`$schema` is" in error.message:
            return
        # With the documents it refers to at hand, the rest of the machinery must answer as the suite does.
        compiled, issues = _schema_reader.read_schema(copy.deepcopy(schema), {**DOCUMENTS, **REMOTES})
        assert compiled is not None, issues
        matches, errors = compiled.matches, partial(report.errors, compiled)
    for case in group["tests"]:
        assert matches(case["data"]) is case["valid"], case["description"]
        assert (errors(case["data"]) == []) is case["valid"], case["description"]


def test_the_suite_is_all_there_and_hardly_any_of_it_is_refused() -> None:
    groups = [param.values[0] for param in suite()]
    refused = sum(bool(ParameterSchema.problems(group["schema"])) for group in groups)
    assert len(groups) > 380
    assert sum(len(group["tests"]) for group in groups) > 1300
    assert refused <= 24


@pytest.mark.parametrize(
    ("schema", "pointer", "words"),
    [
        ({"type": "integr"}, "/type", "expected one of `"),
        ({"type": 1}, "/type", "expected one of `"),
        ({"properties": {"a/b": {"minLength": -1}}}, "/properties/a~1b/minLength", "expected at least 0"),
        ({"required": ["a", "a"]}, "/required", "items 0 and 1 are equal"),
        ({"items": [{}]}, "/items", "expected boolean or object, found array"),
        ({"allOf": []}, "/allOf", "expected at least 1 item, found 0"),
        ({"multipleOf": 0}, "/multipleOf", "expected more than 0"),
        ({"exclusiveMinimum": True}, "/exclusiveMinimum", "expected number, found boolean"),
        ([], "", "expected boolean or object, found array"),
        (None, "", "expected boolean or object, found null"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema", "`$schema` is `http://json-schema.org/"),
        ({"$ref": "https://example.com/x.json"}, "/$ref", "`https://example.com/x.json` leads outside the schema"),
        ({"items": {"$ref": "other.json#/a"}}, "/items/$ref", "`other.json#/a` leads outside"),
        ({"$dynamicRef": "file:///etc/passwd"}, "/$dynamicRef", "`file:///etc/passwd` leads outside"),
        ({"$id": "https://a.example/", "$ref": "b"}, "/$ref", "`b` leads outside"),
        ({"$ref": "#/$defs/a"}, "/$ref", "`#/$defs/a` leads to nothing"),
        ({"$ref": "#a"}, "/$ref", "`#a` names an anchor that is not there"),
        ({"$id": "http://a.example/", "$ref": "http://[x"}, "/$ref", "`http://[x` is not a URI reference"),
        ({"$id": "http://[x", "$ref": "b"}, "/$ref", "`b` is not a URI reference"),
        ({"$ref": "#"}, "/$ref", "leads back to itself"),
        ({"allOf": [{"$ref": "#"}]}, "/allOf/0/$ref", "leads back to itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}}, "/$defs/a/not/$ref", "leads back"),
        ({"$ref": "#/x", "x": {"type": "no"}}, "/x/type", "expected one of"),
        ({"$ref": "#/x", "x": 3}, "/x", "expected a schema"),
        ({"$defs": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}}, "/$defs/b/$anchor", "anchor `x` is taken"),
        ({"$defs": {"a": {"$id": "u:x"}, "b": {"$id": "u:x"}}}, "/$defs/b/$id", "`$id` `u:x` is taken"),
        ({"$id": "https://json-schema.org/draft/2020-12/schema"}, "/$id", "is taken"),
        ({"pattern": "("}, "/pattern", "pattern: missing `)` at character 2"),
        ({"pattern": "(?=a)"}, "/pattern", "pattern: lookaround is not supported at character 3; write one `pattern`"),
        ({"patternProperties": {"(a)\\1": {}}}, "/patternProperties/(a)\\1", "pattern: back-references"),
        ({"minimum": float("nan")}, "/minimum", "number is not finite"),
        ({"const": {1: 2}}, "/const", "a property name is not a string"),
        ({"const": {1, 2}}, "/const", "`set` is not a JSON type"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_a_pointer(schema: Any, pointer: str, words: str) -> None:
    problems = ParameterSchema.problems(schema)
    assert any(where == pointer and words in what for where, what in problems), problems
    with pytest.raises(InvalidInput) as caught:
        ParameterSchema(schema)
    assert caught.value.pointer == problems[0][0]
    assert caught.value.details["problems"][0]["message"] == problems[0][1]


def test_all_problems_are_reported_at_once_in_the_order_of_pointers() -> None:
    schema = {"type": "x", "properties": {"b": {"minimum": "1"}, "a": {"required": "b"}}, "title": 1}
    assert [pointer for pointer, _ in ParameterSchema.problems(schema)] == [
        "/properties/a/required",
        "/properties/b/minimum",
        "/title",
        "/type",
    ]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$ref": "https://json-schema.org/draft/2020-12/meta/validation"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"},
        {"properties": {"$ref": {"type": "string"}}},
        {"const": {"$ref": "https://example.com/"}},
        {"properties": {"next": {"$ref": "#"}}},
        {"pattern": "^[a-z]+$(?!\\n)"},
        {"x-vendor": {"anything": [1]}, "format": "nothing-known"},
        {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "string"}}},
    ],
)
def test_a_schema_that_refers_to_itself_and_the_metaschemas_is_fine(schema: Any) -> None:
    assert ParameterSchema.problems(schema) == []


def test_size_depth_and_chains_are_bounded() -> None:
    deep: Any = {}
    for _ in range(60):
        deep = {"items": deep}
    assert ParameterSchema.problems(deep) == []
    for _ in range(100_000):
        deep = {"items": deep}
    assert "nests more than" in ParameterSchema.problems(deep)[0][1]
    wide = {"enum": list(range(_schema_reader.MAX_VALUES))}
    assert "has more than" in ParameterSchema.problems(wide)[0][1]
    chain = {"$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(200)}, "$ref": "#/$defs/0"}
    chain["$defs"]["200"] = {}
    assert "apply to one place" in ParameterSchema.problems(chain)[0][1]
    shared: Any = {}
    for _ in range(60):
        shared = {"allOf": [shared, shared]}
    assert "has more than" in ParameterSchema.problems(shared)[0][1]


def test_a_schema_bomb_is_cut_off_with_an_error_that_is_no_answer() -> None:
    half = {"properties": {"a": {"$ref": "#/$defs/n"}}}
    schema = ParameterSchema({"$ref": "#/$defs/n", "$defs": {"n": {"allOf": [half, copy.deepcopy(half)]}}})
    value: Any = {}
    for _ in range(60):
        value = {"a": value}
    for call in (schema.matches, schema.errors, schema.first_error):
        with pytest.raises(InvalidInput, match="too many steps"):
            call(value)
    assert schema.matches({"a": {"a": {}}})


def test_a_doubling_of_references_is_cut_off_too() -> None:
    definitions: Any = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    schema = ParameterSchema({"$ref": "#/$defs/d0", "$defs": {**definitions, "d40": {"type": "object"}}})
    with pytest.raises(InvalidInput, match="too many steps"):
        schema.matches({})


def test_a_value_that_nests_too_deep_is_an_error() -> None:
    schema = ParameterSchema({"properties": {"a": {"$ref": "#"}}})
    value: Any = {}
    for _ in range(128):
        value = {"a": value}
    assert schema.matches(value)
    for _ in range(5000):
        value = {"a": value}
    for call in (schema.matches, schema.errors):
        with pytest.raises(InvalidInput, match="nests too deep"):
            call(value)


@pytest.mark.parametrize(
    "pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*)*x", "^(.*)(.*)(.*)(.*)(.*)[b]$", "(x+x+)+y"]
)
def test_no_pattern_makes_a_text_expensive(pattern: str) -> None:
    schema = ParameterSchema({"pattern": pattern})
    assert not schema.matches("a" * 100_000 + "!")


def test_a_pattern_with_thousands_of_states_is_cut_off_on_a_long_text() -> None:
    schema = ParameterSchema({"pattern": "(a?){1900}b"})
    assert not schema.matches("a" * 100)
    with pytest.raises(InvalidInput, match="too many steps"):
        schema.matches("a" * 1_000_000)


REFUND = {
    "type": "object",
    "properties": {
        "ticket_id": {"type": "string", "pattern": "^T-[0-9]+$", "maxLength": 10},
        "amount": {"type": "number", "exclusiveMinimum": 0, "maximum": 500, "multipleOf": 0.01},
        "priority": {"enum": ["low", "high"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2, "uniqueItems": True},
        "note": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
        "to": {"oneOf": [{"required": ["iban"]}, {"required": ["card"]}]},
        "mode": {"const": "live"},
    },
    "required": ["ticket_id", "amount"],
    "additionalProperties": False,
    "dependentRequired": {"note": ["priority"]},
}
GOOD = {"ticket_id": "T-1", "amount": 19.99}


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"amount": "12"}, "/amount", "expected number, found string"),
        ({"amount": True}, "/amount", "expected number, found boolean"),
        ({"amount": 0}, "/amount", "expected more than 0"),
        ({"amount": 500.01}, "/amount", "expected at most 500"),
        ({"amount": 0.005}, "/amount", "expected a multiple of 0.01"),
        ({"ticket_id": "T-12345678901"}, "/ticket_id", "expected at most 10 characters, found 13"),
        ({"ticket_id": "T-1\n"}, "/ticket_id", "expected text that matches `^T-[0-9]+$`"),
        ({"priority": "Low"}, "/priority", 'expected one of `"low"`, `"high"`'),
        ({"mode": None}, "/mode", 'expected `"live"`'),
        ({"tags": ["a", 1]}, "/tags/1", "expected string, found integer"),
        ({"tags": ["a", "a"]}, "/tags", "items 0 and 1 are equal"),
        ({"tags": ["a", "b", "c"]}, "/tags", "expected at most 2 items, found 3"),
        ({"note": 3, "priority": "low"}, "/note", "expected null or string, found integer"),
        ({"note": "too long", "priority": "low"}, "/note", "expected at most 5 characters, found 8"),
        ({"note": None}, "", "property `priority` is missing, `note` requires it"),
        ({"to": {}}, "/to", "matches none of 2 alternatives"),
        ({"to": {"iban": 1, "card": 1}}, "/to", "matches 2 of 2 alternatives, expected exactly one"),
        ({"x/y": 1}, "/x~1y", "property is not expected here"),
    ],
)
def test_the_first_error_says_what_was_expected_where(change: dict[str, Any], pointer: str, words: str) -> None:
    schema = ParameterSchema(REFUND)
    assert schema.first_error(GOOD) is None
    assert schema.first_error({**GOOD, **change}) == (pointer, words)


def test_errors_are_in_the_order_of_places_whatever_the_order_of_keys() -> None:
    schema = ParameterSchema(REFUND)
    value = {"zz": 1, "tags": [3, "x", 4], "amount": -1, "aa": 2}
    expected = [
        ("", "property `ticket_id` is missing"),
        ("/aa", "property is not expected here"),
        ("/amount", "expected more than 0"),
        ("/tags", "expected at most 2 items, found 3"),
        ("/tags/0", "expected string, found integer"),
        ("/tags/2", "expected string, found integer"),
        ("/zz", "property is not expected here"),
    ]
    assert schema.errors(value) == expected
    assert schema.errors(dict(sorted(value.items(), reverse=True))) == expected
    items = ParameterSchema({"items": {"type": "string"}}).errors(list(range(12)))
    assert [pointer for pointer, _ in items] == [f"/{index}" for index in range(12)]


def test_errors_do_not_repeat_what_the_value_holds() -> None:
    schema = ParameterSchema(
        {"additionalProperties": {"anyOf": [{"const": "a"}, {"minimum": 7, "type": "number"}, {"pattern": "^b"}]}}
    )
    secret = "hunter2"
    for value in ({"a": secret}, {"a": 4242}, {"a": [secret]}, {"a": {"b": secret}}):
        text = str(schema.errors(value))
        assert secret not in text
        assert "4242" not in text


def test_errors_are_bounded_in_number_and_stay_on_one_line() -> None:
    schema = ParameterSchema({"items": {"type": "string"}, "propertyNames": {"maxLength": 3}})
    assert len(schema.errors([1] * 100_000)) == 500
    errors = schema.errors({"a\nb`" * 100: 1})
    assert "\n" not in errors[0][1]
    long = ParameterSchema({"required": ["x\n" * 500], "pattern": "a" * 3000})
    assert all(len(words) < 600 and "\n" not in words for value in ({}, "b") for _, words in long.errors(value))


def test_later_changes_to_the_document_mean_nothing() -> None:
    document: dict[str, Any] = {"enum": [{"a": [1]}], "properties": {"a": {"type": "array"}}}
    schema = ParameterSchema(document)
    document["enum"][0]["a"].append(2)
    document["properties"]["a"]["type"] = "string"
    assert schema.matches({"a": [1]})
    assert not schema.matches({"a": [1, 2]})


def test_the_metaschema_accepts_itself() -> None:
    for document in DOCUMENTS.values():
        assert schema_check._metaschema().matches(document)
