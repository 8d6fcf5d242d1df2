"""The projects that there are; and one that nobody knows, with those that may have been meant."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from flysync.adapters.postgres.encoding import clean
from flysync.model.reports import project_not_found

if TYPE_CHECKING:
    from flysync.adapters.postgres.session import Session
    from flysync.errors import ProjectNotFound
    from flysync.model.core import ProjectId

#: The ids on both sides of the one that is wrong, as the database sorts them: read from the tables' indexes and no
#: further, however many there are. That is every id of some hundred projects; of a million, those that begin as the
#: wrong one does, up to the slip.
_NEIGHBOURS = """
    SELECT near.id::text FROM (
        (SELECT DISTINCT c.project_id AS id FROM cloud_credentials AS c
         WHERE c.project_id >= %(project)s::text ORDER BY c.project_id LIMIT 500)
        UNION
        (SELECT DISTINCT c.project_id AS id FROM cloud_credentials AS c
         WHERE c.project_id < %(project)s::text ORDER BY c.project_id DESC LIMIT 500)
        UNION
        (SELECT DISTINCT d.project_id AS id FROM project_deployments AS d
         WHERE d.project_id >= %(project)s::text ORDER BY d.project_id LIMIT 500)
        UNION
        (SELECT DISTINCT d.project_id AS id FROM project_deployments AS d
         WHERE d.project_id < %(project)s::text ORDER BY d.project_id DESC LIMIT 500)
    ) AS near
"""


async def unknown(session: Session, project: ProjectId, message: str) -> ProjectNotFound:
    """Give the error of a project that nobody knows, with what may have been meant where that is soon found."""
    known = []
    with suppress(psycopg.Error):  # the transaction ends here anyway, and the answer is the same without
        # Where the backend gives us views, or has no such index, Postgres would read and sort all.
        await session.execute("SET LOCAL statement_timeout = '1s'")
        known = await session.scalars(_NEIGHBOURS, {"project": clean(project)})
    return project_not_found(project, message, known)


async def having_credentials(session: Session) -> list[ProjectId]:
    """Give the projects that have credentials, in order."""
    return await session.scalars(
        "SELECT DISTINCT c.project_id::text FROM cloud_credentials AS c WHERE c.project_id IS NOT NULL ORDER BY 1"
    )
