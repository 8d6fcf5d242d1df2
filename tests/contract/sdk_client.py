"""The unmodified Daytona SDK as the simulator's tests use it."""

from __future__ import annotations

import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest
    from daytona import AsyncDaytona

    from flysync.sim.daytona import Daytona


def isolate_sdk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Keep the SDK from this machine's settings: proxies, .netrc, .env of the working directory, telemetry.

    What flysync sets for it is put back after the test.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("DAYTONA_OTEL_ENABLED", "DAYTONA_EXPERIMENTAL_OTEL_ENABLED"):
        monkeypatch.setenv(name, "false")
    for name in ("DAYTONA_TARGET", "DAYTONA_ORGANIZATION_ID", "DAYTONA_JWT_TOKEN"):
        monkeypatch.setenv(name, "")


@asynccontextmanager
async def sdk(daytona: Daytona, *, api_key: str = "") -> AsyncIterator[AsyncDaytona]:
    """
    Give a client of *daytona* that asks for states instead of waiting for events.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from daytona import AsyncDaytona, DaytonaConfig

        config = DaytonaConfig(
            api_key=api_key or daytona.api_key,
            api_url=daytona.api_url,
            target="us",
            use_deprecated_polling=True,
        )
        client = AsyncDaytona(config)
    async with client:
        yield client
