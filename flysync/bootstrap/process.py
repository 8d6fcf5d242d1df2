"""The settings of this process: from its environment, files, and the system's keyring."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flysync import settings
from flysync.settings import dotenv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flysync.model.config import ConfigReport
    from flysync.secret import Secret
    from flysync.settings import Settings, Source

#: What a command needs that uses only the database.
DATABASE = ("DATABASE_URL",)
#: What `sandbox list` and `sandbox prune` need.
SANDBOXES = (*DATABASE, "DAYTONA_API_KEY")
#: What `snapshot build` and `snapshot list` need.
SNAPSHOTS = ("DAYTONA_API_KEY",)
#: What a sync needs.
SYNC = ("DATABASE_URL", "FLY_API_TOKEN", "DAYTONA_API_KEY")
#: What the worker needs.
WORKER = (*SYNC, "REDIS_URL")


def load_settings(
    required: Iterable[str] = SYNC,
    *,
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """
    Read the settings of this process: its environment, *env_file*, `.env` in *directory*, the system's keyring.

    Raises:
        ConfigError: all problems, in one message.
    """
    from flysync.adapters.keyring import look_up

    sources, problems = _sources(env_file, environ, directory)
    return settings.load(sources, needs=tuple(required), lookup=look_up, user=_user(), problems=problems)


def survey_settings(*, env_file: Path | None = None, with_keyring: bool = True) -> tuple[ConfigReport, Settings]:
    """
    Give what may be shown of every setting of this process, with its source, and those that are valid.

    A setting that is invalid counts as not set among the latter.
    """
    from flysync.adapters.keyring import look_up

    sources, problems = _sources(env_file)
    lookup = look_up if with_keyring else None
    return settings.survey(sources, lookup=lookup, user=_user(), problems=problems)


def keep_secret(name: str, value: Secret) -> None:
    """
    Store a secret in the system's keyring, and make sure that it is there.

    Raises:
        ConfigError: no keyring here is safe, or it failed.
    """
    from flysync.adapters.keyring import store

    store(name, value)


def forget_secret(name: str) -> bool:
    """
    Remove a secret from the system's keyring; tell whether it was there.

    Raises:
        ConfigError: it may still be there.
    """
    from flysync.adapters.keyring import remove

    return remove(name)


def _sources(
    env_file: Path | None, environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> tuple[list[Source], list[str]]:
    """Give the sources of this process' settings in order of precedence, and their problems."""
    sources = [settings.Source(label="environment", values=os.environ if environ is None else environ)]
    problems: list[str] = []
    dot_env = (directory or Path()) / ".env"
    for path, is_dot_env in ((env_file, False), (dot_env, True)):
        if path is None or (is_dot_env and not path.is_file()):
            continue
        try:
            source, problems_there = dotenv.read(path, is_dot_env=is_dot_env)
        except OSError as error:
            problems.append(f"cannot read {path}: {error.strerror}")
        else:
            sources.append(source)
            problems += problems_there
    return sources, problems


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container that has no name for its user
        return f"uid {os.getuid()}"
