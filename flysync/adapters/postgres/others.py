"""The tables of a database beside flysync's own, read from the catalogue: what they may stand for."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from flysync.adapters.postgres import diagnosis
from flysync.adapters.postgres.tables import ACTIONS, CREDENTIALS, DEPLOYMENTS, RELATIONS, VIEW
from flysync.model.reports import Finding, NextStep
from flysync.model.shapes import Table, first_of, suggested

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flysync.adapters.postgres.session import Session

#: All that somebody may keep rows in and we may see, but for what belongs to Postgres, to an extension or to flysync.
_OTHERS = """
    SELECT n.nspname::text, c.relname::text, n.nspname = ANY (current_schemas(false)),
           array_agg(ROW(a.attname::text, format_type(a.atttypid, NULL)) ORDER BY a.attnum)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND c.relname <> ALL (%(ours)s::text[])
        AND has_schema_privilege(n.oid, 'USAGE') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        AND NOT EXISTS (SELECT FROM pg_depend AS d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    GROUP BY n.nspname, c.relname ORDER BY 3 DESC, 1, 2 LIMIT 1000
"""
_READ = (CREDENTIALS.name, DEPLOYMENTS.name)


async def others(session: Session) -> tuple[list[Table], list[str]]:
    """Give the tables, and the schemas of the search path that have any; a name that no line can show is left out."""
    ours = [VIEW, *(relation.name for relation in RELATIONS if relation.ours)]
    cursor = await session.execute(_OTHERS, {"ours": ours}, binary=True)
    found = [
        (Table(schema=schema, name=name, columns={its: kind for its, kind in columns if its.isprintable()}), on_path)
        for schema, name, on_path, columns in await cursor.fetchall()
        if schema.isprintable() and name.isprintable()
    ]
    return [table for table, _ in found], sorted({table.schema for table, on_path in found if on_path})


async def beside(session: Session) -> list[str]:
    """Give the tables of a database that has none of the contract's three."""
    if await diagnosis.relations(session) & {one.name for one in RELATIONS if not one.ours}:
        return []
    tables, _ = await others(session)
    return [table.sql for table in tables]


async def advised(session: Session, seen: Sequence[Finding], views: Mapping[str, bool]) -> list[Finding]:
    """
    Add to what was *seen* which views would do for the tables that are read, where these do not fit.

    *views* says of each relation that was found whether it is a view: such a one is to be corrected itself.
    """
    apart = [one for one in seen if one.verdict == "failed" and one.subject in _READ]
    if not apart or any(views.get(name) for name in _READ):
        return [*seen]
    advice = await _advice(session, is_empty=not views.keys() & {*_READ, ACTIONS.name})
    if advice is None:
        return [*seen]
    if step := advice.fix:
        views_may = "a view of a table of yours may do: see `views`"
        seen = [
            replace(one, hint="; or ".join(filter(None, (one.hint, views_may))), fix=step) if one in apart else one
            for one in seen
        ]
    return [*seen, advice]


async def _advice(session: Session, *, is_empty: bool) -> Finding | None:
    """
    Say which tables may stand for those of the contract, and with which views.

    Where none looks so, nothing; or, where the contract's are all missing (*is_empty*), what there is instead.
    """
    tables, path = await others(session)
    found = suggested(tables, path=path)
    if found is None:
        return _unlike(tables) if is_empty and tables else None
    step = f"export FLYSYNC_DB_SCHEMA={shlex.quote(found.schema)}"
    then = "; set it wherever flysync runs, and then: flysync db init"
    if found.sql is None:
        message = f"{' and '.join(found.tables)} are in schema {found.schema}, where they are not looked for"
        return _finding(message, step, NextStep(command=step, why=f"names that schema{then}"))
    pairs = ", ".join(f"{table.sql} for {name}" for name, table in found.tables.items())
    message = f"views of your tables may do: {pairs}. Check each line, fill in each …, and run this:"
    return _finding(message, found.sql, NextStep(command=step, why=f"once the views above are made{then}"))


def _unlike(tables: Sequence[Table]) -> Finding:
    names = first_of([table.sql for table in tables])
    message = f"no table here looks like credentials or deployments ({len(tables)} seen: {names})"
    return _finding(message, "make views with the columns of these; or `flysync db init` makes empty tables", None)


def _finding(message: str, hint: str, fix: NextStep | None) -> Finding:
    return Finding(verdict="warning", subject="views", message=message, hint=hint, fix=fix)
