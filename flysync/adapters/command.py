"""Commands of the platform's own, in its own language, that answer one question: an object of JSON in, one out."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from flysync.adapters.processes import PASSING, answer_of
from flysync.errors import ConfigError, DecryptFailed, FlysyncError, Scope, TokenFailed
from flysync.model import macaroon
from flysync.ports import Decryption, Tokens
from flysync.secret import Secret, masked
from flysync.settings import readers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flysync.model.core import AppName, ProjectId, SecretName

#: The most bytes of an answer.
_MOST_BYTES = 4 * 2**20
#: Variables that no command gets: the keys of Fly.io and Daytona, under whatever name their programs know.
_KEYS = ("FLY_", "FLYCTL_", "DAYTONA_")


class CommandDecryption(Decryption):
    """
    Asks *command*, split as a shell would and run without one, for at most *limit_s* seconds.

    It is asked once per call; of very many values, one part after the other. It gets
    `{"project": …, "values": {NAME: stored}}`, and gives `{"values": {NAME: value}, "failed": {NAME: reason}}`.
    """

    def __init__(self, command: str, *, limit_s: float = 10.0) -> None:
        self._command = _Command(command, DecryptFailed, Scope.SERVICE, limit_s)

    @override
    async def decrypt(self, project: ProjectId, stored: Mapping[SecretName, Secret]) -> Mapping[SecretName, Secret]:
        values: dict[SecretName, Secret] = {}
        for batch in _batches(stored):
            values |= await self._decrypt(project, batch)
        return values

    async def _decrypt(self, project: ProjectId, stored: Mapping[SecretName, str]) -> Mapping[SecretName, Secret]:
        answer = await self._command.ask({"project": project, "values": stored})
        values, failed = answer.get("values"), answer.get("failed", {})
        if not isinstance(values, dict) or not isinstance(failed, dict):
            raise self._command.failed("did not answer with values")
        # A name in neither, or in both, has failed.
        given = {name: values.get(name) for name in stored if name not in failed}
        return {name: Secret(value) for name, value in given.items() if isinstance(value, str)}


class CommandTokens(Tokens):
    """
    Asks *command*, as `CommandDecryption` does: it gets `{"project": …, "app": …}`, and gives `{"token": …}`.

    Where a token is to be *narrowed* to its app, it has to be one that can be.
    """

    def __init__(self, command: str, *, narrowed: bool, limit_s: float = 10.0) -> None:
        self._command, self._narrowed = _Command(command, TokenFailed, Scope.APP, limit_s), narrowed

    @override
    async def token(self, project: ProjectId, app: AppName) -> Secret:
        answer = await self._command.ask({"project": project, "app": app})
        given, whose = answer.get("token"), f"for {app} of {project}"
        if not isinstance(given, str) or not given.strip():
            raise TokenFailed(f"the command of FLYSYNC_TOKEN_COMMAND gave no token {whose}")
        try:
            token = masked(readers.fly_token(given.rstrip("\r\n")))
        except ValueError as problem:
            raise TokenFailed(f"what the command of FLYSYNC_TOKEN_COMMAND gave {whose} {problem}") from None
        if self._narrowed and not token.matches(macaroon.ALL_ARE):
            raise TokenFailed(f"FLYSYNC_NARROW_TOKEN needs a macaroon, and what the command gave {whose} is none")
        return token


class _Command:
    """A command of the platform's; it fails with *error* of the scope *scope*."""

    def __init__(self, command: str, error: type[FlysyncError], scope: Scope, limit_s: float) -> None:
        self._words, self._error, self._scope, self._limit_s = shlex.split(command), error, scope, limit_s

    async def ask(self, question: Mapping[str, object]) -> Mapping[str, Any]:
        """Give the answer. What it is, and what the command says besides, may hold values, and is never shown."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(_KEYS)}
        try:
            answer, code = await answer_of(
                *self._words,
                given=json.dumps(question).encode(),
                limit_s=self._limit_s,
                most_bytes=_MOST_BYTES,
                stderr=subprocess.DEVNULL,
                env=environ,
            )
        except TimeoutError:
            raise self.failed(f"gave no answer within {self._limit_s:g} s") from None
        except OSError as error:
            if error.errno in PASSING:
                raise self.failed(f"could not be started: {error.strerror}", Scope.SERVICE) from None
            setting = self._error.setting
            message = f"{setting}: {self._words[0]} cannot be run: {error.strerror}"
            raise ConfigError(message, setting=setting) from None
        if len(answer) > _MOST_BYTES:
            raise self.failed(f"answered with more than {_MOST_BYTES:,} bytes")
        if code:
            raise self.failed(f"was ended by signal {-code}" if code < 0 else f"ended with {code}")
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self.failed("did not answer with an object of JSON")
        return found

    def failed(self, what: str, scope: Scope | None = None) -> FlysyncError:
        """Give the error of a command that has failed for now."""
        message = f"the command of {self._error.setting} {what}"
        return self._error(message, for_now=True, scope=scope or self._scope)


def _batches(stored: Mapping[SecretName, Secret]) -> Iterator[Mapping[SecretName, str]]:
    """Give what is stored in parts, whose values stay below the limit even where each letter is escaped."""
    batch: dict[SecretName, str] = {}
    size_bytes = 0
    for name, secret in stored.items():
        if batch and size_bytes + secret.size_bytes > _MOST_BYTES // 8:
            yield batch
            batch, size_bytes = {}, 0
        batch[name] = secret.reveal()
        size_bytes += secret.size_bytes
    if batch:
        yield batch
