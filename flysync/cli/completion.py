"""
What a shell completes: ids of projects, names of credentials and of apps, as the database has them; never a value.

Silent and soon over, whatever happens: somebody has pressed a key and goes on typing. (Annotations are objects, for
Typer to find them.)
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.adapters.postgres.names import Known

#: Seconds for all of it; the database has one of them, but a keyring or a name server may not answer either.
_LIMIT_S = 3.0


def is_asked_for() -> bool:
    """Tell whether a shell has started this process to complete a line."""
    return "_FLYSYNC_COMPLETE" in os.environ


def be_silent() -> None:
    """Let nothing onto the line that somebody is typing, whoever writes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def projects(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the id of a project."""
    return _known(context, "project", incomplete)


def names(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a credential, one of the project's where that stands before it."""
    return _known(context, "name", incomplete)


def apps(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of an app, one of the project's where that stands before it."""
    return _known(context, "app", incomplete)


def _known(context: typer.Context, kind: "Known", start: str) -> list[str]:
    import threading

    given: dict[str, Any] = {}
    outer: Any = context
    while outer is not None:
        given = {**outer.params, **{name: value for name, value in given.items() if value}}
        outer = outer.parent
    found: list[str] = []
    thread = threading.Thread(target=_ask, args=(kind, start, given, found), daemon=True)
    thread.start()
    thread.join(_LIMIT_S)
    return list(found)


def _ask(kind: "Known", start: str, given: "Mapping[str, Any]", found: list[str]) -> None:
    """Add to *found* what the database knows."""
    import asyncio

    from flysync import bootstrap

    env_file = given.get("env_file")
    with suppress(Exception):
        settings = bootstrap.load_settings(bootstrap.DATABASE, env_file=Path(env_file) if env_file else None)
        found.extend(asyncio.run(bootstrap.known_names(settings, kind, start, given.get("project"))))
