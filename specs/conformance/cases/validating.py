"""Cases of atlases and all the problems each one has: (file, pointer, code), in any order."""

# ruff: noqa: E501 - a case reads best on few lines

from typing import Any

from specs.conformance.cases.make import Json, action, atlas, capability, pack, rule

Problem = tuple[str, str, str]


def case(
    case_id: str, why: str, manifest: Any, *problems: tuple[str, str], files: dict[str, str] | None = None
) -> Json:
    """Return a case whose problems are all in atlas.json."""
    return folder(case_id, why, manifest, *(("atlas.json", pointer, code) for pointer, code in problems), files=files)


def folder(case_id: str, why: str, manifest: Any, *problems: Problem, files: dict[str, str] | None = None) -> Json:
    """Return a case with other files beside atlas.json."""
    return {
        "id": case_id,
        "why": why,
        "manifest": manifest,
        "files": files or {},
        "expected": [{"file": file, "pointer": pointer, "code": code} for file, pointer, code in sorted(problems)],
    }


ONE = "com.acme.one"


def one(policies: list[Json] | None = None, **fields: Any) -> Json:
    """Return an atlas of the one action `ticket.get`."""
    return atlas(ONE, ["ticket.get"], policies, **fields)


def schema(value: Any) -> Json:
    """Return an atlas whose one action has the parameters schema."""
    return atlas(ONE, [action("ticket.get", parameters_schema=value)])


