"""
Commands in a sandbox of Daytona's, by its SDK (daytona.md 3).

What Daytona says about an `exec` is never shown: it may quote the environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.adapters.daytona_errors import cancellable, did_not_run, translated
from flysync.errors import AccessDenied, DaytonaUnavailable
from flysync.ports import AnswerLost, NotSent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daytona import AsyncSandbox

    from flysync.secret import Secret


class DaytonaSandbox:
    """A sandbox (port `Sandbox`)."""

    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox
        self.id: str = sandbox.id

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        """Run *script* by `process.exec`; see the port for what may be raised."""
        # Raised here, where no frame and no exception behind it holds the request, values included.
        answer = await self._run(script, env, timeout_s)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _run(self, script: str, env: Mapping[str, Secret], timeout_s: int) -> str | NotSent | AnswerLost:
        from daytona import DaytonaError

        try:
            revealed = {name: secret.reveal() for name, secret in env.items()}
            answer = await cancellable(self._sandbox.process.exec(script, env=revealed, timeout=timeout_s))
        except DaytonaError as error:
            cause = translated(error, "exec")
            if isinstance(cause, AccessDenied):
                # The proxy says 401 of a sandbox that it does not know (read: v0.190 proxy/auth.go); the same key has
                # just made or found this one.
                cause = DaytonaUnavailable(
                    f"the sandbox is gone ({error.status_code})", service="daytona", phase="exec"
                )
            return NotSent(cause) if did_not_run(error) else AnswerLost(cause)
        except Exception as error:  # noqa: BLE001 - whatever a bug of the SDK's says, it may quote the request
            kind = type(error).__name__
            return AnswerLost(DaytonaUnavailable(f"Daytona's SDK failed ({kind})", service="daytona", phase="exec"))
        return answer.result or ""
