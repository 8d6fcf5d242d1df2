"""What arguments and options may hold, whoever gives them: the command line, a worker, or a program of somebody's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

from flysync.errors import UsageError
from flysync.model.core import Origin, SyncOptions, is_app_name
from flysync.model.names import project_id, secret_name
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.model.core import ProjectId, SecretName

T = TypeVar("T")

#: The most characters of a text, and the most of a number of things; nobody's reason is longer, and each run keeps it.
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
    "int": (
        f"a number from 1 to {_LONGEST:,}",
        lambda given: isinstance(given, int) and not isinstance(given, bool) and 0 < given <= _LONGEST,
    ),
    "Origin": ("an Origin", lambda given: isinstance(given, Origin)),
    "ValueSource": ('"database" or "caller"', lambda given: given in ("database", "caller")),
    "Mapping[SecretName, Secret]": ("a mapping of names to values, each a Secret", _are_values),
}


def check(kind: str, **given: object) -> None:
    """Raise UsageError for the first that is not of the *kind*, a type as written; what it holds is never shown."""
    kind, _, optional = kind.partition(" | ")
    wanted, is_right = _WANTED[kind]
    for name, one in given.items():
        if not (optional and one is None) and not is_right(one):
            raise UsageError(f"{name} has to be {wanted}", hint=f"correct `{name}`, or the option of that name")


def checked_type(kind: type[T], given: object, field: str) -> T:
    """Give what a caller has given for *field*, and refuse what is not a *kind*, without showing it."""
    if not isinstance(given, kind):
        wanted = kind.__name__
        raise UsageError(f"{field} is of type {type(given).__name__}, not {wanted}", hint=f"give a {wanted}")
    return given


def checked_project(given: object) -> ProjectId:
    """Give the id of a project; UsageError: no project can have it."""
    return project_id(checked_type(str, given, "project"))


def checked_names(given: object) -> list[SecretName]:
    """Give the names of secrets, of which there is one at least; InvalidCredential: Fly would refuse one."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):  # a text is one, of letters
        raise UsageError(f"names is of type {type(given).__name__}, not a list of names", hint='give ["NAME"]')
    if not (names := [secret_name(checked_type(str, name, "a name")) for name in given]):
        raise UsageError("names is empty", hint='give ["NAME"]')
    return names


def check_options(options: SyncOptions) -> None:
    """Raise UsageError for the first field that does not hold what it has to, or for fields that contradict."""
    for field in fields(options):
        check(str(field.type), **{field.name: getattr(options, field.name)})
    if options.force and options.if_gone:
        raise UsageError("force and if_gone exclude each other", hint="leave one of them out")
    if not options.timeout_s:
        raise UsageError("timeout_s has to be more than 0", hint="give the seconds that a run may take")
