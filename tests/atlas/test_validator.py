"""What is wrong with an atlas is said all at once, each with its place."""

import copy
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra.atlas.loader import inspect_json, load_json
from cra.atlas.validator import dependency_problems, validate
from cra.errors import AtlasInvalid
from cra.protocol.schema import schemas

SCHEMA_CHECK = jsonschema.Draft202012Validator(schemas()["atlas-manifest"])
MINIMAL = {"atlas_version": "1.0", "atlas_id": "com.acme.notes", "version": "1.0.0", "name": "Notes"}
READ = {"action_id": "note.read", "name": "Read"}
WINDOW = {"start": "08:00", "end": "18:00"}


# Something of everything, to be broken.
WHOLE: dict[str, Any] = {
    **MINIMAL,
    "actions": [{**READ, "rate_limit": {"max_calls": 1, "window_seconds": 1}, "examples": [{}], "timeout_seconds": 5}],
    "capabilities": [{"capability_id": "c", "name": "C", "actions": ["note.*"], "context_packs": ["guide"]}],
    "context_packs": [{"pack_id": "guide", "name": "Guide", "files": ["a.md"], "max_tokens": 10, "priority": 5}],
    "policies": [
        {
            "policy_id": "rate",
            "type": "rate_limit",
            "actions": ["*"],
            "parameters": {"max_calls": 1, "window_seconds": 2},
        },
        {
            "policy_id": "spend",
            "type": "budget",
            "actions": ["*"],
            "parameters": {"limit": 1.5, "unit": "x", "window": "session", "per": "tenant", "cost": "/a"},
        },
        {"policy_id": "scope", "type": "scope", "actions": ["*"], "parameters": {"schema": {"required": ["a"]}}},
        {
            "policy_id": "hours",
            "type": "allow",
            "actions": ["*"],
            "priority": -1,
            "conditions": {
                "risk_tiers": ["low"],
                "agents": ["a*"],
                "capabilities": ["c"],
                "context_matches": {"k": "v"},
                "time_window": {**WINDOW, "timezone": "UTC", "days": ["mon"]},
                "parameters": True,
            },
        },
    ],
    "dependencies": {"com.acme.base": "^1.0.0"},
    "metadata": {"x": 1},
}
VALUES = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        2**70,
        1.5,
        "",
        "x",
        "a.b",
        "deny",
        "session",
        "1.0",
        "\n",
        "x" * 2000,
        [],
        {},
        [1],
        {"x": 1},
    ]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for step, inner in items for place in places(inner, (*path, step)))]


@st.composite
def broken(draw: st.DrawFn) -> Any:
    value: Any = copy.deepcopy(WHOLE)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(value)[1:] or [()]))
        if not path:
            break
        parent = value
        for step in path[:-1]:
            parent = parent[step]
        kind = draw(st.sampled_from(["replace", "remove", "add"]))
        if kind == "remove":
            del parent[path[-1]]
        elif kind == "add" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["colour", "reason", "name", "parameters", "conditions"]))] = copy.deepcopy(
                draw(VALUES)
            )
        else:
            parent[path[-1]] = copy.deepcopy(draw(VALUES))
    return value


@settings(max_examples=200)
@given(broken())
def test_the_committed_schema_and_the_loader_refuse_the_same_shapes(manifest: Any) -> None:
    assert validate(WHOLE, {"a.md": "text"}) == []
    problems = validate(manifest, {"a.md": "text"})
    shape = [problem for problem in problems if problem.code == "schema"]
    assert bool(shape) == (not SCHEMA_CHECK.is_valid(manifest)), problems
    assert problems == validate(manifest, {"a.md": "text"})
    for problem in shape:
        place = manifest
        # A pointer leads to what is there, or to the object in which something is missing.
        for step in problem.pointer.split("/")[1:]:
            place = place[int(step)] if isinstance(place, list) else place[step.replace("~1", "/").replace("~0", "~")]


def policy(**fields: Any) -> dict[str, Any]:
    return {"policy_id": "p", "type": "deny", "actions": ["note.*"], **fields}


def pack(**fields: Any) -> dict[str, Any]:
    return {"pack_id": "guide", "name": "Guide", "files": ["a.md"], **fields}


def atlas(**fields: Any) -> dict[str, Any]:
    return {**MINIMAL, "actions": [READ], **fields}


