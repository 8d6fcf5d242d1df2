"""The promises of the port `SandboxFlyctl`, for every implementation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import pytest

from flysync.errors import AccessDenied, AppNotFound, DaytonaUnavailable, Scope
from flysync.model.core import AppName
from flysync.model.fly import TokenKind

if TYPE_CHECKING:
    from flysync.ports import SandboxFlyctl


class AccessWorld(ABC):
    """One app `acme` that the token shows; one `theirs` of another organization, one called `nope` nowhere."""

    @abstractmethod
    async def flyctl(self) -> SandboxFlyctl:
        """Give the flyctl of a new sandbox that is there; `prepare` has not been called."""

    async def prepared(self) -> SandboxFlyctl:
        """Give one that is prepared."""
        flyctl = await self.flyctl()
        await flyctl.prepare()
        return flyctl

    @abstractmethod
    async def flyctl_with(self, app: str, *, reaches: bool) -> SandboxFlyctl:
        """Give a prepared one for which *app* has a token of its own, that *reaches* it or is another tenant's."""

    @abstractmethod
    def refuse(self) -> None:
        """Let Fly refuse the token."""

    @abstractmethod
    async def lose_sandbox(self) -> None:
        """Take the sandbox away."""


class FlyAccessContract:
    """Inherit, and give the fixture `world`."""

    async def test_a_sandbox_that_reaches_fly_asks_nobody_else(self, world: AccessWorld) -> None:
        """Three addresses answer, without a flyctl; no others are tried."""
        reach = await (await world.flyctl()).reach()

        assert reach is not None
        assert [True] * 3 == list(reach.fly.values())
        assert (None, None) == (reach.essential, reach.other)

    async def test_others_are_asked_where_the_caller_wants_to_know(self, world: AccessWorld) -> None:
        """Though Fly answers; here nothing else does."""
        reach = await (await world.flyctl()).reach(others=True)

        assert reach is not None
        assert ([True] * 3, False, False) == (list(reach.fly.values()), reach.essential, reach.other)

    async def test_a_new_sandbox_has_no_flyctl(self, world: AccessWorld) -> None:
        """It is installed, and its version told."""
        flyctl = await (await world.flyctl()).prepare()

        assert (False, None) == (flyctl.was_there, flyctl.too_old)
        assert flyctl.version

    async def test_what_the_token_says(self, world: AccessWorld) -> None:
        """It is the one that was given, not one that was narrowed for a step: it has no end."""
        flyctl = await world.prepared()
        await flyctl.sign_in()
        token = await flyctl.token()

        assert (TokenKind.ORG, True, None, None) == (token.kind, token.can_be_narrowed, token.expires_at, token.left_s)

    async def test_a_token_that_fly_accepts_shows_its_apps(self, world: AccessWorld) -> None:
        """Those of others are as if they were not there, and no fault of the token's; of one alone more is known."""
        flyctl = await world.prepared()
        await flyctl.sign_in()
        for alone in (False, True):
            await flyctl.see(AppName("acme"), alone=alone)
            for hidden in ("nope",) if alone else ("theirs", "nope"):
                with pytest.raises(AppNotFound):
                    await flyctl.see(AppName(hidden), alone=alone)

    async def test_an_app_has_a_token_of_its_own(self, world: AccessWorld) -> None:
        """It is the one that is used for that app; where it is a wrong one, that is about the app alone."""
        theirs = AppName("theirs")
        right = await world.flyctl_with("theirs", reaches=True)
        await right.see(theirs)
        await right.sign_in(theirs)
        assert () == (await right.secrets(theirs).look()).secrets

        wrong = await world.flyctl_with("theirs", reaches=False)
        with pytest.raises(AccessDenied) as refused:
            await wrong.secrets(theirs).look()
        assert Scope.APP is refused.value.scope
        assert (await wrong.secrets(AppName("acme")).look()).machines

    async def test_a_token_that_fly_refuses(self, world: AccessWorld) -> None:
        """Whatever is asked with it."""
        flyctl = await world.prepared()
        world.refuse()

        with pytest.raises(AccessDenied):
            await flyctl.sign_in()
        for alone in (False, True):
            with pytest.raises(AccessDenied):
                await flyctl.see(AppName("acme"), alone=alone)

    async def test_without_its_sandbox_nothing_is_seen(self, world: AccessWorld) -> None:
        """Nor guessed."""
        flyctl = await world.prepared()
        await world.lose_sandbox()

        with pytest.raises(DaytonaUnavailable):
            await flyctl.reach()
        with pytest.raises(DaytonaUnavailable):
            await flyctl.sign_in()
