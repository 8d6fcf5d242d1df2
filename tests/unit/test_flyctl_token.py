"""The token that each step of a run gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from flyctl_scripted import FOUND, GONE, Clock, Scripted, replayed, told

from flysync import errors
from flysync.adapters.flyctl import FlyctlSandbox, Source, Steps
from flysync.model.core import AppName, RunId, SecretName
from flysync.model.fly import RolloutEnd
from flysync.ports import AnswerLost, NotSent
from flysync.secret import MASK, Secret, redact
from flysync.sim import macaroon

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN = macaroon.macaroon(macaroon.organization(9))
START = 1_800_000_000
SPARE_S = 600
#: Seconds for a set, and for the two lists in the same step.
SET_S, LISTS_S = 90, 15
REFUSED = told(1, stderr="Error: update secrets: failed to update app secrets: unauthorized")
VALUES = {SecretName("A"): Secret("1")}


class Overheard(Scripted):
    """A sandbox, and the token of each request; every request takes *takes_s*."""

    def __init__(self, *answers: str | tuple[str, ...] | Exception, takes_s: float = 0.0) -> None:
        super().__init__(told(0, FOUND), *answers)
        self.tokens: list[str] = []
        self.clock = Clock()
        self.takes_s = takes_s

    async def run(self, script: str, env: Mapping[str, Secret], *, timeout_s: int) -> str:
        self.tokens.append(env["V0"].reveal() if "V0" in env else "")
        self.clock.seconds += self.takes_s
        return await super().run(script, env, timeout_s=timeout_s)


async def flyctl(sandbox: Overheard, token: str = TOKEN) -> FlyctlSandbox:
    """Give a flyctl that was found; the server's time is the clock's, and a day off this machine's."""
    steps = Steps(
        sandbox=sandbox,
        run_id=RunId("run"),
        token=Secret(token),
        base_urls={},
        clock=sandbox.clock,
        end_at=10**9,
        server_time=lambda: START + sandbox.clock.seconds,
    )
    found = FlyctlSandbox(steps, source=Source(version="0.4.87", install_url="http://127.0.0.1/install.sh"))
    await found.prepare()
    return found


async def stage(sandbox: Overheard, token: str = TOKEN) -> None:
    await (await flyctl(sandbox, token)).secrets(AppName("acme")).stage(VALUES)


async def test_a_token_ends_minutes_after_its_step() -> None:
    """By the clock of the database; looking for flyctl needs none."""
    sandbox = Overheard(told(0), told(0))
    found = await flyctl(sandbox)
    await found.secrets(AppName("acme")).stage(VALUES)
    await found.secrets(AppName("acme")).deploy(wait=True, timeout_s=300)
    first, stage_, deploy = sandbox.tokens

    assert "" == first
    assert TOKEN not in {stage_, deploy}
    assert all(macaroon.narrows(TOKEN, token) and macaroon.apps(token) is None for token in (stage_, deploy))
    assert [START + limit_s + LISTS_S + SPARE_S for limit_s in (SET_S, 300)] == [
        macaroon.ends(token) for token in (stage_, deploy)
    ]
    assert 0 == macaroon.caveats(stage_)[-1][1][0]


async def test_each_request_has_a_token_of_its_own() -> None:
    """Daytona may ask for an hour of patience: a token made before that would be over."""
    later = errors.RateLimited("later", service="daytona", retry_after_s=2000.0)
    sandbox = Overheard(NotSent(later), AnswerLost(GONE), replayed(0))
    await stage(sandbox)
    ends = [macaroon.ends(token) for token in sandbox.tokens[1:]]

    assert START + SET_S + LISTS_S + SPARE_S == ends[0]
    assert ends[0] + 2000 <= ends[1] < ends[2]


@pytest.mark.parametrize(
    "takes_s", [SET_S + LISTS_S + SPARE_S - 1, SET_S + LISTS_S + SPARE_S], ids=["in time", "too late"]
)
async def test_a_token_that_was_over_is_no_refusal(takes_s: float) -> None:
    """Nobody has to make a new one: the step is tried again with another, and it was time that it lacked."""
    sandbox = Overheard(REFUSED, REFUSED, takes_s=takes_s)
    with pytest.raises(errors.FlysyncError) as caught:
        await stage(sandbox)

    is_late = takes_s == SET_S + LISTS_S + SPARE_S
    assert (errors.TimedOut if is_late else errors.AccessDenied) is type(caught.value)
    assert (1 + 1 + is_late, is_late) == (len(sandbox.tokens), caught.value.temporary)


@pytest.mark.parametrize("takes_s", [49, 50], ids=["in time", "too late"])
async def test_a_token_of_the_apps_own_that_ends_meanwhile(takes_s: float) -> None:
    """The next run is given another one: it is worth another try, and concerns no other app."""
    sandbox = Overheard(REFUSED, REFUSED, takes_s=takes_s)
    found, own = await flyctl(sandbox), macaroon.macaroon(macaroon.organization(9), macaroon.until(START + 2 * 50))
    found._steps.tokens = {AppName("acme"): Secret(own)}
    with pytest.raises(errors.FlysyncError) as caught:
        await found.secrets(AppName("acme")).stage(VALUES)

    assert (errors.TimedOut if takes_s == 50 else errors.AccessDenied) is type(caught.value)
    assert (takes_s == 50, errors.Scope.APP) == (caught.value.temporary, caught.value.scope)


