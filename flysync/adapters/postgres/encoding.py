"""Texts as Postgres can hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping


def clean(text: str) -> str:
    """Give *text* without NUL, and without anything that is not UTF-8."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def as_json(value: Mapping[str, object]) -> str:
    """Give *value* as JSON that is clean throughout."""
    return json.dumps(_cleaned(value), ensure_ascii=False)


def _cleaned(value: object) -> object:
    match value:
        case str():
            return clean(value)
        case Mapping():
            return {clean(str(key)): _cleaned(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_cleaned(inner) for inner in value]
        case _:
            return value