def found(manifest: Any, files: dict[str, Any] | None = None) -> list[tuple[str, str, str]]:
    return [(problem.code, problem.file, problem.pointer) for problem in validate(manifest, files)]


def test_a_good_atlas_has_no_problems() -> None:
    assert validate(atlas(policies=[policy()], context_packs=[pack()]), {"a.md": "text"}) == []


# (why, the manifest, code, pointer)
SCHEMA = [
    ("not an object", [], ""),
    ("unknown field", atlas(colour="red"), "/colour"),
    ("a field with a slash", {**MINIMAL, "a/b": 1}, "/a~1b"),
    ("wrong version of the format", atlas(atlas_version="2.0"), "/atlas_version"),
    ("bad id", atlas(atlas_id="Acme"), "/atlas_id"),
    ("line feed after an id", atlas(atlas_id="com.acme\n"), "/atlas_id"),
    ("bad version", atlas(version="1.0"), "/version"),
    ("name too long", atlas(name="x" * 101), "/name"),
    ("policies that are no array", atlas(policies={}), "/policies"),
    ("an action that is no object", atlas(actions=[READ, 1]), "/actions/1"),
    ("look-alike action id", atlas(actions=[{**READ, "action_id": "nоte.read"}]), "/actions/0/action_id"),
    ("action id in capitals", atlas(actions=[{**READ, "action_id": "Note.read"}]), "/actions/0/action_id"),
    ("unknown policy type", atlas(policies=[policy(type="maybe")]), "/policies/0/type"),
    ("a boolean for a number", atlas(policies=[policy(priority=True)]), "/policies/0/priority"),
    ("unknown condition", atlas(policies=[policy(conditions={"moon": "full"})]), "/policies/0/conditions/moon"),
    (
        "unknown risk tier",
        atlas(policies=[policy(conditions={"risk_tiers": ["huge"]})]),
        "/policies/0/conditions/risk_tiers/0",
    ),
    (
        "a clock that has no such hour",
        atlas(policies=[policy(conditions={"time_window": {**WINDOW, "end": "24:00"}})]),
        "/policies/0/conditions/time_window/end",
    ),
    (
        "unknown day",
        atlas(policies=[policy(conditions={"time_window": {**WINDOW, "days": ["monday"]}})]),
        "/policies/0/conditions/time_window/days/0",
    ),
    (
        "rate limit without a window",
        atlas(policies=[policy(type="rate_limit", parameters={"max_calls": 1})]),
        "/policies/0/parameters",
    ),
    ("rate limit without parameters", atlas(policies=[policy(type="rate_limit")]), "/policies/0"),
    (
        "rate limit of nothing",
        atlas(policies=[policy(type="rate_limit", parameters={"max_calls": 0, "window_seconds": 1})]),
        "/policies/0/parameters/max_calls",
    ),
    (
        "budget in a strange window",
        atlas(policies=[policy(type="budget", parameters={"limit": 1, "unit": "x", "window": "day"})]),
        "/policies/0/parameters/window",
    ),
    (
        "budget with a bad cost pointer",
        atlas(policies=[policy(type="budget", parameters={"limit": 1, "unit": "x", "window": 1, "cost": "amount"})]),
        "/policies/0/parameters/cost",
    ),
    ("scope without a schema", atlas(policies=[policy(type="scope", parameters={})]), "/policies/0/parameters"),
    (
        "deny with the parameters of a limit",
        atlas(policies=[policy(parameters={"max_calls": 1})]),
        "/policies/0/parameters/max_calls",
    ),
    ("timeout out of range", atlas(actions=[{**READ, "timeout_seconds": 301}]), "/actions/0/timeout_seconds"),
    ("pack priority out of range", atlas(context_packs=[pack(priority=1001)]), "/context_packs/0/priority"),
    ("dependency with a bad id", atlas(dependencies={"Bad": "*"}), "/dependencies/Bad"),
]


@pytest.mark.parametrize(("manifest", "pointer"), [case[1:] for case in SCHEMA], ids=[case[0] for case in SCHEMA])
def test_what_breaks_the_schema_is_told_with_its_place(manifest: Any, pointer: str) -> None:
    files = {"a.md": "text"}
    assert ("schema", "atlas.json", pointer) in found(manifest, files)
    assert {code for code, _, _ in found(manifest, files)} <= {"schema", "invalid_text"}
    # The committed schema and the structs say no to the same manifests.
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, schemas()["atlas-manifest"])


