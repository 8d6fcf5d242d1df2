"""The example of docs/library.md: types are checked here, and tests/e2e/test_client.py runs it."""

from __future__ import annotations

import logging

import flysync

log = logging.getLogger(__name__)


async def save_key(client: flysync.Client, project: str, name: str) -> bool:
    """Copy a key that a user has just saved into their app; tell whether to try again later."""
    options = flysync.SyncOptions(reason="saved in the console", timeout_s=300)
    report = await client.sync(project, [name], options)
    for warning in report.warnings:
        log.warning("%s: %s", warning.code, warning.message)
    if report.error is None:
        log.info("%s: %s on %s, release %s", report.run_id, report.outcome, report.app, report.release)
        return False
    log.error("%s: %s", report.error.code, report.error.message)
    return report.error.temporary


async def behind(client: flysync.Client) -> dict[flysync.ProjectId, list[str]]:
    """Give what has not arrived, by project."""
    missing: dict[flysync.ProjectId, list[str]] = {}
    for line in (await client.status(behind=True)).lines:
        if line.name is not None and line.condition is not flysync.CredentialCondition.DEPLOYED:
            missing.setdefault(line.project, []).append(f"{line.name}: {line.condition}")
    return missing


async def main(project: str, name: str, database_url: str) -> bool:
    """Do both; every setting but this one is in the environment."""
    try:
        async with flysync.open(DATABASE_URL=database_url) as client:
            is_due_again = await save_key(client, project, name)
            log.info("behind: %s", await behind(client))
            for run in (await client.history(project, limit=5)).runs:
                log.info("%s %s %s", run.run_id, run.outcome, run.error_code)
            return is_due_again
    except flysync.ConfigError as error:
        log.exception("%s (%s)", error.message, error.hint)
        return False
    except flysync.DatabaseUnavailable:
        return True
