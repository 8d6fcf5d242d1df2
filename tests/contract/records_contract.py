"""The promises of the port `Records`, for every implementation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flysync.errors import ProjectNotFound
from flysync.model.core import AppName, Origin, ProjectId, RunId, SecretName, SecretRecord
from flysync.ports import BadTry, Intent, RunEnd
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from flysync.model.core import ProjectView, State
    from flysync.model.reports import StatusRow
    from flysync.ports import Action, AppLock, Records

PROJECT, OTHER = ProjectId("proj123"), ProjectId("proj456")
APP = AppName("acme-web")
KEY, TOKEN, EXTRA = SecretName("AWS_KEY"), SecretName("API_TOKEN"), SecretName("EXTRA")
DONE = RunEnd(outcome="synced", error_code=None, release=7, seconds={"deploy": 1.5})
#: The app failed with the value.
BAD = BadTry(limit_s=math.inf, release=7)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

#: Asks for all projects that have credentials.
EVERY: dict[str, Any] = {"unsettled": True, "everything": True, "limit": 100}

AWKWARD = ["", " ", "a\nb\r\n\tc", "'\"\\$%s{}", "😀é", "\\x41", "NULL", "{}", "x" * 131_071]


@dataclass(frozen=True)
class ActionRow:
    """A row of `project_actions`, but for its time."""

    project: str
    action: str
    status: str
    details: dict[str, Any]


class RecordsWorld(ABC):
    """The implementation, and the backend beside it."""

    records: Records
    lock: AppLock

    @abstractmethod
    def put(self, project: str, name: str, value: str | None) -> None:
        """Store a credential as the backend does."""

    @abstractmethod
    def remove(self, project: str, name: str) -> None:
        """Delete a credential."""

    @abstractmethod
    def deploy(self, project: str, app: str | None, at: datetime | None) -> None:
        """Write a deployment."""

    @abstractmethod
    def actions(self) -> list[ActionRow]:
        """Read the actions."""

    @abstractmethod
    def refusing_actions(self) -> AbstractContextManager[None]:
        """Let the backend's audit take no row for a while."""

    @abstractmethod
    def age(self, run_id: RunId, days: int) -> None:
        """Let a run have ended *days* ago."""

    @abstractmethod
    def miss(self, name: str, seconds: float) -> None:
        """Let a secret at `APP` have been missed for so many *seconds* more."""

    async def view(self, *names: SecretName, app: AppName | None = None, values: bool = True) -> ProjectView:
        """Give the view of `PROJECT`, of all names where none is given."""
        return await self.records.view(PROJECT, names or None, app=app, values=values)

    async def record(self, name: SecretName = KEY, app: AppName = APP) -> SecretRecord:
        """Give the record of one name."""
        found, _ = await self.records.poll_lock(app, [name])
        return found[name]

    async def ending(self, run: str) -> tuple[bool, str | None, str | None, int | None] | None:
        """Tell whether a run is over, and how it ended; nothing where there is no such run."""
        known, _ = await self.records.runs([RunId(run)])
        seen = known.get(RunId(run))
        return (seen.finished_at is not None, seen.outcome, seen.error_code, seen.release) if seen else None

    async def view_of(self, project: ProjectId, app: AppName | None = None) -> ProjectView:
        """Give the view of another project."""
        return await self.records.view(project, None, app=app, values=True)

    async def rows(self, project: ProjectId | None = PROJECT) -> list[StatusRow]:
        """Give the rows of the overview."""
        projects = [project] if project is not None else await self.projects()
        return list((await self.records.overview(*projects, values=True)).rows)

    async def projects(self) -> list[ProjectId]:
        """Give all projects that are known."""
        return [one.project for one in (await self.records.survey(None, values=True, since_s=None, limit=99)).projects]


def intent(run: str = "run1", *names: SecretName, **changes: Any) -> Intent:
    """An intent for `APP`."""
    usual = Intent(
        run_id=RunId(run),
        project=PROJECT,
        app=APP,
        names=names or (KEY,),
        origin=Origin.CLI,
        actor="ann",
        reason=None,
        sandbox=f"flysync-{run}",
        borrowed=False,
        deadline_s=60.0,
    )
    return replace(usual, **changes)


async def begin(
    world: RecordsWorld, run: str = "run1", fingerprint: str = "f1", names: Iterable[SecretName] = (KEY,), **flags: Any
) -> Intent:
    """Begin a run that writes *names*."""
    its = replace(intent(run, *names), project=flags.pop("project", PROJECT))
    usual = {"seen": flags.get("seen") or await world.view_of(its.project, its.app), "insists": False}
    await world.records.begin(its, dict.fromkeys(its.names, fingerprint), **{**usual, **flags})
    return its


async def finish(
    world: RecordsWorld, its: Intent, states: Mapping[SecretName, State], action: Action | None = None, **flags: Any
) -> None:
    """End a run; nothing is known of its machines."""
    usual = {"all_up": False, "keep_days": 90}
    await world.records.finish(its, DONE, states, action, **{**usual, **flags})