REMOTE = {"$ref": "https://example.org/schema.json"}
MEANING = [
    (
        "unknown action in a capability",
        atlas(capabilities=[{"capability_id": "c", "name": "C", "actions": ["note.*", "note.raed"]}]),
        "unknown_action",
        "/capabilities/0/actions/1",
    ),
    (
        "unknown pack in a capability",
        atlas(capabilities=[{"capability_id": "c", "name": "C", "context_packs": ["x"]}]),
        "unknown_pack",
        "/capabilities/0/context_packs/0",
    ),
    (
        "unknown capability in a policy",
        atlas(policies=[policy(conditions={"capabilities": ["c"]})]),
        "unknown_capability",
        "/policies/0/conditions/capabilities/0",
    ),
    (
        "unknown capability in a pack",
        atlas(context_packs=[pack(conditions={"capabilities": ["c"]})]),
        "unknown_capability",
        "/context_packs/0/conditions/capabilities/0",
    ),
    ("missing file", atlas(context_packs=[pack(files=["a.md", "b.md"])]), "missing_file", "/context_packs/0/files/1"),
    (
        "file above the folder",
        atlas(context_packs=[pack(files=["../a.md"])]),
        "path_escape",
        "/context_packs/0/files/0",
    ),
    (
        "file above the folder, later",
        atlas(context_packs=[pack(files=["context/../../a.md"])]),
        "path_escape",
        "/context_packs/0/files/0",
    ),
    ("absolute file", atlas(context_packs=[pack(files=["/etc/passwd"])]), "path_escape", "/context_packs/0/files/0"),
    ("backslashes", atlas(context_packs=[pack(files=["..\\a.md"])]), "path_escape", "/context_packs/0/files/0"),
    ("drive letter", atlas(context_packs=[pack(files=["C:a.md"])]), "path_escape", "/context_packs/0/files/0"),
    (
        "two spellings of one file",
        atlas(context_packs=[pack(files=["./a.md"])]),
        "path_escape",
        "/context_packs/0/files/0",
    ),
    (
        "a device of Windows",
        atlas(context_packs=[pack(files=["context/NUL.md"])]),
        "path_escape",
        "/context_packs/0/files/0",
    ),
    ("a hidden file", atlas(context_packs=[pack(files=[".env"])]), "path_escape", "/context_packs/0/files/0"),
    ("NUL in a file name", atlas(context_packs=[pack(files=["a\0.md"])]), "path_escape", "/context_packs/0/files/0"),
    ("the same action twice", atlas(actions=[READ, READ]), "duplicate_id", "/actions/1/action_id"),
    (
        "the same policy twice",
        atlas(policies=[policy(), policy(type="allow")]),
        "duplicate_id",
        "/policies/1/policy_id",
    ),
    ("the same pack twice", atlas(context_packs=[pack(), pack(files=[])]), "duplicate_id", "/context_packs/1/pack_id"),
    (
        "the same capability twice",
        atlas(capabilities=[{"capability_id": "c", "name": "C"}] * 2),
        "duplicate_id",
        "/capabilities/1/capability_id",
    ),
    (
        "the same file twice in a pack",
        atlas(context_packs=[pack(files=["a.md", "a.md"])]),
        "duplicate_id",
        "/context_packs/0/files/1",
    ),
    (
        "a policy named as an implicit one",
        {
            **MINIMAL,
            "actions": [{**READ, "requires_confirmation": True}],
            "policies": [policy(policy_id="note.read:requires_confirmation")],
        },
        "duplicate_id",
        "/policies/0/policy_id",
    ),
    ("dependency on itself", atlas(dependencies={"com.acme.notes": "*"}), "dependency", "/dependencies/com.acme.notes"),
    (
        "a range that is none",
        atlas(dependencies={"com.acme.base": "latest"}),
        "dependency",
        "/dependencies/com.acme.base",
    ),
    (
        "a range that nothing fits",
        atlas(dependencies={"com.acme.base": ">2 <1"}),
        "dependency",
        "/dependencies/com.acme.base",
    ),
    (
        "parameters_schema that is none",
        atlas(actions=[{**READ, "parameters_schema": {"type": "object", "properties": {"x": {"type": "text"}}}}]),
        "invalid_schema",
        "/actions/0/parameters_schema/properties/x/type",
    ),
    (
        "parameters that are no object",
        atlas(actions=[{**READ, "parameters_schema": {"type": "string"}}]),
        "invalid_schema",
        "/actions/0/parameters_schema/type",
    ),
    (
        "returns_schema that is none",
        atlas(actions=[{**READ, "returns_schema": {"minimum": "1"}}]),
        "invalid_schema",
        "/actions/0/returns_schema/minimum",
    ),
    (
        "a pattern that is none",
        atlas(actions=[{**READ, "parameters_schema": {"properties": {"x": {"pattern": "("}}}}]),
        "invalid_schema",
        "/actions/0/parameters_schema/properties/x/pattern",
    ),
    (
        "a reference to nothing",
        atlas(actions=[{**READ, "parameters_schema": {"properties": {"x": {"$ref": "#/$defs/y"}}}}]),
        "invalid_schema",
        "/actions/0/parameters_schema/properties/x/$ref",
    ),
    (
        "scope schema that is none",
        atlas(policies=[policy(type="scope", parameters={"schema": {"required": "x"}})]),
        "invalid_schema",
        "/policies/0/parameters/schema/required",
    ),
    (
        "condition schema that is none",
        atlas(policies=[policy(conditions={"parameters": {"enum": 1}})]),
        "invalid_schema",
        "/policies/0/conditions/parameters/enum",
    ),
    (
        "remote reference in parameters",
        atlas(actions=[{**READ, "parameters_schema": {"properties": {"x": REMOTE}}}]),
        "remote_ref",
        "/actions/0/parameters_schema/properties/x/$ref",
    ),
    (
        "remote reference in returns",
        atlas(actions=[{**READ, "returns_schema": {"items": {"$ref": "file:///etc/passwd"}}}]),
        "remote_ref",
        "/actions/0/returns_schema/items/$ref",
    ),
    (
        "remote reference in a condition",
        atlas(policies=[policy(conditions={"parameters": REMOTE})]),
        "remote_ref",
        "/policies/0/conditions/parameters/$ref",
    ),
    (
        "relative reference",
        atlas(actions=[{**READ, "parameters_schema": {"properties": {"x": {"$ref": "other.json"}}}}]),
        "remote_ref",
        "/actions/0/parameters_schema/properties/x/$ref",
    ),
    (
        "a time zone that does not exist",
        atlas(policies=[policy(conditions={"time_window": {**WINDOW, "timezone": "Mars/Olympus"}})]),
        "invalid_condition",
        "/policies/0/conditions/time_window/timezone",
    ),
    (
        "a time zone that is a path",
        atlas(policies=[policy(conditions={"time_window": {**WINDOW, "timezone": "../../etc/passwd"}})]),
        "invalid_condition",
        "/policies/0/conditions/time_window/timezone",
    ),
    (
        "the zone of whichever machine",
        atlas(policies=[policy(conditions={"time_window": {**WINDOW, "timezone": "localtime"}})]),
        "invalid_condition",
        "/policies/0/conditions/time_window/timezone",
    ),
    (
        "a window that never opens",
        atlas(policies=[policy(conditions={"time_window": {**WINDOW, "days": []}})]),
        "invalid_condition",
        "/policies/0/conditions/time_window/days",
    ),
    (
        "a condition that lists nothing",
        atlas(policies=[policy(conditions={"agents": []})]),
        "invalid_condition",
        "/policies/0/conditions/agents",
    ),
    (
        "a pack that asks for parameters",
        atlas(context_packs=[pack(conditions={"parameters": True})]),
        "invalid_condition",
        "/context_packs/0/conditions/parameters",
    ),
    ("a policy about nothing", atlas(policies=[policy(actions=[])]), "invalid_policy", "/policies/0/actions"),
    (
        "bidi override in a name",
        atlas(actions=[{**READ, "name": "Read \u202egnihtyna"}]),
        "invalid_text",
        "/actions/0/name",
    ),
    ("line feed in a name", atlas(name="Notes\nand more"), "invalid_text", "/name"),
    (
        "zero-width space in a policy id",
        atlas(policies=[policy(policy_id="p\u200b")]),
        "invalid_text",
        "/policies/0/policy_id",
    ),
    (
        "tag characters in a reason",
        atlas(policies=[policy(reason="no \U000e0041")]),
        "invalid_text",
        "/policies/0/reason",
    ),
    (
        "escape in a unit",
        atlas(policies=[policy(type="budget", parameters={"limit": 1, "unit": "\x1b[2J", "window": 1})]),
        "invalid_text",
        "/policies/0/parameters/unit",
    ),
    (
        "an example that does not fit",
        atlas(
            actions=[
                {
                    **READ,
                    "parameters_schema": {"properties": {"id": {"type": "integer"}}},
                    "examples": [{"id": 1}, {"id": "1"}],
                }
            ]
        ),
        "invalid_example",
        "/actions/0/examples/1/id",
    ),
]