async def test_a_roll_out_whose_token_was_over_has_not_begun() -> None:
    """It is no bad try of the value."""
    sandbox = Overheard(REFUSED, takes_s=10_000)
    rollout = await (await flyctl(sandbox)).secrets(AppName("acme")).deploy(wait=True, timeout_s=60)

    assert (RolloutEnd.UNTOUCHED, errors.TimedOut) == (rollout.end, type(rollout.error))


async def test_oauth_goes_as_it_is() -> None:
    """It has no end that is known: refused, it is refused."""
    sandbox = Overheard(REFUSED, takes_s=10_000)
    with pytest.raises(errors.AccessDenied):
        await stage(sandbox, "fo1_abc")

    assert ["", "fo1_abc"] == sandbox.tokens


async def test_without_a_database_this_machines_clock_counts() -> None:
    """As for `doctor --app` while Postgres is down: better than a token without an end."""
    sandbox = Overheard(told(0))
    found = await flyctl(sandbox)
    found._steps.server_time = lambda: None
    now = sandbox.clock.now().timestamp()
    await found.sign_in()

    assert abs(macaroon.ends(sandbox.tokens[-1]) - now - 30 - SPARE_S) < 60


async def test_a_token_for_one_app() -> None:
    """Its own, in each step that is about one; who only signs in asks for none."""
    sandbox = Overheard(*[told(0)] * 3)
    found = await flyctl(sandbox)
    found._steps.one_app = True
    found._steps._ids |= {AppName("acme"): 7, AppName("other"): 8}
    await found.secrets(AppName("acme")).stage(VALUES)
    await found.secrets(AppName("other")).unset([SecretName("A")])
    await found.sign_in()

    assert [{7}, {8}, None] == [macaroon.apps(token) for token in sandbox.tokens[1:]]


ACME, OTHER = AppName("acme"), AppName("other")
MINE, ITS = macaroon.macaroon(macaroon.organization(1)), macaroon.macaroon(macaroon.organization(2))


@pytest.mark.parametrize("one_app", [False, True])
async def test_each_app_has_its_own_token(one_app: bool) -> None:
    """In each step that is about it, narrowed as any; that of all others for an app without one."""
    sandbox = Overheard(*[told(0)] * 5)
    found = await flyctl(sandbox)
    found._steps.one_app = one_app
    found._steps.tokens = {ACME: Secret(MINE), OTHER: Secret(ITS)}
    found._steps._ids |= {ACME: 7, OTHER: 8, AppName("third"): 9}
    await found.secrets(ACME).stage(VALUES)
    await found.secrets(OTHER).unset([SecretName("A")])
    await found.sign_in(OTHER)
    await found.secrets(AppName("third")).stage(VALUES)
    await found.sign_in()

    parents = [next(one for one in (TOKEN, MINE, ITS) if macaroon.narrows(one, sent)) for sent in sandbox.tokens[1:]]
    assert [MINE, ITS, ITS, TOKEN, TOKEN] == parents
    assert [{7}, {8}, None, {9}, None] == [macaroon.apps(sent) for sent in sandbox.tokens[1:]] or not one_app


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("failed to update app secrets: unauthorized", errors.AccessDenied),
        ("failed to list VMs: trial has ended, please add a credit card", errors.FlyRefused),
    ],
)
@pytest.mark.parametrize("call", ["set", "list", "deploy", "sign-in"])
async def test_what_fly_refuses_to_an_app_s_own_token(text: str, error: type[errors.FlysyncError], call: str) -> None:
    """It is no fault of the setup: each other app has another token, and another organization."""

    async def refused(app: AppName) -> errors.FlysyncError:
        sandbox = Overheard(*[told(1, stderr=f"Error: {text}")] * 3)
        found = await flyctl(sandbox, "fo1_x")
        found._steps.tokens = {ACME: Secret("fo1_y")}
        found._steps._ids[app] = 7
        found._steps.base_urls = {"FLY_FLAPS_BASE_URL": "http://127.0.0.1:9"}  # nobody tells more of an app there
        if call == "deploy":
            rollout = await found.secrets(app).deploy(wait=True, timeout_s=60)
            assert rollout.error
            return rollout.error
        its = found.secrets(app)
        work = {"sign-in": lambda: found.sign_in(app), "set": lambda: its.stage(VALUES), "list": its.look}[call]
        with pytest.raises(error) as caught:
            await work()
        return caught.value

    own, shared = await refused(ACME), await refused(OTHER)

    assert (error, errors.Scope.APP, errors.Scope.SETUP) == (type(own), own.scope, shared.scope)
    if error is errors.AccessDenied:
        assert ("FLYSYNC_TOKEN_COMMAND", "FLY_API_TOKEN") == (own.setting, shared.setting)
        assert "its command has to give another" in str(own.hint)


@pytest.mark.parametrize(
    "form", ["{}", "FlyV1 {}", "a={}&b", '{{"token": "{}"}}', "x/{}/y", "fm2_abc,{}", "FlyV1%20{}"]
)
def test_no_macaroon_is_shown_in_what_others_say(form: str) -> None:
    """Those of a step are in no list of secrets."""
    token = macaroon.macaroon(macaroon.until(START))
    shown = redact(form.format(token), [])

    assert MASK in shown
    assert not [start for start in range(4, len(token) - 8) if token[start : start + 8] in shown]
