"""What gives tokens in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from flysync.errors import FlysyncError, TokenFailed
from flysync.ports import Tokens
from flysync.secret import Secret

if TYPE_CHECKING:
    from flysync.model.core import AppName, ProjectId


class InMemoryTokens(Tokens):
    """Gives each project's token, of which `calls` tell; `failures` are raised in its place."""

    def __init__(self, **tokens: str) -> None:
        self.tokens = tokens
        self.failures: dict[str, FlysyncError] = {}
        self.calls: list[tuple[str, str]] = []

    @override
    async def token(self, project: ProjectId, app: AppName) -> Secret:
        self.calls.append((project, app))
        if project in self.failures:
            raise self.failures[project]
        if project not in self.tokens:
            raise TokenFailed(f"no token for {app} of {project}")
        return Secret(self.tokens[project])