@pytest.mark.parametrize(
    ("manifest", "code", "pointer"), [case[1:] for case in MEANING], ids=[case[0] for case in MEANING]
)
def test_what_cannot_be_meant_is_told_with_its_place(manifest: Any, code: str, pointer: str) -> None:
    assert found(manifest, {"a.md": "text"}) == [(code, "atlas.json", pointer)]
    with pytest.raises(AtlasInvalid):
        load_json(manifest, {"a.md": "text"})


@pytest.mark.parametrize(
    ("why", "name", "content", "code"),
    [
        ("latin-1", "a.md", b"Gr\xfc\xdfe", "not_utf8"),
        ("an overlong form", "a.md", b"\xc0\xaf", "not_utf8"),
        ("a NUL", "a.md", b"text\0", "not_utf8"),
        ("broken JSON", "a.json", b"{", "invalid_json"),
        ("a key twice", "a.json", b'{"a":1,"a":2}', "invalid_json"),
    ],
)
def test_documents_must_be_what_they_say(why: str, name: str, content: bytes, code: str) -> None:
    problems = found(atlas(context_packs=[pack(files=[name])]), {name: content})
    assert [(found_code, file) for found_code, file, _ in problems] == [(code, name)], why


def test_everything_is_told_at_once_in_a_fixed_order() -> None:
    manifest = atlas(
        name="",
        colour=1,
        policies=[policy(type="maybe"), policy(actions=[]), {"policy_id": "q"}],
        capabilities=[{"capability_id": "c", "name": "C", "actions": ["x.y"], "context_packs": ["x"]}],
        context_packs=[pack(files=["../x", "missing.md"])],
    )
    problems = found(manifest)
    assert [code for code, _, _ in problems] == [
        *["schema"] * 5, "duplicate_id", "unknown_action", "unknown_pack", "path_escape", "missing_file",
        "invalid_policy",
    ]  # fmt: skip
    assert problems == found(manifest)


