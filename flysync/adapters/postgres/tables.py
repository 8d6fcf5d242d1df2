"""The relations that flysync uses: their names, their columns, and how `db init` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The version of flysync's own tables that this code reads and writes.
SCHEMA_VERSION = 2

_TEXT = ("text", "character varying")
_TIME = ("timestamp with time zone",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """A table, or a view that stands for it."""

    name: LiteralString
    #: Whether it is flysync's own, else the backend's.
    ours: bool
    #: The columns that flysync uses, with the types that it can work with.
    columns: Mapping[str, tuple[str, ...]]
    #: What flysync does with it.
    rights: tuple[str, ...]
    #: Makes the table.
    create: LiteralString


#: The backend's, read only; a backend that encrypts at rest has no credential_value.
CREDENTIALS = Relation(
    name="cloud_credentials",
    ours=False,
    columns={"project_id": _TEXT, "credential_name": _TEXT, "credential_value": _TEXT, "updated_at": _TIME},
    rights=("SELECT",),
    create="""
        CREATE TABLE cloud_credentials (
            project_id text NOT NULL,
            credential_name text NOT NULL,
            credential_value text,
            updated_at timestamptz DEFAULT now(),
            UNIQUE (project_id, credential_name)
        )
    """,
)

#: The backend's, read only; the newest row of a project counts.
DEPLOYMENTS = Relation(
    name="project_deployments",
    ours=False,
    columns={"project_id": _TEXT, "fly_app_name": _TEXT, "created_at": _TIME},
    rights=("SELECT",),
    create="""
        CREATE TABLE project_deployments (
            project_id text NOT NULL,
            fly_app_name text,
            created_at timestamptz DEFAULT now()
        );
        CREATE INDEX project_deployments_newest ON project_deployments (project_id, created_at DESC);
        CREATE INDEX project_deployments_app ON project_deployments (fly_app_name)
    """,
)

#: The backend's audit; flysync adds a row when a run has brought something to Fly.
ACTIONS = Relation(
    name="project_actions",
    ours=False,
    columns={
        "project_id": _TEXT,
        "action": _TEXT,
        "status": _TEXT,
        "details": ("jsonb", "json"),
        "created_at": _TIME,
    },
    rights=("SELECT", "INSERT"),
    create="""
        CREATE TABLE project_actions (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            project_id text NOT NULL,
            action text NOT NULL,
            status text NOT NULL,
            details jsonb,
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX project_actions_project ON project_actions (project_id, created_at DESC)
    """,
)

#: One row per run; a row without an end is an intent, so it must say where and until when.
RUNS = Relation(
    name="flysync_runs",
    ours=True,
    columns={
        "run_id": _TEXT,
        "project_id": _TEXT,
        "app": _TEXT,
        "names": ("text[]",),
        "origin": _TEXT,
        "actor": _TEXT,
        "reason": _TEXT,
        "started_at": _TIME,
        "sandbox": _TEXT,
        "deadline": _TIME,
        "finished_at": _TIME,
        "outcome": _TEXT,
        "error_code": _TEXT,
        "release": ("integer", "bigint"),
        "seconds": ("jsonb",),
    },
    rights=("SELECT", "INSERT", "UPDATE", "DELETE"),
    create="""
        CREATE TABLE flysync_runs (
            run_id text PRIMARY KEY,
            project_id text NOT NULL,
            app text,
            names text[] NOT NULL DEFAULT '{}',
            origin text NOT NULL,
            actor text NOT NULL,
            reason text,
            started_at timestamptz NOT NULL DEFAULT now(),
            sandbox text,
            deadline timestamptz,
            finished_at timestamptz,
            outcome text,
            error_code text,
            release integer,
            seconds jsonb,
            CONSTRAINT flysync_runs_intent CHECK (
                finished_at IS NOT NULL OR (app IS NOT NULL AND sandbox IS NOT NULL AND deadline IS NOT NULL)
            )
        );
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
        "app": _TEXT,
        "name": _TEXT,
        "project_id": _TEXT,
        "fingerprint": _TEXT,
        "fly_digest_mac": _TEXT,
        "state": _TEXT,
        "run_id": _TEXT,
        "requested_at": _TIME,
        "written_at": _TIME,
        "deployed_at": _TIME,
        "bad_tries": ("integer", "bigint"),
        "longest_limit_s": ("double precision",),
        "failed_release": ("integer", "bigint"),
        "rollout": _TEXT,
        "rollout_after": ("integer", "bigint"),
    },
    rights=("SELECT", "INSERT", "UPDATE", "DELETE"),
    create="""
        CREATE TABLE flysync_secrets (
            app text NOT NULL,
            name text NOT NULL,
            project_id text NOT NULL,
            fingerprint text,
            fly_digest_mac text,
            state text NOT NULL,
            run_id text,
            requested_at timestamptz,
            written_at timestamptz,
            deployed_at timestamptz,
            bad_tries integer NOT NULL DEFAULT 0 CONSTRAINT flysync_secrets_bad_tries CHECK (bad_tries >= 0),
            longest_limit_s double precision,
            failed_release integer,
            rollout text,
            rollout_after integer,
            PRIMARY KEY (app, name)
        );
        CREATE INDEX flysync_secrets_project ON flysync_secrets (project_id)
    """,
)

#: One row per app: the project that its secrets belong to; and the machines that were down before the first roll-out
#: that has not ended well since.
APPS = Relation(
    name="flysync_apps",
    ours=True,
    columns={"app": _TEXT, "project_id": _TEXT, "since": _TIME, "down_before": ("text[]",)},
    rights=("SELECT", "INSERT", "UPDATE"),
    create="""
        CREATE TABLE flysync_apps (
            app text PRIMARY KEY,
            project_id text NOT NULL,
            since timestamptz NOT NULL DEFAULT now(),
            down_before text[]
        )
    """,
)

#: A single row: the version of these tables, the key of fingerprints and digests, and until when no run may begin.
META = Relation(
    name="flysync_meta",
    ours=True,
    columns={
        "schema_version": ("integer", "bigint"),
        "fingerprint_key": _TEXT,
        "created_at": _TIME,
        "closed_until": _TIME,
    },
    rights=("SELECT",),
    create="""
        CREATE TABLE flysync_meta (
            schema_version integer NOT NULL,
            fingerprint_key text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            closed_until timestamptz
        );
        CREATE UNIQUE INDEX flysync_meta_single ON flysync_meta ((true))
    """,
)

#: All of them, the backend's first.
RELATIONS = (CREDENTIALS, DEPLOYMENTS, ACTIONS, RUNS, SECRETS, APPS, META)
