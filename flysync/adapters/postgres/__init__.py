"""
Postgres: where credentials are read, and where flysync writes down what it did.

Postgres' own texts never leave this package: they quote rows and values ("Failing row contains (…)"), so an error
shows its SQLSTATE and the constraint's name, and nothing else of it.
"""

from flysync.adapters.postgres.connection import Connection
from flysync.adapters.postgres.lock import PostgresLock
from flysync.adapters.postgres.records import PostgresRecords
from flysync.adapters.postgres.schema import PostgresAdmin

__all__ = ["Connection", "PostgresAdmin", "PostgresLock", "PostgresRecords"]