def test_a_problem_in_a_part_names_its_file() -> None:
    files = {"policies/a.json": [policy(), {"policy_id": "q"}], "actions/b.json": {"actions": [{**READ, "x": 1}]}}
    texts = {path: json.dumps(value) for path, value in files.items()}
    assert found(MINIMAL, texts) == [
        ("schema", "actions/b.json", "/actions/0/x"),
        ("schema", "policies/a.json", "/1"),
        ("schema", "policies/a.json", "/1"),
    ]


def test_a_rule_in_an_unusual_file_is_refused_rather_than_overlooked() -> None:
    for path in ("policies/more/deny.json", "policies/deny.yaml", "policies/DENY.JSON", "actions/x.json.bak"):
        assert found(atlas(), {path: "{}"}) == [("unexpected_file", path, "")]


def test_an_id_in_a_broken_piece_still_counts() -> None:
    """One typo in an action must not make everything that names the action wrong too."""
    manifest = atlas(
        actions=[{**READ, "colour": 1}], capabilities=[{"capability_id": "c", "name": "C", "actions": ["note.read"]}]
    )
    assert found(manifest) == [("schema", "atlas.json", "/actions/0/colour")]


def test_an_atlas_of_rules_may_name_the_capabilities_of_others() -> None:
    rules = {**MINIMAL, "policies": [policy(conditions={"capabilities": ["ticket.write"]})]}
    assert validate(rules) == []
    assert validate({**atlas(**rules), "dependencies": {"com.acme.support": "^2.0.0"}}) == []


