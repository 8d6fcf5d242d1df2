"""
Credentials, deployments, state and locks in Postgres, by psycopg.

Postgres' own error texts never leave this package: they quote rows (infra.md G).
"""

from flysync.adapters.postgres.connection import Connection
from flysync.adapters.postgres.lock import PostgresLock
from flysync.adapters.postgres.records import PostgresRecords
from flysync.adapters.postgres.schema import PostgresAdmin

__all__ = ["Connection", "PostgresAdmin", "PostgresLock", "PostgresRecords"]
