"""Ids and names: all that there are, those that a shell can complete, and those that may have been meant."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, LiteralString

import psycopg

from flysync.adapters.postgres import rows
from flysync.adapters.postgres.encoding import clean
from flysync.model.similar import MOST_PROJECTS, credential_hint, nearest_run, project_not_found

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.adapters.postgres.session import Session
    from flysync.errors import ProjectNotFound
    from flysync.model.core import AppName, ProjectId, SecretName

#: The apps that were deployed last, each by a project that has not moved on since.
_NEWEST_APPS = f"""
    SELECT newest.app, (array_agg(newest.id ORDER BY newest.created_at DESC NULLS LAST, newest.id))[1]
    FROM (
        SELECT DISTINCT ON (d.project_id) {rows.APP} AS app, left(d.project_id::text, 257) AS id, d.created_at
        FROM project_deployments AS d
        WHERE {rows.NAMES_APP}
        ORDER BY d.project_id, d.created_at DESC NULLS LAST, app
    ) AS newest
    GROUP BY newest.app ORDER BY max(newest.created_at) DESC NULLS LAST, newest.app LIMIT %(limit)s
"""

#: The ids on both sides of the one that is wrong, as the database sorts them: read from the tables' indexes and no
#: further, however many there are. That is every id of some hundred projects; of a million, those that begin as the
#: wrong one does, up to the typo.
_NEAR = " UNION ".join(
    f"(SELECT DISTINCT project_id FROM {table} WHERE project_id {side} LIMIT 500)"
    for table in ("cloud_credentials", "project_deployments")
    for side in (">= %(project)s::text ORDER BY project_id", "< %(project)s::text ORDER BY project_id DESC")
)
_NEIGHBOURS = f"SELECT left(near.project_id::text, 257) FROM ({_NEAR}) AS near"

#: The names of a project's credentials; and of some names the projects beside it that have one of that name: a few of
#: all, and those among the neighbours.
_SIMILAR = f"""
    SELECT
        (SELECT array_agg(own.name) FROM (
            SELECT DISTINCT left(c.credential_name::text, 129) AS name FROM cloud_credentials AS c
            WHERE c.project_id = %(project)s::text AND c.credential_name IS NOT NULL ORDER BY 1 LIMIT 500
         ) AS own),
        (SELECT array_agg(ROW(wanted.name, left(other.project_id, 257)))
         FROM unnest(%(names)s::text[]) AS wanted(name), LATERAL (
            (SELECT c.project_id::text FROM cloud_credentials AS c
             WHERE c.credential_name = wanted.name AND c.project_id <> %(project)s::text LIMIT {MOST_PROJECTS + 1})
            UNION
            SELECT near.project_id::text FROM ({_NEAR}) AS near
            WHERE near.project_id <> %(project)s::text AND EXISTS (
                SELECT FROM cloud_credentials AS c
                WHERE c.project_id = near.project_id AND c.credential_name = wanted.name
            )
         ) AS other)
"""

#: The ids of the newest runs, and those on both sides of one that is wrong, as the database sorts them.
_RUNS = """
    (SELECT r.run_id::text FROM flysync_runs AS r ORDER BY r.started_at DESC LIMIT 500)
    UNION (SELECT r.run_id::text FROM flysync_runs AS r WHERE r.run_id >= %(start)s ORDER BY r.run_id LIMIT 50)
    UNION (SELECT r.run_id::text FROM flysync_runs AS r WHERE r.run_id < %(start)s ORDER BY r.run_id DESC LIMIT 50)
"""

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
    WHERE length(known.name) <= 256 AND starts_with(known.name, %(start)s::text)
        AND known.name ~ '^[A-Za-z0-9_][A-Za-z0-9_./+-]*$'
    ORDER BY known.name LIMIT 200
"""


async def newest_apps(session: Session, limit: int) -> Mapping[AppName, ProjectId]:
    """Give app and project of the newest deployments."""
    return dict(await (await session.execute(_NEWEST_APPS, {"limit": limit}, binary=True)).fetchall())


async def unknown_project(session: Session, project: ProjectId, what: str) -> ProjectNotFound:
    """Give the error of a project that nobody knows, with what may have been meant where that is soon found."""
    known = [near for (near,) in await _soon(session, _NEIGHBOURS, {"project": clean(project)})]
    return project_not_found(project, what, known)


async def similar_credentials(
    session: Session, project: ProjectId, names: Sequence[SecretName]
) -> Mapping[SecretName, str]:
    """Give hints where credentials may be that a project does not have, as far as that is soon found."""
    hints = {}
    for known, others in await _soon(session, _SIMILAR, {"project": clean(project), "names": list(names)}):
        for name in names:
            elsewhere = sorted(its for wanted, its in others or () if wanted == name)
            if hint := credential_hint(name, project, known or (), elsewhere):
                hints[name] = hint
    return hints


async def similar_run(session: Session, start: str) -> str | None:
    """Give the run that may have been meant by the beginning of an id that none has."""
    return nearest_run(start, [known for (known,) in await _soon(session, _RUNS, {"start": start})])


async def _soon(session: Session, query: LiteralString, given: Mapping[str, object]) -> list[tuple[Any, ...]]:
    """
    Give the rows of the last query of a transaction, or none where that takes too long.

    Where the backend gives us views, or has no such index, Postgres would read and sort all; a hint is not worth that.
    """
    with suppress(psycopg.Error):
        await session.execute("SET LOCAL statement_timeout = '1s'")
        return await (await session.execute(query, given, binary=True)).fetchall()
    return []


async def complete(session: Session, kind: Known, start: str, project: str | None) -> list[str]:
    """Give what begins with *start*; names and apps are those of *project* where it is given."""
    await session.execute("SET LOCAL statement_timeout = '1s'")
    query = _QUERY.replace("{source}", _SOURCES[kind])
    return await session.scalars(query, {"start": start, "project": project})
