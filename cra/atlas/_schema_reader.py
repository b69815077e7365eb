"""From a JSON Schema document to the nodes that `cra._core.schema` evaluates."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urljoin

from cra._core.pattern import Pattern
from cra._core.schema import Node, Schema
from cra.atlas._metaschema import DIALECT
from cra.atlas.regex import compile_pattern
from cra.errors import InvalidInput

__all__ = ["MAX_DEPTH", "MAX_VALUES", "Issue", "copied", "pointer_to", "read_schema"]

# (JSON pointer, words)
Issue = tuple[str, str]

# A schema is a small document; these are far above any that a person or a generator writes for one action.
MAX_VALUES = 50_000
MAX_DEPTH = 64
# How many schemas may apply to one place through references and alternatives inside each other.
MAX_CHAIN = 128
_LARGEST = 1 << 62

_ONE = (
    "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")


class _Resource:
    """A schema with a URI of its own, and the anchors in it."""

    def __init__(self, uri: str, root: Any, pointer: str, *, bundled: bool) -> None:
        self.uri = uri
        self.root = root
        self.pointer = pointer
        self.bundled = bundled
        self.anchors: dict[str, tuple[Any, str]] = {}
        self.dynamic: set[str] = set()
        self.targets: dict[str, Node] = {}


def copied(value: Any, issues: list[Issue]) -> Any:
    """Return a deep copy of a JSON value, or note what is no JSON, too deep or too large."""
    left = MAX_VALUES

    def copy(value: Any, path: tuple[str | int, ...]) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            issues.append(("", f"schema has more than {MAX_VALUES} values"))
        if left <= 0:
            return None
        if value is None or isinstance(value, (bool, str, int)):
            return value
        if isinstance(value, float):
            if not math.isfinite(value):
                issues.append((pointer_to(path), "number is not finite"))
                return 0
            return value
        if not isinstance(value, (dict, list, tuple)):
            issues.append((pointer_to(path), f"`{type(value).__name__}` is not a JSON type"))
            return None
        if len(path) >= MAX_DEPTH:
            issues.append((pointer_to(path), f"schema nests more than {MAX_DEPTH} levels"))
            return None
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    issues.append((pointer_to(path), "a property name is not a string"))
                    return None
            return {key: copy(item, (*path, key)) for key, item in value.items()}
        return [copy(item, (*path, index)) for index, item in enumerate(value)]

    return copy(value, ())


def read_schema(
    document: Any, bundled: Mapping[str, Any], judge: Callable[[Any], list[Issue]] | None = None
) -> tuple[Schema | None, list[Issue]]:
    """Return the schema ready to evaluate, or None and everything that stands against it.

    The document is a copy that nobody else changes, and valid under the metaschema; `judge` tells that of places which
    only a reference makes a schema. References lead inside the document or to `bundled` documents, never elsewhere.
    """
    reader = _Reader(bundled, judge)
    root = reader.read(document)
    if reader.issues:
        return None, sorted(set(reader.issues))
    return Schema(root, reader.dynamic), []


class _Reader:
    def __init__(self, bundled: Mapping[str, Any], judge: Callable[[Any], list[Issue]] | None) -> None:
        self.bundled = bundled
        self.judge = judge
        self.issues: list[Issue] = []
        self.dynamic = False
        self.resources: dict[str, _Resource] = {}
        self.owners: dict[int, _Resource] = {}  # by id() of each schema; the documents outlive the reader
        self.nodes: dict[int, Node] = {}
        self.waiting: list[tuple[Any, Node, _Resource, str]] = []
        self.patterns: dict[str, Pattern] = {}
        self.in_place: dict[int, list[tuple[int, str]]] = {}  # id() of schema: those that apply to the same place

    def read(self, document: Any) -> Node:
        home = self.add_document("", document, bundled=False)
        root = self.node(document, home, "")
        self.define_waiting()
        # Whatever resource is entered on the way may answer a dynamic reference, so all of their anchors become nodes.
        done = False
        while self.dynamic and not done:
            done = True
            for resource in list(self.resources.values()):
                for name in resource.dynamic - resource.targets.keys():
                    schema, pointer = resource.anchors[name]
                    resource.targets[name] = self.node(schema, resource, pointer)
                    done = False
            self.define_waiting()
        self.check_progress()
        return root

    def define_waiting(self) -> None:
        while self.waiting:
            schema, node, resource, pointer = self.waiting.pop()
            node.define(self.rules(schema, resource, pointer))

    def add_document(self, uri: str, document: Any, *, bundled: bool) -> _Resource:
        resource = _Resource(uri, document, "", bundled=bundled)
        self.resources.setdefault(uri, resource)
        self.scan(document, resource, "")
        return self.owners.get(id(document), resource)

    def issue(self, resource: _Resource, pointer: str, words: str) -> None:
        # What stands in a bundled document has no place in the one that is read.
        self.issues.append(("" if resource.bundled else pointer, words))

    def scan(self, schema: Any, resource: _Resource, pointer: str) -> None:
        """Find the resources and anchors in a schema and all below it."""
        if not isinstance(schema, dict) or id(schema) in self.owners:
            return
        given = schema.get("$id")
        if isinstance(given, str):
            uri = self.join(resource, given.removesuffix("#"), f"{pointer}/$id")
            if uri != resource.uri or pointer:
                if (uri and uri in self.resources) or (uri in self.bundled and not resource.bundled):
                    self.issue(resource, f"{pointer}/$id", f"`$id` `{_shown(uri)}` is taken")
                resource = _Resource(uri, schema, pointer, bundled=resource.bundled)
                self.resources.setdefault(uri, resource)
        self.owners[id(schema)] = resource
        dialect = schema.get("$schema", DIALECT)
        if dialect != DIALECT:
            self.issue(resource, f"{pointer}/$schema", f"`$schema` is `{_shown(dialect)}`, expected `{DIALECT}`")
        for keyword in ("$anchor", "$dynamicAnchor"):
            name = schema.get(keyword)
            if isinstance(name, str):
                if name in resource.anchors and resource.anchors[name][0] is not schema:
                    self.issue(resource, f"{pointer}/{keyword}", f"anchor `{_shown(name)}` is taken")
                resource.anchors[name] = (schema, pointer)
                if keyword == "$dynamicAnchor":
                    resource.dynamic.add(name)
        for inner, step in _subschemas(schema):
            self.scan(inner, resource, pointer + step)

    def node(self, schema: Any, resource: _Resource, pointer: str) -> Node:
        """Return the node of a schema, which is defined later."""
        known = self.nodes.get(id(schema)) if isinstance(schema, dict) else None
        if known is not None:
            return known
        node = Node()
        if isinstance(schema, dict):
            self.nodes[id(schema)] = node
        self.waiting.append((schema, node, self.owners.get(id(schema), resource), pointer))
        return node

    def rules(self, schema: Any, resource: _Resource, pointer: str) -> dict[str, Any]:
        if schema is True or schema is False:
            return {"never": not schema}
        if not isinstance(schema, dict):
            self.issue(resource, pointer, "expected a schema, which is an object or a boolean")
            return {}
        rules: dict[str, Any] = {"resource": resource.targets}
        all_of: list[Node] = []
        in_place = self.in_place.setdefault(id(schema), [])

        def node(inner: Any, step: str) -> Node:
            return self.node(inner, resource, pointer + step)

        def here(inner: Any, step: str) -> Node:
            in_place.append((id(inner), pointer + step))
            return node(inner, step)

        if "type" in schema:
            rules["type"] = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if "enum" in schema:
            rules["enum"] = schema["enum"]
        if "const" in schema:
            constant = Node()
            constant.define({"enum": [schema["const"]]})
            if "enum" in rules:
                all_of.append(constant)
            else:
                rules["enum"] = [schema["const"]]
        for keyword, rule in _LIMITS.items():
            if keyword in schema:
                rules[rule] = schema[keyword]
        for keyword, rule in _COUNTS.items():
            if keyword in schema:
                rules[rule] = min(int(schema[keyword]), _LARGEST)
        if "uniqueItems" in schema:
            rules["unique_items"] = schema["uniqueItems"]
        if "pattern" in schema:
            rules["pattern"] = self.pattern(schema["pattern"], resource, f"{pointer}/pattern")
        for keyword, rule in _NODES.items():
            if keyword in schema:
                rules[rule] = node(schema[keyword], f"/{keyword}")
        if "prefixItems" in schema:
            rules["prefix_items"] = tuple(node(s, f"/prefixItems/{i}") for i, s in enumerate(schema["prefixItems"]))
        if "required" in schema:
            rules["required"] = schema["required"]
        if "properties" in schema:
            rules["properties"] = {
                name: node(inner, f"/properties/{_escape(name)}") for name, inner in schema["properties"].items()
            }
        if "patternProperties" in schema:
            found = []
            for source, inner in schema["patternProperties"].items():
                place = f"/patternProperties/{_escape(source)}"
                pattern = self.pattern(source, resource, pointer + place)
                if pattern is not None:
                    found.append((pattern, node(inner, place)))
            rules["pattern_properties"] = tuple(found)
        if "dependentRequired" in schema:
            rules["dependent_required"] = tuple((k, tuple(v)) for k, v in sorted(schema["dependentRequired"].items()))
        if "dependentSchemas" in schema:
            rules["dependent_schemas"] = tuple(
                (name, here(inner, f"/dependentSchemas/{_escape(name)}"))
                for name, inner in sorted(schema["dependentSchemas"].items())
            )
        for keyword, rule in (("anyOf", "any_of"), ("oneOf", "one_of")):
            if keyword in schema:
                rules[rule] = tuple(here(inner, f"/{keyword}/{i}") for i, inner in enumerate(schema[keyword]))
        all_of += [here(inner, f"/allOf/{i}") for i, inner in enumerate(schema.get("allOf", ()))]
        for keyword in ("not", "if", "then", "else"):
            if keyword in schema:
                rules[keyword] = here(schema[keyword], f"/{keyword}")
        self.references(schema, resource, pointer, rules, all_of)
        if all_of:
            rules["all_of"] = tuple(all_of)
        return rules

    def references(
        self, schema: dict[str, Any], resource: _Resource, pointer: str, rules: dict[str, Any], all_of: list[Node]
    ) -> None:
        for keyword in ("$ref", "$dynamicRef"):
            if keyword not in schema:
                continue
            place = f"{pointer}/{keyword}"
            found = self.resolve(schema[keyword], resource, place)
            if found is None:
                continue
            target, home, inner = found
            node = self.node(target, home, inner)
            self.in_place[id(schema)].append((id(target), place))
            name = unquote(schema[keyword].partition("#")[2])
            home = self.owners.get(id(target), home)
            if keyword == "$dynamicRef" and name in home.dynamic and home.anchors[name][0] is target:
                self.dynamic = True
                rules["dynamic"], rules["dynamic_name"] = node, name
            else:
                all_of.append(node)

    def resolve(self, reference: str, resource: _Resource, place: str) -> tuple[Any, _Resource, str] | None:
        """Return the schema that a reference names, its resource and pointer, or note why there is none."""
        uri, _, fragment = reference.partition("#")
        fragment = unquote(fragment)
        absolute = resource.uri if not uri else self.join(resource, uri, place)
        home = self.resources.get(absolute)
        if home is None and absolute in self.bundled:
            home = self.add_document(absolute, self.bundled[absolute], bundled=True)
        if home is None:
            words = f"`{_shown(reference)}` leads outside the schema, and nothing is ever fetched"
            self.issue(resource, place, words)
            return None
        if not fragment:
            return home.root, home, home.pointer
        if not fragment.startswith("/"):
            found = home.anchors.get(fragment)
            if found is None:
                self.issue(resource, place, f"`{_shown(reference)}` names an anchor that is not there")
                return None
            return found[0], home, found[1]
        target, pointer = home.root, home.pointer
        for step in fragment[1:].split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isascii() and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            else:
                self.issue(resource, place, f"`{_shown(reference)}` leads to nothing in the schema")
                return None
            home = self.owners.get(id(target), home)
            pointer += f"/{step}"
        if isinstance(target, dict) and id(target) not in self.owners:
            # A place that only this reference makes a schema.
            if self.judge is not None and (wrong := self.judge(target)):
                self.issues += [(pointer + inner, words) for inner, words in wrong]
                return None
            self.scan(target, home, pointer)
            home = self.owners[id(target)]
        return target, home, pointer

    def join(self, resource: _Resource, uri: str, pointer: str) -> str:
        try:
            return urljoin(resource.uri, uri)
        except ValueError:  # such as `http://[`
            self.issue(resource, pointer, f"`{_shown(uri)}` is not a URI reference")
            return uri

    def pattern(self, source: str, resource: _Resource, pointer: str) -> Pattern | None:
        known = self.patterns.get(source)
        if known is None:
            try:
                known = self.patterns[source] = compile_pattern(source)
            except InvalidInput as error:
                self.issue(resource, pointer, error.message + (f"; {error.hint}" if error.hint else ""))
        return known

    def check_progress(self) -> None:
        """Refuse schemas that apply to one place without end, or through too long a chain."""
        chains: dict[int, int] = {}
        for start in self.in_place:
            stack = [(start, iter(self.in_place[start]))]
            open_ones = {start}
            if start in chains:
                continue
            chains[start] = 0
            while stack:
                current, inner = stack[-1]
                for target, place in inner:
                    if target in open_ones:
                        self.issues.append((place, "leads back to itself without going deeper into the value"))
                    elif target in chains:
                        chains[current] = max(chains[current], chains[target] + 1)
                    elif target in self.in_place:
                        chains[target] = 0
                        open_ones.add(target)
                        stack.append((target, iter(self.in_place[target])))
                        break
                else:
                    stack.pop()
                    open_ones.discard(current)
                    if stack:
                        chains[stack[-1][0]] = max(chains[stack[-1][0]], chains[current] + 1)
        if max(chains.values(), default=0) > MAX_CHAIN:
            self.issues.append(("", f"more than {MAX_CHAIN} schemas apply to one place through each other"))


_LIMITS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "exclusiveMinimum": "exclusive_minimum",
    "exclusiveMaximum": "exclusive_maximum",
    "multipleOf": "multiple_of",
}
_COUNTS = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_items",
    "maxItems": "max_items",
    "minContains": "min_contains",
    "maxContains": "max_contains",
    "minProperties": "min_properties",
    "maxProperties": "max_properties",
}
_NODES = {
    "items": "items",
    "contains": "contains",
    "additionalProperties": "additional_properties",
    "propertyNames": "property_names",
    "unevaluatedItems": "unevaluated_items",
    "unevaluatedProperties": "unevaluated_properties",
}


def _subschemas(schema: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    for keyword in _ONE:
        if keyword in schema:
            yield schema[keyword], f"/{keyword}"
    for keyword in _MANY:
        inner = schema.get(keyword)
        if isinstance(inner, list):
            for index, item in enumerate(inner):
                yield item, f"/{keyword}/{index}"
    for keyword in _NAMED:
        inner = schema.get(keyword)
        if isinstance(inner, dict):
            for name, item in inner.items():
                yield item, f"/{keyword}/{_escape(name)}"


def pointer_to(path: tuple[str | int, ...]) -> str:
    """Return the RFC 6901 pointer of a path."""
    return "".join(f"/{_escape(str(step))}" for step in path)


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _shown(text: Any) -> str:
    text = str(text)
    return "".join(c if c.isprintable() and c != "`" else f"\\u{ord(c):04x}" for c in text[:80])
