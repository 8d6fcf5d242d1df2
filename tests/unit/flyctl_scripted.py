"""A sandbox that answers the steps of flyctl's adapter as it is told."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flysync.adapters.flyctl import FlyctlSandbox, Source, Steps
from flysync.errors import DaytonaUnavailable
from flysync.model.core import AppName, RunId
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.ports import SecretStore

FOUND = '1 {"Version": "0.4.87"}'
GONE = DaytonaUnavailable("the sandbox is gone", service="daytona")


class Clock:
    """A clock that does not wait."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def jitter(self) -> float:
        return 0.5

    def new_id(self) -> str:
        return "1"


def told(code: int, stdout: str = "", stderr: str | None = "") -> str:
    """Give what a part prints; NONCE and PART stand for the step's nonce and the part's name."""
    streams = {"out": stdout, "err": stderr}
    lines = [
        f"NONCE:PART:{name}:{base64.b64encode(text.encode()).decode()}\n"
        for name, text in streams.items()
        if text is not None
    ]
    return "".join([*lines, f"NONCE:PART:code:{code}\n"])


def replayed(code: int, stdout: str = "") -> str:
    """Give what a replay of a part that writes prints."""
    return told(code, stdout, None)


class Scripted:
    """
    A sandbox (port `Sandbox`) that answers as it is told: one answer per request, of one text per part.

    Of the parts for which there is none, nothing is heard.
    """

    id = "box"

    def __init__(self, *answers: str | tuple[str, ...] | Exception) -> None:
        self.answers = list(answers)
        self.steps: list[str] = []

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        del env, timeout_s
        step, nonce = re.search(r"steps/(\S+)\"", script), re.search(r"printf \"(\w+):%s:%s", script)
        parts = re.search(r"for p in ([a-z -]+);", script)
        assert step
        assert nonce
        assert parts
        self.steps.append(step[1])
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        texts = (answer,) if isinstance(answer, str) else answer
        return "".join(
            text.replace("NONCE", nonce[1]).replace("PART", part)
            for text, part in zip(texts, parts[1].split(), strict=False)
        )


def flyctl(sandbox: Scripted, *sums: str, left_s: float = 600) -> FlyctlSandbox:
    steps = Steps(
        sandbox=sandbox, run_id=RunId("run"), token=Secret("token"), base_urls={}, clock=Clock(), end_at=left_s
    )
    return FlyctlSandbox(steps, source=Source(version="0.4.87", install_url="http://127.0.0.1/install.sh", sums=sums))


async def store(sandbox: Scripted, *, left_s: float = 600) -> SecretStore:
    """Give the secrets of an app, by a flyctl that was found; that step is not among `steps`."""
    sandbox.answers.insert(0, told(0, FOUND))
    found = flyctl(sandbox, left_s=left_s)
    await found.prepare()
    sandbox.steps.clear()
    return found.secrets(AppName("acme"))
