from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from records_backlog_contract import BacklogContract
from records_contract import RecordsWorld, ViewContract
from records_history_contract import HistoryContract
from records_missing_contract import MissingContract
from records_overview_contract import OverviewContract
from records_owner_contract import OwnerContract
from records_projects_contract import SimilarContract, UnknownProjectContract
from records_rollout_contract import RolloutContract
from records_standing_contract import StandingContract
from records_state_contract import StateContract
from records_survey_contract import SurveyContract
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


class TestStandingInMemory(InMemory, StandingContract):
    """What projects have come to, in memory."""


class TestSurveyInMemory(InMemory, SurveyContract):
    """The double."""


class TestHistoryInMemory(InMemory, HistoryContract):
    """What was done, in memory."""


class TestBacklogInMemory(InMemory, BacklogContract):
    """What is left to do, in memory."""


class TestUnknownProjectInMemory(InMemory, UnknownProjectContract):
    """What nobody knows, in memory."""


class TestSimilarInMemory(InMemory, SimilarContract):
    """What may have been meant, in memory."""


class TestMissingInMemory(InMemory, MissingContract):
    """What has lost its row, in memory."""


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


class TestStandingInPostgres(InPostgres, StandingContract):
    """What projects have come to, in Postgres."""


class TestSurveyInPostgres(InPostgres, SurveyContract):
    """The tables."""


class TestHistoryInPostgres(InPostgres, HistoryContract):
    """What was done, in Postgres."""


class TestBacklogInPostgres(InPostgres, BacklogContract):
    """What is left to do, in Postgres."""


class TestUnknownProjectInPostgres(InPostgres, UnknownProjectContract):
    """What nobody knows, in Postgres."""


class TestSimilarInPostgres(InPostgres, SimilarContract):
    """What may have been meant, in Postgres."""


class TestMissingInPostgres(InPostgres, MissingContract):
    """What has lost its row, in Postgres."""
