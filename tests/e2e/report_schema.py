"""What `--json` prints, held to the schema that `flysync schema` prints; and that schema as types of TypeScript."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator, FormatChecker

import flysync
from flysync.cli import render

if TYPE_CHECKING:
    from flysync.model.reports import Note, Report

SCHEMA: dict[str, Any] = json.loads((Path(flysync.__file__).parent / "cli/schema.json").read_text())

_FORMATS = FormatChecker(formats=())


def _is_a_time(text: object) -> bool:
    return not isinstance(text, str) or datetime.fromisoformat(text).tzinfo is not None


_FORMATS.checks("date-time", raises=ValueError)(_is_a_time)


def _strict() -> dict[str, Any]:
    """Give the schema without room for keys that it does not name: callers have to bear them, and we must not add."""
    strict = deepcopy(SCHEMA)
    for name, definition in strict["$defs"].items():
        if name != "Result":  # a whole of its own in `projects`, a part in the report
            _close(definition)
    for whole in (strict, strict["properties"]["projects"]["items"]):
        whole["unevaluatedProperties"] = False
    return strict


def _close(schema: object) -> None:
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _close(part)
    if isinstance(schema, dict) and isinstance(schema.get("properties"), dict) and "type" in schema:
        schema["additionalProperties"] = False


_VALIDATOR = Draft202012Validator(_strict(), format_checker=_FORMATS)


def checked(report: dict[str, Any]) -> dict[str, Any]:
    """Give what a command has printed, which is as the schema says."""
    _VALIDATOR.validate(report)
    return report


def as_json(command: str, report: Report, notes: tuple[Note, ...] = ()) -> dict[str, Any]:
    """Give a report as JSON, which is as the schema says."""
    return checked(json.loads(json.dumps(render.as_json(command, report, notes))))


def typescript() -> str:
    """Give the schema as types of TypeScript."""
    head = f"// {SCHEMA['description']} Made from `flysync schema`.\n"
    types = {SCHEMA["title"]: SCHEMA, **SCHEMA["$defs"]}
    return head + "".join(f"\n{_doc(one, '')}export {_declared(name, one)}" for name, one in types.items())


def _declared(name: str, schema: dict[str, Any]) -> str:
    if "properties" not in schema:
        return f"type {name} = {_type(schema)};\n"
    extends = "".join(f" extends {_type(one)}" for one in schema.get("allOf", ()))
    lines = (
        f"{_doc(one, '  ')}  {key}{'' if key in schema['required'] else '?'}: {_type(one)};\n"
        for key, one in schema["properties"].items()
    )
    return f"interface {name}{extends} {{\n{''.join(lines)}}}\n"


def _doc(schema: dict[str, Any], indent: str) -> str:
    return f"{indent}/** {schema['description']} */\n" if "description" in schema and "title" not in schema else ""


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(one) for one in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " | ".join(map(_type, schema["anyOf"]))
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " | ".join(_kind(kind, schema) for kind in kinds)


def _kind(kind: str, schema: dict[str, Any]) -> str:
    if kind == "array":
        return f"{_type(schema['items'])}[]"
    if kind == "object":
        more = schema.get("additionalProperties")
        return f"Record<string, {_type(more) if more else 'unknown'}>"
    return "number" if kind == "integer" else kind
