"""The parts of a proof, which are built for `flysync prove` alone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from flysync.adapters.postgres import Connection
from flysync.adapters.proving import SCHEMA, RealTrial
from flysync.adapters.proving_commands import Commands, environment
from flysync.adapters.proving_fly import AppAtFly
from flysync.bootstrap import given_secret
from flysync.ports import PROJECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flysync.model.core import AppName
    from flysync.ports import Services, Trial
    from flysync.secret import Secret
    from flysync.settings import Settings


@asynccontextmanager
async def open_trial(
    settings: Settings, app: AppName, *, services: Services, is_embedded: bool
) -> AsyncIterator[Trial]:
    """Give the trial of *app* in the database of *settings*, which has a platform's tables unless it *is_embedded*."""
    dsn = given_secret(settings.database_url)
    connection, backend = Connection(dsn, SCHEMA), Connection(dsn, settings.db_schema)

    async def token() -> Secret:
        return (await services.own_token(PROJECT, app)).get(app) or settings.shared_token

    try:
        yield RealTrial(
            app,
            connection=connection,
            backend=None if is_embedded else backend,
            commands=Commands(environment(settings, FLYSYNC_DB_SCHEMA=SCHEMA, FLYSYNC_APPS=app)),
            fly=AppAtFly(token=token, base_urls=settings.flyctl_base_urls, clock=services.clock),
        )
    finally:
        await connection.aclose()
        await backend.aclose()
