"""The one command that comes next, on the way from nothing to the first sync."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.model.reports import NextStep, command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.model.summary import Summary

_AGAIN = "then run `flysync doctor` again"
#: By the setting that is missing.
SETTINGS: Mapping[str, NextStep] = {
    "DATABASE_URL": NextStep(
        command="export DATABASE_URL=postgresql://USER:PASSWORD@HOST:5432/DATABASE",
        why=f"the Postgres in which your backend keeps the credentials; whoever hosts it shows this address; {_AGAIN}",
    ),
    "FLY_API_TOKEN": NextStep(
        command='export FLY_API_TOKEN="$(fly tokens create org -o ORG)"',
        why=f"a token for all apps of your organization ORG at Fly.io, made by whoever is logged in there; {_AGAIN}",
    ),
    "DAYTONA_API_KEY": NextStep(
        command="export DAYTONA_API_KEY=dtn_…",
        why="make one at app.daytona.io, under Keys; its sandboxes reach Fly.io from the organization's Tier 3 on;"
        f" {_AGAIN}",
    ),
}
_A_CREDENTIAL = NextStep(
    command="INSERT INTO cloud_credentials (project_id, credential_name, credential_value)"
    " VALUES ('proj123', 'AWS_ACCESS_KEY_ID', '…')",
    why=f"no credential is there yet: save one, as your backend does; {_AGAIN}",
)


def first_sync(summary: Summary) -> NextStep:
    """Give the sync that is due, or the row without which there is none."""
    if summary.failed:
        return NextStep(command="flysync status --behind", why="shows what has not arrived, and why")
    if summary.oldest is not None:
        words = ("sync-project", "--project", summary.oldest)
        return NextStep(command=command(*words), why="sends what is not deployed, with one restart of its app")
    if not summary.credentials:
        return _A_CREDENTIAL
    if summary.no_app.count + summary.no_credentials.count == summary.projects:
        project = summary.no_app.first[0].replace("'", "''")
        insert = f"INSERT INTO project_deployments (project_id, fly_app_name) VALUES ('{project}', 'APP')"  # noqa: S608 - it is shown
        return NextStep(command=insert, why=f"no project with credentials has an app at Fly.io yet; {_AGAIN}")
    return NextStep(command="flysync status", why="shows what is not deployed yet")
