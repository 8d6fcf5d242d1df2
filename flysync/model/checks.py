"""What the options of a sync may hold, whoever gives them: the command line, a worker, or a program of somebody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from flysync.errors import UsageError
from flysync.model.core import Origin, SyncOptions, is_app_name
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

#: The most characters of a text; nobody's reason is longer, and each run keeps it.
_LONGEST = 1_000
#: Seconds; no sandbox should live longer.
LONGEST_S = 24 * 3600


def _are_values(given: object) -> bool:
    pairs = given.items() if isinstance(given, Mapping) else [(None, None)]
    return all(isinstance(name, str) and isinstance(value, Secret) for name, value in pairs)


#: By the type of a field: what it has to be, and whether it is.
_WANTED: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "bool": ("True or False", lambda given: isinstance(given, bool)),
    "str": (
        f"a text of 1 to {_LONGEST:,} characters",
        lambda given: isinstance(given, str) and 0 < len(given) <= _LONGEST,
    ),
    "AppName": ("the name of a Fly.io app", lambda given: isinstance(given, str) and is_app_name(given)),
    "float": (
        f"a number of seconds from 0 to {LONGEST_S:,}",
        lambda given: isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= LONGEST_S,
    ),
    "Origin": ("an Origin", lambda given: isinstance(given, Origin)),
    "ValueSource": ('"database" or "caller"', lambda given: given in ("database", "caller")),
    "Mapping[SecretName, Secret]": ("a mapping of names to values, each a Secret", _are_values),
}


def check_options(options: SyncOptions) -> None:
    """Raise UsageError for the first field that does not hold what it has to; what it holds is never shown."""
    for field in fields(options):
        kind, _, optional = str(field.type).partition(" | ")
        wanted, is_right = _WANTED[kind]
        given = getattr(options, field.name)
        if not (optional and given is None) and not is_right(given):
            hint = f"correct `{field.name}`, or the option of that name"
            raise UsageError(f"{field.name} has to be {wanted}", hint=hint)
    if options.force and options.if_gone:
        raise UsageError("force and if_gone exclude each other", hint="leave one of them out")
    if not options.timeout_s:
        raise UsageError("timeout_s has to be more than 0", hint="no run ends in no time")
