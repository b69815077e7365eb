"""The HTTP surface is a valid OpenAPI 3.1 document that speaks in the wire format's own schemas."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_spec_validator.readers import read_from_filename

from specs.bundle import BUNDLE, bundle

SPECS = Path(__file__).resolve().parents[2] / "specs"
METHODS = {"get", "put", "post", "delete", "patch"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded, _ = read_from_filename(str(SPECS / "openapi.yaml"))
    return dict(loaded)


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    base = (SPECS / "openapi.yaml").as_uri()
    assert [error.message for error in OpenAPIV31SpecValidator(document, base_uri=base).iter_errors()] == []


def test_every_operation_names_its_permission_or_says_that_it_needs_none(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        assert ("x-permission" in operation) != (operation.get("security") == []), f"{method} {path}"


def test_operation_ids_are_unique_and_every_error_is_a_problem(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations(document):
        if "x-permission" in operation:
            assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}, f"{method} {path}"


def test_the_document_that_the_service_gives_is_this_one_with_the_schemas_in_it() -> None:
    assert BUNDLE.read_bytes() == bundle(), "stale: run `python -m specs.bundle`"
    value = json.loads(bundle())
    assert [error.message for error in OpenAPIV31SpecValidator(value).iter_errors()] == []
    references = re.findall(r'"\$ref":"([^"]+)"', bundle().decode())
    assert references
    assert [one for one in references if not one.startswith("#/")] == []


def test_every_schema_of_the_wire_format_is_used(document: dict[str, Any]) -> None:
    text = (SPECS / "openapi.yaml").read_text(encoding="utf-8")
    for schema in (SPECS / "schemas").glob("*.json"):
        assert f"schemas/{schema.name}" in text
