"""What the server answers, written from the code: /openapi.json (OpenAPI 3.1), and /docs, a page without scripts."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from pydantic import TypeAdapter

from fullbake import __version__
from fullbake.serving.dialects.dialect import Operation, ServerDialect

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_REFERENCE: Final = "#/components/schemas/{model}"


@dataclass(frozen=True)
class ApiSection:
    """Operations that are documented together."""

    title: str
    dialect: ServerDialect
    """Whose errors they give."""

    operations: Sequence[Operation]


def describe_api(sections: Sequence[ApiSection]) -> dict[str, Any]:
    """Return the OpenAPI document of a server.

    Args:
        sections: All that it answers.
    """
    schemas, components = _schemas(sections)
    paths: dict[str, dict[str, Any]] = {}
    for section in sections:
        for operation in section.operations:
            paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(section, operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fullbake",
            "version": __version__,
            "summary": "Text classifiers behind the protocols of several servers.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": section.title} for section in sections],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A key of --api-key-file."},
            },
        },
        "security": [{"key": []}, {}],
    }


Schemas = Mapping[int, dict[str, Any]]
"""The schema of each type, by the type's id."""


def _schemas(sections: Sequence[ApiSection]) -> tuple[Schemas, dict[str, Any]]:
    """Return the schema of each request, response and error, and the definitions that they refer to."""
    inputs = [operation.request for section in sections for operation in section.operations]
    outputs = [operation.response for section in sections for operation in section.operations]
    outputs += [section.dialect.error for section in sections]
    wanted: dict[int, tuple[int, Any, TypeAdapter[Any]]] = {}
    for mode, types in (("validation", inputs), ("serialization", outputs)):
        for one in types:
            if one is not None:
                wanted[id(one)] = (id(one), mode, TypeAdapter(one))
    found, rest = TypeAdapter.json_schemas(wanted.values(), ref_template=_REFERENCE)
    return {key: schema for (key, _), schema in found.items()}, rest.get("$defs", {})


def _describe(section: ApiSection, operation: Operation, schemas: Schemas) -> dict[str, Any]:
    """Return the OpenAPI object of an operation."""
    ok: dict[str, Any] = {"description": "The answer."}
    if operation.response is not None:
        ok["content"] = {"application/json": {"schema": schemas[id(operation.response)]}}
    error = {"application/json": {"schema": schemas[id(section.dialect.error)]}}
    described: dict[str, Any] = {
        "tags": [section.title],
        "summary": operation.summary,
        "operationId": "_".join([operation.method.lower(), *re.findall(r"\w+", operation.path)]),
        "responses": {"200": ok, "default": {"description": "A refusal.", "content": error}},
    }
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.request is not None:
        described["requestBody"] = {
            "required": True,
            "content": {kind: _content(kind, operation, schemas) for kind in operation.content_types},
        }
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "description": "Name of the model.",
        }
        for name in _PARAMETER.findall(operation.path)
    ]
    if operation.chooses_model:
        text = "Name of the model; the first one by default."
        found.append({"name": "model", "in": "query", "schema": {"type": "string"}, "description": text})
    if operation.request is not None:
        text = "Seconds in which an answer is wanted, if less than the server allows."
        schema = {"type": "number", "exclusiveMinimum": 0}
        found.append({"name": "x-timeout", "in": "header", "schema": schema, "description": text})
    return found


def _content(kind: str, operation: Operation, schemas: Schemas) -> dict[str, Any]:
    if kind != "application/json":
        return {"schema": {"type": "string"}}
    found: dict[str, Any] = {"schema": schemas[id(operation.request)]}
    if operation.example is not None:
        found["example"] = operation.example
    return found


def render_documentation(document: Mapping[str, Any], address: str) -> str:
    """Return the page of an OpenAPI document: plain HTML, which loads one stylesheet of this server and nothing else.

    Args:
        document: As `describe_api` gives it.
        address: Where the server is, for the examples: `http://127.0.0.1:8000`.
    """
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>fullbake: HTTP</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="stylesheet" href="page/docs.css"></head><body><main>',
        "<h1>fullbake: HTTP</h1>",
        '<p>Each protocol has errors of its own shape. For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    operations = [(path, method, one) for path, by in document["paths"].items() for method, one in by.items()]
    titles = [tag["name"] for tag in document["tags"]]
    links = "".join(f'<li><a href="#{_anchor(title)}">{escape(title)}</a></li>' for title in titles)
    parts.append(f"<nav><ul>{links}</ul></nav>")
    components = document["components"]["schemas"]
    for title in titles:
        parts.append(f'<section id="{_anchor(title)}"><h2>{escape(title)}</h2>')
        parts += [
            _operation_part(path, method, one, address, components)
            for path, method, one in operations
            if title in one["tags"]
        ]
        parts.append("</section>")
    parts.append("</main></body></html>")
    return "\n".join(parts)


def _anchor(title: str) -> str:
    return "-".join(re.findall(r"\w+", title.lower()))


def _operation_part(
    path: str, method: str, described: Mapping[str, Any], address: str, components: Mapping[str, Any]
) -> str:
    """Return the article of one operation."""
    parts = [f"<article><h3><code>{method.upper()} {escape(path)}</code></h3><p>{escape(described['summary'])}</p>"]
    contents = described.get("requestBody", {}).get("content", {})
    body = contents.get("application/json")
    command = f"curl {address}{_PARAMETER.sub('NAME', path)}"
    if body is not None:
        example = json.dumps(body.get("example", {}), ensure_ascii=False).replace("'", "'\\''")
        command += f" -H 'content-type: application/json' -d '{example}'"
    parts.append(f"<pre><code>{escape(command)}</code></pre>")
    if body is not None:
        parts.append(_fields_table(body["schema"], components))
    parts += [
        f"<details><summary>{name}</summary><pre><code>{escape(_pretty(schema, components))}</code></pre></details>"
        for name, schema in _shown_schemas(described)
    ]
    return "".join(parts) + "</article>"


def _shown_schemas(described: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the schemas of an operation's JSON, with their headings."""
    body = described.get("requestBody", {}).get("content", {})
    responses = described["responses"]
    contents = [
        ("Schema of the request", body),
        ("Schema of the answer", responses["200"].get("content", {})),
        ("Schema of an error", responses["default"].get("content", {})),
    ]
    return [(name, found["application/json"]["schema"]) for name, found in contents if "application/json" in found]


def _resolve(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    found: Mapping[str, Any] = schema if reference is None else components[reference.rpartition("/")[2]]
    return found


def _pretty(schema: Mapping[str, Any], components: Mapping[str, Any]) -> str:
    return json.dumps(_resolve(schema, components), indent=2, ensure_ascii=False)


def _fields_table(schema: Mapping[str, Any], components: Mapping[str, Any]) -> str:
    """Return a table of the fields of a body, with what they mean."""
    found = _resolve(schema, components)
    needed = found.get("required", [])
    rows = [
        f"<tr><th><code>{escape(name)}</code></th><td>{'required' if name in needed else ''}</td>"
        f"<td>{_with_code(field.get('description', ''))}</td></tr>"
        for name, field in sorted(found.get("properties", {}).items(), key=lambda one: one[0] not in needed)
    ]
    return f"<table>{''.join(rows)}</table>"


def _with_code(text: str) -> str:
    """Return a description as HTML, with what stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