class ViewContract:
    """What is read before a sync."""

    @pytest.fixture(autouse=True)
    def _usual(self, world: RecordsWorld) -> None:
        world.put(PROJECT, KEY, "one")
        world.put(PROJECT, TOKEN, "two")
        world.put(OTHER, EXTRA, "not ours")
        world.deploy(PROJECT, APP, NOON)

    @pytest.mark.parametrize("value", AWKWARD, ids=lambda value: ascii(value)[:12])
    async def test_a_value_arrives_as_it_was_stored(self, world: RecordsWorld, value: str) -> None:
        """Every character of a value arrives."""
        world.put(PROJECT, KEY, value)
        view = await world.view(KEY)

        assert Secret(value) == view.credentials[KEY].secret

    async def test_all_credentials_of_the_project_without_names(self, world: RecordsWorld) -> None:
        """Without names, the project's credentials are all there, and nobody else's."""
        view = await world.view()

        assert {KEY, TOKEN} == set(view.credentials)
        assert (PROJECT, APP, (APP,), True) == (view.project, view.app, view.apps, view.has_values)

    async def test_all_credentials_are_there_whichever_are_named(self, world: RecordsWorld) -> None:
        """What a run leaves undone is told of all, so all are read; nobody else's is."""
        view = await world.view(KEY, EXTRA)

        assert {KEY, TOKEN} == set(view.credentials)

    async def test_an_absent_value_is_no_flaw(self, world: RecordsWorld) -> None:
        """A row whose value is NULL has none; whether that matters is for others to say."""
        world.put(PROJECT, KEY, None)
        credential = (await world.view(KEY)).credentials[KEY]

        assert (None, None) == (credential.secret, credential.problem)

    async def test_values_are_left_alone_unless_asked_for(self, world: RecordsWorld) -> None:
        """Without *values*, no secret is read."""
        view = await world.view(values=False)

        assert not view.has_values
        assert {None} == {credential.secret for credential in view.credentials.values()}

    async def test_a_name_that_fly_cannot_have_fails_alone(self, world: RecordsWorld) -> None:
        """A bad name says so, and the others are whole."""
        world.put(PROJECT, "A-B", "three")
        view = await world.view()

        assert "is not a valid credential name" in str(view.credentials[SecretName("A-B")].problem)
        assert Secret("one") == view.credentials[KEY].secret

    async def test_the_newest_deployment_counts(self, world: RecordsWorld) -> None:
        """Later deployments win, unless they name no app; those without a time are the oldest."""
        world.deploy(PROJECT, "newer", NOON + timedelta(hours=1))
        world.deploy(PROJECT, None, NOON + timedelta(hours=2))
        world.deploy(PROJECT, "", NOON + timedelta(hours=3))
        world.deploy(PROJECT, "timeless", None)
        view = await world.view()

        assert (("newer",), "newer") == (view.apps, view.app)

    async def test_deployments_without_a_time_still_count(self, world: RecordsWorld) -> None:
        """Where no deployment has a time, they are as new as each other."""
        world.deploy(OTHER, "b", None)
        world.deploy(OTHER, "a", None)
        view = await world.records.view(OTHER, None, app=None, values=True)

        assert (("a", "b"), None) == (view.apps, view.app)

    async def test_two_newest_deployments_are_both_told(self, world: RecordsWorld) -> None:
        """Two apps at the newest time are ambiguous; the same one twice is not."""
        world.deploy(PROJECT, APP, NOON)
        plain = await world.view()
        world.deploy(PROJECT, "zeta", NOON)
        view = await world.view()

        assert ((APP,), APP) == (plain.apps, plain.app)
        assert ((APP, "zeta"), None) == (view.apps, view.app)

    async def test_an_app_that_is_named_replaces_the_deployment(self, world: RecordsWorld) -> None:
        """With *app*, records and runs are of that app, and the deployment is still told."""
        await begin(world)
        view = await world.view(app=AppName("elsewhere"))

        assert ("elsewhere", (APP,), {}, ()) == (view.app, view.apps, view.records, view.open_runs)

    async def test_a_project_that_nobody_knows(self, world: RecordsWorld) -> None:
        """A project in neither table is an error that names it."""
        with pytest.raises(ProjectNotFound, match="nowhere"):
            await world.records.view(ProjectId("nowhere"), None, app=None, values=True)

    async def test_a_project_with_only_one_of_the_two(self, world: RecordsWorld) -> None:
        """A credential alone is a project, and so is a deployment alone."""
        world.deploy("proj789", "lonely", NOON)
        with_credential = await world.records.view(OTHER, None, app=None, values=True)
        with_deployment = await world.records.view(ProjectId("proj789"), None, app=None, values=True)

        assert ((), None, True) == (with_credential.apps, with_credential.app, bool(with_credential.credentials))
        assert ("lonely", False) == (with_deployment.app, bool(with_deployment.credentials))

    async def test_the_key_stays_the_same(self, world: RecordsWorld) -> None:
        """Fingerprints can be compared from one view to the next, and with the overview."""
        first, second = await world.view(), await world.view()
        overview = await world.records.overview(PROJECT, values=False)

        assert first.key == second.key
        assert first.key == overview.key