ATLAS_VALIDATION = [
    case("good", "nothing is wrong", one([rule("p", "deny", "*.delete")])),
    case("good-globs-in-capability", "a capability may name globs", one(capabilities=[capability("read", "ticket.*")])),
    case("good-files", "files are there", one(context_packs=[pack("guide", "context/a.md")]),
         files={"context/a.md": "text"}),
    case("good-glob-matches-nothing", "a glob that matches nothing is a warning, not a problem",
         one([rule("p", "deny", "orders.*")])),
    case("good-foreign-capability", "an atlas of rules only may speak of other atlases' capabilities",
         atlas(ONE, [], [rule("p", "deny", conditions={"capabilities": ["pay"]})])),
    folder("good-parts", "policies and actions may stand in files of their own", atlas(ONE, []),
           files={"actions/get.json": '{"action_id":"ticket.get","name":"Get"}',
                  "policies/deny.json": '{"policy_id":"p","type":"deny","actions":["*.delete"]}'}),
    case("schema-one", "a wrong type", one(description=1), ("/description", "schema")),
    case("schema-all", "all problems are reported at once",
         {**one(), "atlas_version": "2.0", "version": "1", "name": ""},
         ("/atlas_version", "schema"), ("/name", "schema"), ("/version", "schema")),
    case("schema-missing", "a missing field is a problem of the object",
         {key: value for key, value in one().items() if key != "version"}, ("", "schema")),
    case("schema-unknown", "an unknown field is named itself", one(polices=[]), ("/polices", "schema")),
    case("schema-in-policy", "policy parameters have a schema by type",
         one([rule("p", "rate_limit", parameters={"max_calls": 0, "window_seconds": 60})]),
         ("/policies/0/parameters/max_calls", "schema")),
    case("schema-rate-missing", "a rate limit says how many calls", one([rule("p", "rate_limit")]),
         ("/policies/0", "schema")),
    case("schema-budget-limit", "a budget is above 0",
         one([rule("p", "budget", parameters={"limit": 0, "unit": "EUR", "window": 60})]),
         ("/policies/0/parameters/limit", "schema")),
    case("schema-budget-window", "a window is a number of seconds or `session`",
         one([rule("p", "budget", parameters={"limit": 1, "unit": "EUR", "window": "day"})]),
         ("/policies/0/parameters/window", "schema")),
    case("schema-scope", "a scope has a schema", one([rule("p", "scope")]), ("/policies/0", "schema")),
    case("schema-parameters-unknown", "a deny has no parameters but a reason",
         one([rule("p", "deny", parameters={"max_calls": 1})]), ("/policies/0/parameters/max_calls", "schema")),
    case("unknown-action", "a capability names an action that is not declared",
         one(capabilities=[capability("read", "ticket.get", "ticket.list")]),
         ("/capabilities/0/actions/1", "unknown_action")),
    case("unknown-capability", "a condition names a capability that is not declared",
         one([rule("p", "deny", conditions={"capabilities": ["raed"]})], capabilities=[capability("read", "ticket.get")]),
         ("/policies/0/conditions/capabilities/0", "unknown_capability")),
    case("unknown-pack", "a capability names a pack that is not declared",
         one(capabilities=[capability("read", context_packs=["guide"])]),
         ("/capabilities/0/context_packs/0", "unknown_pack")),
    case("missing-file", "a file that is not there", one(context_packs=[pack("guide", "context/a.md")]),
         ("/context_packs/0/files/0", "missing_file")),
    case("path-parent", "a path that leaves the folder", one(context_packs=[pack("guide", "../secret.md")]),
         ("/context_packs/0/files/0", "path_escape")),
    case("path-inner-parent", "also in the middle", one(context_packs=[pack("guide", "context/../../a.md")]),
         ("/context_packs/0/files/0", "path_escape")),
    case("path-inner-parent-harmless", "one file has one spelling, so not even where it would stay inside",
         one(context_packs=[pack("guide", "context/../a.md")]), ("/context_packs/0/files/0", "path_escape"),
         files={"a.md": "text"}),
    case("path-absolute", "an absolute path", one(context_packs=[pack("guide", "/etc/passwd")]),
         ("/context_packs/0/files/0", "path_escape")),
    case("path-drive", "a drive letter", one(context_packs=[pack("guide", "C:/a.md")]),
         ("/context_packs/0/files/0", "path_escape")),
    case("path-backslash", "a backslash", one(context_packs=[pack("guide", "context\\a.md")]),
         ("/context_packs/0/files/0", "path_escape")),
    case("path-url", "a URL is not a path", one(context_packs=[pack("guide", "https://example.com/a.md")]),
         ("/context_packs/0/files/0", "path_escape")),
    case("path-dot", "a dot segment", one(context_packs=[pack("guide", "./a.md")]),
         ("/context_packs/0/files/0", "path_escape"), files={"a.md": "text"}),
    case("duplicate-action", "two actions of one id", atlas(ONE, ["ticket.get", "ticket.get"]),
         ("/actions/1/action_id", "duplicate_id")),
    case("duplicate-policy", "two policies of one id, of different types", one([rule("p", "deny"), rule("p", "allow")]),
         ("/policies/1/policy_id", "duplicate_id")),
    case("duplicate-implied-policy", "a policy may not take the id of an implied one",
         atlas(ONE, [action("ticket.get", requires_confirmation=True)], [rule("ticket.get:requires_confirmation", "deny")]),
         ("/policies/0/policy_id", "duplicate_id")),
    case("duplicate-capability", "two capabilities of one id",
         one(capabilities=[capability("read", "ticket.get"), capability("read", "ticket.get")]),
         ("/capabilities/1/capability_id", "duplicate_id")),
    case("duplicate-pack", "two packs of one id",
         one(context_packs=[pack("guide", "a.md"), pack("guide", "b.md")]), ("/context_packs/1/pack_id", "duplicate_id"),
         files={"a.md": "a", "b.md": "b"}),
    case("duplicate-file-in-pack", "one file twice in a pack is two blocks of one id",
         one(context_packs=[pack("guide", "a.md", "a.md")]), ("/context_packs/0/files/1", "duplicate_id"),
         files={"a.md": "a"}),
    folder("duplicate-across-files", "a part in a file of its own counts too", one(),
           ("actions/get.json", "/action_id", "duplicate_id"),
           files={"actions/get.json": '{"action_id":"ticket.get","name":"Get"}'}),
    case("dependency-range", "a range that is not one", one(dependencies={"com.acme.two": "newest"}),
         ("/dependencies/com.acme.two", "dependency")),
    case("dependency-empty-range", "a range that no version satisfies", one(dependencies={"com.acme.two": ">2.0.0 <1.0.0"}),
         ("/dependencies/com.acme.two", "dependency")),
    case("dependency-self", "an atlas that depends on itself", one(dependencies={ONE: "^1.0.0"}),
         (f"/dependencies/{ONE}", "dependency")),
    case("invalid-schema", "a schema that is not valid", schema({"type": "strin"}),
         ("/actions/0/parameters_schema/type", "invalid_schema")),
    case("invalid-schema-inside", "deep inside", schema({"properties": {"a": {"minimum": "1"}}}),
         ("/actions/0/parameters_schema/properties/a/minimum", "invalid_schema")),
    case("invalid-schema-pattern", "a pattern that is not a regular expression",
         schema({"properties": {"a": {"pattern": "("}}}),
         ("/actions/0/parameters_schema/properties/a/pattern", "invalid_schema")),
    case("invalid-schema-returns", "in returns_schema", atlas(ONE, [action("ticket.get", returns_schema={"type": 1})]),
         ("/actions/0/returns_schema/type", "invalid_schema")),
    case("invalid-schema-condition", "in a parameters condition",
         one([rule("p", "deny", conditions={"parameters": {"required": "id"}})]),
         ("/policies/0/conditions/parameters/required", "invalid_schema")),
    case("invalid-schema-scope", "in a scope", one([rule("p", "scope", parameters={"schema": {"enum": 1}})]),
         ("/policies/0/parameters/schema/enum", "invalid_schema")),
    case("invalid-schema-dangling", "a reference to nothing", schema({"$ref": "#/$defs/missing"}),
         ("/actions/0/parameters_schema/$ref", "invalid_schema")),
    case("remote-ref", "a remote reference is never fetched", schema({"$ref": "https://example.com/schema.json"}),
         ("/actions/0/parameters_schema/$ref", "remote_ref")),
    case("remote-ref-file", "nor is a file", schema({"properties": {"a": {"$ref": "other.json"}}}),
         ("/actions/0/parameters_schema/properties/a/$ref", "remote_ref")),
    case("invalid-policy-no-actions", "a policy about nothing", one([{"policy_id": "p", "type": "deny", "actions": []}]),
         ("/policies/0/actions", "invalid_policy")),
    case("invalid-condition-zone", "a time zone that does not exist",
         one([rule("p", "deny", conditions={"time_window": {"start": "09:00", "end": "17:00", "timezone": "Mars/Base"}})]),
         ("/policies/0/conditions/time_window/timezone", "invalid_condition")),
    case("invalid-condition-empty", "an empty list would never hold",
         one([rule("p", "deny", conditions={"agents": []})]), ("/policies/0/conditions/agents", "invalid_condition")),
    case("invalid-condition-pack-parameters", "a pack is chosen before any call",
         one(context_packs=[pack("guide", "a.md", conditions={"parameters": {}})]),
         ("/context_packs/0/conditions/parameters", "invalid_condition"), files={"a.md": "a"}),
    folder("invalid-json", "a part that is not JSON", one(), ("policies/p.json", "", "invalid_json"),
           files={"policies/p.json": "{"}),
    folder("invalid-json-duplicate-key", "a key twice could be read in two ways", one(),
           ("policies/p.json", "/type", "invalid_json"),
           files={"policies/p.json": '{"policy_id":"p","type":"deny","type":"allow","actions":["*"]}'}),
    case("many-at-once", "schema and meaning together",
         one([rule("p", "deny"), rule("p", "deny")], name="", capabilities=[capability("read", "ticket.list")],
             context_packs=[pack("guide", "../a.md", "b.md")]),
         ("/capabilities/0/actions/0", "unknown_action"), ("/context_packs/0/files/0", "path_escape"),
         ("/context_packs/0/files/1", "missing_file"), ("/name", "schema"), ("/policies/1/policy_id", "duplicate_id")),
]  # fmt: skip
