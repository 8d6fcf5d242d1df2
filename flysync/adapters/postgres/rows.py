"""Rows of Postgres as the nouns of `flysync.model.core`, and the columns that they are made of."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from flysync.adapters.postgres import errors
from flysync.adapters.postgres.tables import SCHEMA_VERSION
from flysync.errors import InvalidCredential
from flysync.model.core import Credential, OpenRun, SecretRecord, State, secret_name
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import LiteralString

    from flysync.model.core import SecretName

T = TypeVar("T")

#: What `key` checks: the version of the tables and whether they are being migrated, and whether writes are taken here.
META = """
    (SELECT array_agg(ROW(m.schema_version, m.fingerprint_key::text, coalesce(m.closed_until > now(), false),
                          pg_is_in_recovery(), current_setting('transaction_read_only')::boolean))
     FROM flysync_meta AS m)
"""

#: A row of flysync_secrets, called s, as a `SecretRecord`.
RECORD = """
    ROW(s.name::text, s.state::text, s.project_id::text, s.fingerprint::text, s.fly_digest_mac::text, s.run_id::text,
        s.requested_at, s.written_at, s.deployed_at, s.bad_tries, s.longest_limit_s, s.failed_release,
        CASE WHEN s.rollout IS NOT NULL THEN coalesce(s.rollout_after, 0) END)
"""

#: A row of flysync_runs, called r, as an `OpenRun`. A sandbox of ours has the run's name; any other was borrowed.
OPEN_RUN = """
    ROW(r.run_id::text, coalesce(r.sandbox::text, ''), coalesce(r.sandbox, '') <> 'flysync-' || r.run_id,
        greatest(0, extract(epoch FROM r.deadline - now()))::float8, r.origin::text, r.actor::text, r.started_at)
"""

#: The value, or nothing in its place where it is not to be read: as bytes in UTF-8, for sent as text one that is none
#: would fail the whole query. What SQL_ASCII holds has no known encoding and is taken as it is.
VALUE: Mapping[bool, LiteralString] = {
    True: """
        convert_to(c.credential_value, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)
    """,
    False: "NULL::bytea",
}

#: The apps that the newest deployment of the project names, or of each project. Those without a time count as the
#: oldest, those that share the newest time count all.
NEWEST = """
    SELECT DISTINCT ranked.project_id, ranked.app
    FROM (
        SELECT d.project_id::text AS project_id, d.fly_app_name::text AS app,
               rank() OVER (PARTITION BY d.project_id ORDER BY d.created_at DESC NULLS LAST) AS place
        FROM project_deployments AS d
        WHERE (%(project)s::text IS NULL OR d.project_id = %(project)s::text) AND btrim(d.fly_app_name) <> ''
    ) AS ranked
    WHERE ranked.place = 1
"""

#: Whether a project that was deployed to an app at a time, called named, has not been deployed since.
STILL_DEPLOYED = """
    NOT EXISTS (
        SELECT FROM project_deployments AS d
        WHERE d.project_id = named.project_id AND btrim(d.fly_app_name) <> ''
            AND coalesce(d.created_at, '-infinity') > named.at
    )
"""


def key(meta: Sequence[tuple[Any, ...]] | None, *, begins: bool = False) -> Secret:
    """
    Give the key of fingerprints, from `META`: where the server takes writes, and the tables are of this version.

    Raises:
        ConfigError: neither.
        DatabaseUnavailable: a run *begins*, and the tables are being migrated.
    """
    version, text, is_closed, is_replica, is_read_only = meta[0] if meta else (None, "", False, False, False)
    if is_replica or is_read_only:
        raise errors.read_only(is_replica=is_replica)
    if is_closed and begins:
        raise errors.migrating()
    if version != SCHEMA_VERSION:
        raise errors.wrong_version(version)
    return Secret(text)


def made(noun: Callable[..., T], row: Iterable[Any]) -> T:
    """Give a dataclass of a row that has its fields, in their order."""
    return noun(**dict(zip(_names(noun), row, strict=True)))


@cache
def _names(noun: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(noun))


def record(row: Iterable[Any]) -> SecretRecord:
    """Give a `RECORD`."""
    name, state, *others = row
    return made(SecretRecord, (name, State(state), *others))


def records(rows: Iterable[Iterable[Any]] | None) -> dict[SecretName, SecretRecord]:
    """Give `RECORD`s by name."""
    return {one.name: one for one in map(record, rows or ())}


def open_runs(rows: Iterable[Iterable[Any]] | None) -> tuple[OpenRun, ...]:
    """Give `OPEN_RUN`s."""
    return tuple(made(OpenRun, row) for row in rows or ())


def credentials(rows: Iterable[tuple[SecretName, bytes | None]] | None) -> dict[SecretName, Credential]:
    """Give the credentials of one project; a row that is of no use says why, and harms no other."""
    found: dict[SecretName, Credential] = {}
    for name, value in rows or ():
        found[name] = twice(name) if name in found else credential(name, value)
    return found


def twice(name: SecretName) -> Credential:
    """Give a credential that has two rows (a view may): nobody can say which of them counts."""
    return Credential(name=name, problem="stands twice in cloud_credentials")


def credential(name: SecretName, value: bytes | None) -> Credential:
    """Give one credential, with its problem if it has one."""
    try:
        secret_name(name)
        return Credential(name=name, secret=None if value is None else Secret(value.decode("utf-8")))
    except InvalidCredential:
        problem = "is not a valid credential name (letters, digits and underscores, and no digit first)"
    except UnicodeDecodeError:
        problem = "is not valid UTF-8"
    return Credential(name=name, problem=problem)
