"""Files of settings: read without interpolation, and refused if a line is malformed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.settings import Source

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, *, is_dot_env: bool = False) -> Source:
    """Give the settings in a file, and its problems (file and line number, never the line itself)."""
    from dotenv.parser import parse_stream

    label = path.name if is_dot_env else str(path)
    values, lines, problems = {}, {}, []
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for binding in parse_stream(stream):
                # A binding begins with the empty lines above it.
                text = binding.original.string
                line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                if binding.error or (binding.key is not None and binding.value is None):
                    problems.append(f"{label}:{line} is not NAME=VALUE")
                elif binding.key is not None:
                    values[binding.key], lines[binding.key] = binding.value or "", line
    except OSError as error:
        problems.append(f"cannot read {path}: {error.strerror}")
    except UnicodeDecodeError:
        problems.append(f"{label} is not UTF-8")
    return Source(label=label, values=values, lines=lines, is_dot_env=is_dot_env, problems=tuple(problems))
