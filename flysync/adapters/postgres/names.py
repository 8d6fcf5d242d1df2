"""Ids and names that a shell can complete; never a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import LiteralString

    from flysync.adapters.postgres.session import Session

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


def reader(kind: Known, start: str, project: str | None) -> Callable[[Session], Awaitable[list[str]]]:
    """Give the work that reads what begins with *start*; names and apps are those of *project* where it is given."""
    query = _QUERY.replace("{source}", _SOURCES[kind])

    async def read(session: Session) -> list[str]:
        await session.execute("SET LOCAL statement_timeout = '1s'")
        return await session.scalars(query, {"start": start, "project": project})

    return read
