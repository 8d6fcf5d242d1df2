from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from records_contract import RecordsWorld, ViewContract
from records_history_contract import HistoryContract
from records_overview_contract import OverviewContract
from records_owner_contract import OwnerContract
from records_projects_contract import UnknownProjectContract
from records_rollout_contract import RolloutContract
from records_state_contract import StateContract
from records_worlds import MemoryWorld, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class InMemory:
    """The double."""

    @pytest.fixture
    def world(self) -> RecordsWorld:
        """A world in memory."""
        return MemoryWorld()


class InPostgres:
    """The real thing."""

    @pytest.fixture
    async def world(self, emptied_database: str) -> AsyncIterator[RecordsWorld]:
        """A world in Postgres."""
        async with opened(emptied_database) as world:
            yield world


class TestViewInMemory(InMemory, ViewContract):
    """What is read, in memory."""


class TestStateInMemory(InMemory, StateContract):
    """What is written, in memory."""


class TestRolloutInMemory(InMemory, RolloutContract):
    """What roll-outs came to, in memory."""


class TestOwnerInMemory(InMemory, OwnerContract):
    """Whose an app is, in memory."""


class TestOverviewInMemory(InMemory, OverviewContract):
    """What is told, in memory."""


class TestHistoryInMemory(InMemory, HistoryContract):
    """What was done, in memory."""


class TestUnknownProjectInMemory(InMemory, UnknownProjectContract):
    """What nobody knows, in memory."""


class TestViewInPostgres(InPostgres, ViewContract):
    """What is read, in Postgres."""


class TestStateInPostgres(InPostgres, StateContract):
    """What is written, in Postgres."""


class TestRolloutInPostgres(InPostgres, RolloutContract):
    """What roll-outs came to, in Postgres."""


class TestOwnerInPostgres(InPostgres, OwnerContract):
    """Whose an app is, in Postgres."""


class TestOverviewInPostgres(InPostgres, OverviewContract):
    """What is told, in Postgres."""


class TestHistoryInPostgres(InPostgres, HistoryContract):
    """What was done, in Postgres."""


class TestUnknownProjectInPostgres(InPostgres, UnknownProjectContract):
    """What nobody knows, in Postgres."""