def test_dependencies_are_held_against_what_is_loaded() -> None:
    manifest = atlas(dependencies={"com.acme.base": "^1.2.0", "com.acme.other": "*"})
    assert validate(manifest) == []
    assert validate(manifest, versions={"com.acme.base": "1.9.0", "com.acme.other": "0.1.0"}) == []
    problems = validate(manifest, versions={"com.acme.base": "2.0.0"})
    assert [(p.code, p.pointer) for p in problems] == [
        ("dependency", "/dependencies/com.acme.base"),
        ("dependency", "/dependencies/com.acme.other"),
    ]
    assert dependency_problems(load_json(manifest).manifest, {"com.acme.base": "2.0.0"}) == problems


def test_messages_are_one_lower_case_clause() -> None:
    for _, manifest, *_ in [*SCHEMA, *MEANING]:
        for problem in validate(manifest, {"a.md": "text"}):
            assert problem.message
            assert "\n" not in problem.message
            assert not problem.message.endswith(".")
            assert not problem.message[0].isupper()
            assert problem.message.isprintable()


def warnings(manifest: Any, files: dict[str, str | bytes] | None = None) -> list[tuple[str, str]]:
    verdict = inspect_json(manifest, files)
    assert verdict.problems == []
    return [(warning.code, warning.pointer or warning.file) for warning in verdict.warnings]


NOTE = {**READ, "description": "Read a note.", "parameters_schema": {"type": "object"}}
GOOD = {**MINIMAL, "description": "Notes.", "actions": [NOTE]}


@pytest.mark.parametrize(
    ("more", "code", "pointer"),
    [
        ({"description": ""}, "no_description", "/description"),
        ({"actions": [{**NOTE, "description": ""}]}, "no_description", "/actions/0"),
        ({"actions": [{**NOTE, "parameters_schema": {}}]}, "no_schema", "/actions/0"),
        ({"policies": [policy(reason="r", actions=["note.write*"])]}, "matches_nothing", "/policies/0/actions/0"),
        ({"policies": [policy(reason="r", actions=["note.raed"])]}, "matches_nothing", "/policies/0/actions/0"),
        ({"policies": [policy()]}, "no_reason", "/policies/0"),
        (
            {"policies": [policy(reason="r"), policy(policy_id="a", type="allow", actions=["note.read"])]},
            "shadowed",
            "/policies/1",
        ),
        (
            {
                "actions": [NOTE, {**NOTE, "action_id": "note.write"}],
                "policies": [policy(type="allow", actions=["note.read"])],
            },
            "never_allowed",
            "/actions/1/action_id",
        ),
        (
            {"policies": [policy(type="budget", parameters={"limit": 1, "unit": "x", "window": 1, "cost": "/n"})]},
            "cost_missing",
            "/policies/0/parameters/cost",
        ),
        ({"context_packs": [pack(description="d", files=[])]}, "empty_pack", "/context_packs/0/files"),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(more: dict[str, Any], code: str, pointer: str) -> None:
    assert warnings({**GOOD, **more}) == [(code, pointer)]


def test_a_good_atlas_has_no_warnings() -> None:
    assert warnings(GOOD) == []
    denied = [policy(reason="r"), policy(policy_id="a", type="allow", actions=["other.x"])]
    assert ("never_allowed", "/actions/0/action_id") not in warnings({**GOOD, "policies": denied})


def test_documents_are_looked_through_for_what_readers_do_not_see() -> None:
    guide = {
        "capability_id": "c",
        "name": "C",
        "description": "d",
        "actions": ["note.read"],
        "context_packs": ["guide"],
    }
    manifest = {**GOOD, "capabilities": [guide], "context_packs": [pack(description="d", files=["context/a.md"])]}
    assert warnings(manifest, {"context/a.md": "text\r\n\tmore"}) == []
    assert warnings(manifest, {"context/a.md": "one\ntwo \U000e0049\U000e0067"}) == [("hidden_text", "context/a.md")]
    assert warnings(manifest, {"context/a.md": "  \n"}) == [("empty_file", "context/a.md")]
    assert warnings(manifest, {"context/a.md": "x", "context/b.md": "y"}) == [("unused_file", "context/b.md")]
    small = {**manifest, "context_packs": [pack(description="d", files=["context/a.md"], max_tokens=1)]}
    assert warnings(small, {"context/a.md": "too long"}) == [("never_sent", "/context_packs/0/files/0")]
    assert warnings({**manifest, "capabilities": [{**guide, "context_packs": []}]}, {"context/a.md": "x"}) == [
        ("unused_pack", "/context_packs/0/pack_id")
    ]
