"""The relations that flysync uses: their names, their columns, and how `db init` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent, indent
from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

#: The version of flysync's own tables that this code reads and writes.
SCHEMA_VERSION = 4
#: A key that the server makes, of more random bits than its 32 bytes hold (RFC 2104): what a client sends may be in
#: the server's log.
NEW_KEY: LiteralString = """encode(sha256(convert_to(
    concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), 'UTF8')), 'base64')"""
#: The version of the tables that are there; nothing where there is no row.
VERSION = "SELECT max(schema_version) FROM flysync_meta"

#: The types that flysync can work with, by the one that `db init` gives a column.
_TYPES: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "character varying"),
    "boolean": ("boolean",),
    "text[]": ("text[]",),
    "timestamptz": ("timestamp with time zone",),
    "integer": ("integer", "bigint"),
    "float8": ("double precision",),
    "jsonb": ("jsonb",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """A table, or a view that stands for it."""

    name: LiteralString
    ours: bool  #: Whether it is flysync's own, else the backend's.
    #: The columns that flysync uses, as CREATE TABLE has them: a type that is one word of `_TYPES`, and the rest.
    columns: Mapping[str, LiteralString]
    others: LiteralString = ""  #: What else CREATE TABLE has, before them.
    rights: tuple[str, ...]  #: What flysync does with it.
    indexes: LiteralString = ""  #: The statements that make its indexes.

    def types(self, column: str) -> tuple[str, ...]:
        """Give the types that flysync can work with, the best first."""
        kind = self.columns[column].split()[0]
        # The backend may keep its audit as json, and names in a type that knows no case.
        more = {"details": "json", "credential_name": "citext"}.get(column)
        return (*_TYPES[kind], more) if more and not self.ours else _TYPES[kind]

    def used(self, right: str) -> list[str]:
        """Give the columns that flysync uses *right* on; a default fills the one that no insert names."""
        return [column for column in self.columns if right != "INSERT" or column != "created_at"]

    def grants(self, role: str, unused: Collection[str]) -> Iterator[str]:
        """Give the statements that let *role*, as SQL writes it, do what a sync does, but for columns *unused*."""
        if self.ours:
            yield f"GRANT {', '.join(self.rights)} ON {self.name} TO {role}"
            return
        for right in self.rights:
            columns = ", ".join(one for one in self.used(right) if f"{self.name}.{one}" not in unused)
            yield f"GRANT {right} ({columns}) ON {self.name} TO {role}"

    @property
    def create(self) -> str:
        """The statements that make the table and its indexes."""
        others = dedent(self.others).strip().splitlines()
        columns = ",\n".join(f"{name} {definition}" for name, definition in self.columns.items())
        its = indent("\n".join([*others, columns]), "    ")
        return f"CREATE TABLE {self.name} (\n{its}\n);\n{dedent(self.indexes).strip()}"


#: The backend's, read only; a backend that encrypts at rest has no credential_value.
CREDENTIALS = Relation(
    name="cloud_credentials",
    ours=False,
    columns={
        "project_id": "text NOT NULL",
        "credential_name": "text NOT NULL",
        "credential_value": "text",
        "updated_at": "timestamptz DEFAULT now()",
    },
    others="UNIQUE (project_id, credential_name),",
    rights=("SELECT",),
)

#: The backend's, read only; the newest row of a project counts.
DEPLOYMENTS = Relation(
    name="project_deployments",
    ours=False,
    columns={
        "project_id": "text NOT NULL",
        "fly_app_name": "text",
        "created_at": "timestamptz DEFAULT now()",
    },
    rights=("SELECT",),
    indexes="""
        CREATE INDEX project_deployments_newest ON project_deployments (project_id, created_at DESC);
        CREATE INDEX project_deployments_app ON project_deployments (fly_app_name)
    """,
)

#: The backend's audit; flysync adds a row when a run has brought something to Fly.
ACTIONS = Relation(
    name="project_actions",
    ours=False,
    columns={
        "project_id": "text NOT NULL",
        "action": "text NOT NULL",
        "status": "text NOT NULL",
        "details": "jsonb",
        "created_at": "timestamptz NOT NULL DEFAULT now()",
    },
    others="id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,",
    rights=("SELECT", "INSERT"),
    indexes="CREATE INDEX project_actions_project ON project_actions (project_id, created_at DESC)",
)

#: One row per run; a row without an end is an intent, so it must say where and until when.
RUNS = Relation(
    name="flysync_runs",
    ours=True,
    columns={
        "run_id": "text PRIMARY KEY",
        "project_id": "text NOT NULL",
        "app": "text",
        "names": "text[] NOT NULL DEFAULT '{}'",
        "origin": "text NOT NULL",
        "actor": "text NOT NULL",
        "reason": "text",
        "started_at": "timestamptz NOT NULL DEFAULT now()",
        "sandbox": "text",
        "deadline": "timestamptz",
        "finished_at": "timestamptz",
        "outcome": "text",
        "error_code": "text",
        "release": "integer",
        "seconds": "jsonb",
        "results": "jsonb",  # outcome, code and message by name
    },
    others="""
        CONSTRAINT flysync_runs_intent CHECK (
            finished_at IS NOT NULL OR (app IS NOT NULL AND sandbox IS NOT NULL AND deadline IS NOT NULL)
        ),
    """,
    rights=("SELECT", "INSERT", "UPDATE", "DELETE"),
    indexes="""
        CREATE INDEX flysync_runs_open ON flysync_runs (app) WHERE finished_at IS NULL;
        CREATE INDEX flysync_runs_project ON flysync_runs (project_id, started_at DESC);
        CREATE INDEX flysync_runs_finished ON flysync_runs (finished_at)
    """,
)

#: One row per app and name: what was last done with it.
SECRETS = Relation(
    name="flysync_secrets",
    ours=True,
    columns={
        "app": "text NOT NULL",
        "name": "text NOT NULL",
        "project_id": "text NOT NULL",
        "fingerprint": "text",
        "stored_fingerprint": "text",  # of what was stored, where the value was decrypted
        "fly_digest_mac": "text",
        "state": "text NOT NULL",
        "run_id": "text",
        "requested_at": "timestamptz",
        "written_at": "timestamptz",
        "deployed_at": "timestamptz",
        "bad_tries": "integer NOT NULL DEFAULT 0 CONSTRAINT flysync_secrets_bad_tries CHECK (bad_tries >= 0)",
        "longest_limit_s": "float8",
        "failed_release": "integer",
        "rollout": "text",
        "rollout_after": "integer",
        "missing_since": "timestamptz",  # when its row was first missed
    },
    others="PRIMARY KEY (app, name),",
    rights=("SELECT", "INSERT", "UPDATE", "DELETE"),
    indexes="CREATE INDEX flysync_secrets_project ON flysync_secrets (project_id)",
)

#: One row per app: the project that its secrets belong to; and the machines that were down before the first roll-out
#: that has not ended well since.
APPS = Relation(
    name="flysync_apps",
    ours=True,
    columns={
        "app": "text PRIMARY KEY",
        "project_id": "text NOT NULL",
        "since": "timestamptz NOT NULL DEFAULT now()",
        "down_before": "text[]",
    },
    rights=("SELECT", "INSERT", "UPDATE"),
)

#: One row per project: what was last seen of its rows, newest app and deployment, whether all of that has arrived, and
#: when it is tried again; no `try_at` where only a change of the rows or another deployment can help.
PROJECTS = Relation(
    name="flysync_projects",
    ours=True,
    columns={
        "project_id": "text PRIMARY KEY",
        "digest": "text",
        "settled": "boolean NOT NULL",
        "error_code": "text",
        "failures": "integer NOT NULL DEFAULT 0",
        "try_at": "timestamptz",
        "behind_since": "timestamptz",
        "looked_at": "timestamptz NOT NULL DEFAULT now()",
        "deployed_at": "timestamptz",
    },
    rights=("SELECT", "INSERT", "UPDATE", "DELETE"),
    indexes="CREATE INDEX flysync_projects_unsettled ON flysync_projects (project_id) WHERE NOT settled",
)

#: A single row: the version of these tables, the keys of fingerprints and of the projects' digests, and until when no
#: run may begin.
META = Relation(
    name="flysync_meta",
    ours=True,
    columns={
        "schema_version": "integer NOT NULL",
        "fingerprint_key": "text NOT NULL",
        "digest_key": "text NOT NULL",
        "created_at": "timestamptz NOT NULL DEFAULT now()",
        "closed_until": "timestamptz",
    },
    rights=("SELECT",),
    indexes="CREATE UNIQUE INDEX flysync_meta_single ON flysync_meta ((true))",
)

#: The view of how each credential stands (`status_view`).
VIEW = "flysync_status"

#: All of them, the backend's first.
RELATIONS = (CREDENTIALS, DEPLOYMENTS, ACTIONS, RUNS, SECRETS, APPS, PROJECTS, META)
