"""
Shell completion: ids of projects, names of credentials and of apps, as the database has them; never a value.

Silent and quick, whatever happens: somebody has pressed a key and goes on typing. (Annotations are objects, for Typer
to find them.)
"""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flysync.adapters.postgres.names import Known

#: Seconds for all of it: the database has one, but a keyring or a name server may not answer either.
_LIMIT_S = 3.0


def of(kind: "Known") -> "Callable[[typer.Context, str], list[str]]":
    """Give what completes a project's id, a credential's name or an app's: of one project if --project is before it."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        import threading

        options: dict[str, Any] = {}
        outer: Any = context
        while outer is not None:
            options = {**outer.params, **{name: value for name, value in options.items() if value}}
            outer = outer.parent
        answers: list[str] = []
        thread = threading.Thread(target=_query, args=(kind, incomplete, options, answers), daemon=True)
        thread.start()
        thread.join(_LIMIT_S)
        return list(answers)

    return complete


def _query(kind: "Known", start: str, options: "Mapping[str, Any]", answers: list[str]) -> None:
    """Add to *answers* what the database has."""
    import asyncio

    from flysync import bootstrap

    env_file = options.get("env_file")
    with suppress(Exception):
        settings = bootstrap.load_settings(bootstrap.DATABASE, env_file=Path(env_file) if env_file else None)
        answers.extend(asyncio.run(bootstrap.known_names(settings, kind, start, options.get("project"))))
