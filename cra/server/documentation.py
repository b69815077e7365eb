"""The service's own description, as JSON for tools and as a page for people."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from cra.server.call import Answer, Call, Response

HTML = "text/html; charset=utf-8"
_METHODS = ("get", "put", "post", "delete")
# The page has a style and nothing else: it runs no script and loads nothing from anywhere.
_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
code,pre{font:14px/1.4 ui-monospace,monospace;background:#f2f2f0;border-radius:3px}code{padding:.1em .3em}
pre{padding:.8rem;overflow:auto}h2{margin-top:2.5rem;border-bottom:1px solid #ccc}h3{margin:1.6rem 0 .2rem}
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}
summary{cursor:pointer}.m{font-weight:700}.p{color:#666}nav a{margin-right:1rem}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}code,pre{background:#262626}.p{color:#aaa}
a{color:#8ab4f8}h2{border-color:#444}}
"""


@cache
def document() -> bytes:
    """Return the OpenAPI document, with the schemas of the wire format in it."""
    return files("cra.server").joinpath("openapi.json").read_bytes()


async def openapi(call: Call) -> Answer:
    """Give the OpenAPI document."""
    return Response(document())


async def page(call: Call) -> Answer:
    """Give the documentation page."""
    return Response(_page(), media=HTML, headers=[(b"content-security-policy", _POLICY)])


@cache
def _page() -> bytes:
    """Return the document as HTML. Every text of it is escaped, although it is our own."""
    value: dict[str, Any] = json.loads(document())
    info, components = value["info"], value["components"]
    tags = value["tags"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>CRA</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_text(info['summary'])}</p>",
        *(f"<p>{_text(words)}</p>" for words in info["description"].split("\n\n")),
        '<p><a href="/openapi.json">openapi.json</a></p><nav>',
        *(f'<a href="#{escape(tag["name"])}">{escape(tag["name"])}</a>' for tag in tags),
        '<a href="#schemas">schemas</a></nav>',
    ]
    for tag in tags:
        parts.append(f'<h2 id="{escape(tag["name"])}">{escape(tag["name"])}</h2><p>{_text(tag["description"])}</p>')
        for path, item in value["paths"].items():
            for method in _METHODS:
                operation = item.get(method)
                if operation is not None and tag["name"] in operation["tags"]:
                    shared = item.get("parameters", [])
                    parts.append(_operation(path, method, operation, shared, components))
    parts.append('<h2 id="schemas">schemas</h2>')
    for name, schema in components["schemas"].items():
        text = escape(json.dumps(schema, indent=1, ensure_ascii=False))
        parts.append(
            f'<details id="schema-{escape(name)}"><summary>{escape(name)}</summary><pre>{text}</pre></details>'
        )
    parts.append("</body></html>")
    return "".join(parts).encode()


def _operation(path: str, method: str, operation: dict[str, Any], shared: list[Any], components: dict[str, Any]) -> str:
    permission = operation.get("x-permission")
    parts = [
        f'<h3 id="{escape(operation["operationId"])}"><span class="m">{method.upper()}</span> ',
        f'<code>{escape(path)}</code></h3><p>{_text(operation["summary"])}. <span class="p">',
        "No credential." if permission is None else f"Permission <code>{escape(permission)}</code>.",
        "</span></p>",
    ]
    if "description" in operation:
        parts.append(f"<p>{_text(operation['description'])}</p>")
    parameters = [_resolved(one, components) for one in [*shared, *operation.get("parameters", [])]]
    if parameters:
        rows = "".join(
            f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}</td>"
            f"<td>{_schema(one['schema'])}</td><td>{_text(one.get('description', ''))}</td></tr>"
            for one in parameters
        )
        parts.append(f"<table>{rows}</table>")
    body = operation.get("requestBody")
    if body is not None:
        parts.append(f"<p>Body: {_content(_resolved(body, components).get('content', {}))}</p>")
    for status, response in operation["responses"].items():
        found = _resolved(response, components)
        content = _content(found.get("content", {}))
        parts.append(f"<p><b>{escape(status)}</b> {_text(found.get('description', ''))} {content}</p>")
    return "".join(parts)


def _resolved(value: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    reference = value.get("$ref")
    if reference is None:
        return value
    _, _, kind, name = reference.split("/", 3)
    found: dict[str, Any] = components[kind][name]
    return found


def _content(content: dict[str, Any]) -> str:
    return ", ".join(f"<code>{escape(media)}</code> {_schema(one.get('schema', {}))}" for media, one in content.items())


def _schema(schema: dict[str, Any]) -> str:
    reference = schema.get("$ref")
    if reference is not None:
        name = reference.rsplit("/", 1)[1]
        return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
    return f"<code>{escape(json.dumps(schema, ensure_ascii=False))}</code>" if schema else ""


def _text(words: str) -> str:
    """Return prose as HTML, with what stands in backticks as code."""
    pieces = escape(words, quote=False).split("`")
    return "".join(f"<code>{piece}</code>" if at % 2 else piece for at, piece in enumerate(pieces))
