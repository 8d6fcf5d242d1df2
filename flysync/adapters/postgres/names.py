"""Ids and names: all that there are, those that a shell can complete, and those that may have been meant."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import psycopg

from flysync.adapters.postgres.encoding import clean
from flysync.model.reports import project_not_found

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import LiteralString

    from flysync.adapters.postgres.session import Session
    from flysync.errors import ProjectNotFound
    from flysync.model.core import AppName, ProjectId

#: The projects that have credentials.
_PROJECTS = """
    SELECT DISTINCT c.project_id::text FROM cloud_credentials AS c WHERE c.project_id IS NOT NULL ORDER BY 1
"""

#: The apps that were deployed last, each by a project that has not moved on since.
_NEWEST_APPS = """
    SELECT newest.app
    FROM (
        SELECT DISTINCT ON (d.project_id) d.fly_app_name::text AS app, d.created_at
        FROM project_deployments AS d
        WHERE btrim(d.fly_app_name) <> ''
        ORDER BY d.project_id, d.created_at DESC NULLS LAST, d.fly_app_name
    ) AS newest
    GROUP BY newest.app ORDER BY max(newest.created_at) DESC NULLS LAST, newest.app LIMIT %(limit)s
"""

#: The ids on both sides of the one that is wrong, as the database sorts them: read from the tables' indexes and no
#: further, however many there are. That is every id of some hundred projects; of a million, those that begin as the
#: wrong one does, up to the slip.
_NEAR = " UNION ".join(
    f"(SELECT DISTINCT project_id FROM {table} WHERE project_id {side} LIMIT 500)"
    for table in ("cloud_credentials", "project_deployments")
    for side in (">= %(project)s::text ORDER BY project_id", "< %(project)s::text ORDER BY project_id DESC")
)
_NEIGHBOURS = f"SELECT near.project_id::text FROM ({_NEAR}) AS near"

#: What is completed: the ids of projects, the names of credentials, or those of apps.
Known = Literal["project", "name", "app"]

_SOURCES: Mapping[Known, LiteralString] = {
    "project": """
        SELECT project_id::text AS name FROM cloud_credentials
        UNION ALL SELECT project_id::text FROM project_deployments
    """,
    "name": """
        SELECT credential_name::text AS name FROM cloud_credentials
        WHERE %(project)s::text IS NULL OR project_id = %(project)s::text
    """,
    "app": """
        SELECT fly_app_name::text AS name FROM project_deployments
        WHERE %(project)s::text IS NULL OR project_id = %(project)s::text
    """,
}

#: Only what every shell takes as it stands: others would have to be quoted, each in another way.
_QUERY: LiteralString = """
    SELECT DISTINCT known.name FROM ({source}) AS known
    WHERE starts_with(known.name, %(start)s::text) AND known.name ~ '^[A-Za-z0-9_][A-Za-z0-9_./+-]*$'
    ORDER BY known.name LIMIT 200
"""


async def all_projects(session: Session) -> list[ProjectId]:
    """Give the projects that have credentials, in order."""
    return await session.scalars(_PROJECTS)


async def newest_apps(session: Session, limit: int) -> list[AppName]:
    """Give the apps of the newest deployments."""
    return await session.scalars(_NEWEST_APPS, {"limit": limit})


async def unknown_project(session: Session, project: ProjectId, what: str) -> ProjectNotFound:
    """Give the error of a project that nobody knows, with what may have been meant where that is soon found."""
    known = []
    with suppress(psycopg.Error):  # the transaction ends here anyway, and the answer is the same without
        # Where the backend gives us views, or has no such index, Postgres would read and sort all.
        await session.execute("SET LOCAL statement_timeout = '1s'")
        known = await session.scalars(_NEIGHBOURS, {"project": clean(project)})
    return project_not_found(project, f"project {project} {what}", known)


async def complete(session: Session, kind: Known, start: str, project: str | None) -> list[str]:
    """Give what begins with *start*; names and apps are those of *project* where it is given."""
    await session.execute("SET LOCAL statement_timeout = '1s'")
    query = _QUERY.replace("{source}", _SOURCES[kind])
    return await session.scalars(query, {"start": start, "project": project})
