"""
What a proof tries, promise by promise, with nothing but what anybody can do from outside.

Each gives what was seen, and raises `Broken` or `NotHere` with it otherwise. They may be tried in any choice.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, NamedTuple

from flysync.handlers.prove.trying import (
    CLASSES,
    CRASH,
    ONE,
    SOON_S,
    SYNC,
    Broken,
    base,
    changed,
    each_started,
    expect,
    new_value,
    runs,
    until,
)
from flysync.ports import PROJECT, Clock, Ended, NotHere, Trial
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


class Promise(NamedTuple):
    """A line of a proof."""

    name: str
    text: str  #: What is promised.
    tried: Callable[[Trial, Clock], Awaitable[str]]
    restarts: int = 0  #: How often flysync may restart each machine for it.


async def _arrives(trial: Trial, _: Clock) -> str:
    await base(trial)
    await runs(trial)
    return f"{len(CLASSES) + 1} values, one of each kind, have the row's SHA-256 in each machine that runs"


async def _is_running(trial: Trial, _: Clock) -> str:
    ended = await changed(trial)
    expect(ended.report.get("outcome") == "synced", f"the sync of a change ended with {ended}")
    await runs(trial)
    return f"a change was {ended.report['outcome']} after {ended.seconds:.1f} s, and the machines have it"


async def _one_restart(trial: Trial, _: Clock) -> str:
    ended = await changed(trial)
    expect(ended.code == 0, f"the sync of a change ended with {ended}")
    return await each_started(trial, 1)


async def _no_restart(trial: Trial, _: Clock) -> str:
    await base(trial)
    for words in (SYNC, (*SYNC, "--verify")):
        ended = await trial.run(*words)
        expect(ended.report.get("outcome") == "unchanged", f"with nothing new, {words[-1]} ended with {ended}")
    return await each_started(trial, 0)


async def _list_agrees(trial: Trial, clock: Clock) -> str:
    await base(trial)
    before = (await trial.digests()).get(ONE)
    ended = await changed(trial)

    async def is_new() -> bool:
        return (await trial.digests()).get(ONE) not in (None, before)

    late_s = await until(is_new, clock)
    expect(late_s is not None, f"Fly's list has the old digest {SOON_S:.0f} s after a sync that ended with {ended}")
    live = await trial.run("status", "--project", PROJECT, "--live")
    expect(live.code == 0, f"status --live ended with {live}")
    return f"Fly's list shows a change {late_s:.1f} s after the sync, and status --live finds nothing else"


async def _row_alone(trial: Trial, clock: Clock) -> str:
    await base(trial)
    await runs(trial)
    watching = await trial.begin("watch", "--every", "1s")
    ending = asyncio.ensure_future(watching.ended())

    async def is_there() -> bool:
        try:
            return ending.done() or not await trial.differing()
        except NotHere:  # no machine is up while they restart
            return False

    try:
        await trial.store({ONE: new_value()})
        took_s = await until(is_there, clock)
        if ending.done() and (await ending).error.get("code") == "config":
            raise NotHere("watch needs the packages of the extra worker")
        expect(took_s is not None, f"watch has not brought it within {SOON_S:.0f} s")
    finally:
        watching.stop()
        ended = await ending
    expect(ended.code == 0, f"watch ended with {ended}")
    return f"watch has brought a row that nobody told of within {took_s:.0f} s"


async def _goes_on(trial: Trial, _: Clock) -> str:
    await base(trial)
    codes: list[int] = []
    while not any(code < 0 for code in codes):
        if len(codes) == 3:  # noqa: PLR2004 - Fly may be quicker than the kill
            raise NotHere(f"three runs ended before they could be killed, with {', '.join(map(str, codes))}")
        await trial.store({ONE: new_value()})
        codes.append(await trial.killed("deploy", *SYNC))
    ended = await trial.run(*SYNC, "--lock-wait", "5m", "--timeout", "15m")
    expect(ended.code == 0, f"after the kill, the next run ended with {ended}")
    await runs(trial)
    return f"killed as it began the roll-out; the next run went on and was done after {ended.seconds:.1f} s"


async def _joins(trial: Trial, _: Clock) -> str:
    await base(trial)
    await trial.store({ONE: new_value()})
    both = [await trial.begin(*SYNC, "--lock-wait", "5m") for _ in range(2)]
    first, second = await asyncio.gather(*(one.ended() for one in both))
    expect(first.code == second.code == 0, f"two runs at once ended with {first} and {second}")
    covered = sum(one.report.get("covered_by") is not None for one in (first, second))
    await runs(trial)
    return f"two runs at once: one sent it, {covered or 'none'} was covered by it; {await each_started(trial, 1)}"


async def _fails(trial: Trial, _: Clock) -> str:
    await base(trial)
    await trial.store({CRASH: Secret("1")})
    ended: list[Ended] = []
    rollouts = 0
    try:
        while len(ended) < 3:  # noqa: PLR2004 - the third one makes none
            ended.append(await trial.run(*SYNC))
            if ended[0].code == 0 and not await trial.differing():
                raise NotHere(f"the app runs on with {CRASH}=1; its image has to exit then (docs/prove.md)")
            rollouts += max(its.updates for its in (await trial.changes()).values())
        seen = f"three syncs with a value that the app exits with: {', '.join(map(str, ended))}; {rollouts} roll-outs"
        expect([one.code for one in ended] == [75, 1, 1] and rollouts <= 2, seen)  # noqa: PLR2004 - what is promised
    finally:
        await trial.store({CRASH: Secret("0")})
    good = await trial.run(*SYNC)
    expect(good.code == 0, f"{seen}; then with one that it runs with: {good}")
    await runs(trial)
    return f"{seen}; then with one that it runs with: {good}"


async def _unsets(trial: Trial, clock: Clock) -> str:
    return await _removed(trial, clock, "unset", "--project", PROJECT, "--name", ONE, "--yes")


async def _prunes(trial: Trial, clock: Clock) -> str:
    return await _removed(trial, clock, *SYNC, "--prune", "--prune-after", "0s", "--yes")


async def _removed(trial: Trial, clock: Clock, *words: str) -> str:
    """Remove a row, let a command remove its secret, see that it is gone, and give it a row again."""
    await base(trial)
    await trial.remove(ONE)

    async def is_gone() -> bool:
        return ONE not in await trial.digests()

    try:
        ended = await trial.run(*words)
        expect(ended.code == 0, f"it ended with {ended}")
        expect(await until(is_gone, clock) is not None, f"it ended with {ended}, and Fly lists it all the same")
        await runs(trial)
        return f"gone from Fly's list and from each machine; {await each_started(trial, 1)}"
    finally:
        await trial.store({ONE: new_value()})


async def _app_alone(trial: Trial, _: Clock) -> str:
    expect(await trial.may_see(), "Fly refuses a token that is narrowed to the app")
    expect(not await trial.may_see(other=True), "a token that is narrowed to another app opens this one")
    await base(trial)
    ended = await trial.run(*SYNC, "--verify", settings={"FLYSYNC_NARROW_TOKEN": "app"})
    expect(ended.code == 0, f"with FLYSYNC_NARROW_TOKEN=app a sync ended with {ended}")
    return "a token narrowed to the app opens it and syncs, one narrowed to another does not"


async def _token_ends(trial: Trial, _: Clock) -> str:
    expect(await trial.may_see(), "Fly refuses a token that ends in an hour")
    expect(not await trial.may_see(ended=True), "a token that ended an hour ago opens the app")
    return "Fly takes a token that ends in an hour, and refuses one that ended an hour ago"


async def _refused(
    trial: Trial, settings: Mapping[str, str], *, code: str, exit_code: int, unless: str | None = None
) -> str:
    """Sync with settings with which nothing can be done, and see that it says so, *unless* it ends before that."""
    await base(trial)
    ended = await trial.run(*SYNC, "--verify", settings=settings)
    if unless and ended.error.get("code") == unless:
        raise NotHere("it ended before there was anything to refuse", ended)
    expect((ended.code, ended.error.get("code")) == (exit_code, code), f"it ended with {ended}")
    return f"{ended}; {await each_started(trial, 0)}"


async def _says_no(trial: Trial, _: Clock) -> str:
    token = {"FLY_API_TOKEN": f"fo1_{secrets.token_urlsafe(24)}"}
    settings = {**token, "FLYSYNC_TOKEN_COMMAND": "", "FLYSYNC_NARROW_TOKEN": ""}
    seen = await _refused(trial, settings, code="access_denied", exit_code=1)
    return f"with a token that nobody has given: {seen}"


async def _says_later(trial: Trial, _: Clock) -> str:
    nowhere = dict.fromkeys(("FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL"), "http://127.0.0.1:9")
    nowhere["FLYSYNC_EGRESS"] = "open"  # which takes no addresses
    return f"with a Fly that does not answer: {await _refused(trial, nowhere, code='fly_unavailable', exit_code=75)}"


async def _sum(trial: Trial, _: Clock) -> str:
    settings = {"FLYSYNC_FLYCTL_SHA256": secrets.token_hex(32)}
    seen = await _refused(trial, settings, code="flyctl_changed", exit_code=1, unless="flyctl_failed")
    return f"with a sum of nothing: {seen}"


async def _egress(trial: Trial, _: Clock) -> str:
    ended = await trial.run("doctor", "--app", trial.app, settings={"FLYSYNC_EGRESS": "fly"})
    found = {one["subject"]: one for one in ended.report.get("doctor", ())}
    if "runner" in found:
        raise NotHere("flyctl runs on this machine, whose network flysync does not limit")
    expect({"network", "egress"} <= found.keys(), f"the doctor ended with {ended}")
    both = found["network"], found["egress"]
    seen = "; ".join(one["message"] for one in both)
    expect(all(one["verdict"] == "ok" for one in both), seen)
    return seen


async def _hidden(trial: Trial, _: Clock) -> str:
    await base(trial)
    leaks = await trial.leaks()
    expect(not leaks, f"a value is in {', '.join(leaks)}")
    return "no value is in what commands have printed, nor in flysync's tables"


async def _leaves_nothing(trial: Trial, _: Clock) -> str:
    try:
        await trial.clear()
    except NotHere as left:
        raise Broken(str(left)) from None
    return "no sandbox, no secret of the proof and no table is left"


#: In order; the last one is the end of the trial.
PROMISES = (
    Promise(
        name="arrives", text="the value that arrives is the stored value, byte for byte", tried=_arrives, restarts=1
    ),
    Promise(name="runs", text='"synced" means that the machines run with it', tried=_is_running, restarts=1),
    Promise(name="one-restart", text="one restart per change", tried=_one_restart, restarts=1),
    Promise(name="no-restart", text="no restart without a change", tried=_no_restart),
    Promise(name="list", text="what Fly lists is what was sent", tried=_list_agrees, restarts=1),
    Promise(name="row-alone", text="a committed row arrives without a job", tried=_row_alone, restarts=1),
    Promise(name="goes-on", text="after a run that was killed, the next one goes on", tried=_goes_on, restarts=4),
    Promise(name="joins", text="runs at once are one change", tried=_joins, restarts=1),
    Promise(name="unsets", text="a removed credential leaves the app, with one restart", tried=_unsets, restarts=2),
    Promise(name="prunes", text="a row that is gone leaves the app when told to", tried=_prunes, restarts=2),
    Promise(name="app-alone", text="a sandbox's token can serve its own app alone", tried=_app_alone),
    Promise(name="token-ends", text="a sandbox's token ends", tried=_token_ends),
    Promise(name="says-no", text="a failure that stays is not called passing", tried=_says_no),
    Promise(name="says-later", text="a failure that passes says so", tried=_says_later),
    Promise(name="sum", text="no flyctl is run whose sum is not listed", tried=_sum),
    Promise(name="egress", text="a sandbox can be kept from reaching other hosts", tried=_egress),
    Promise(name="fails", text="an app that fails with a value is never called synced", tried=_fails, restarts=3),
    Promise(name="hidden", text="no value is shown", tried=_hidden),
    Promise(name="leaves-nothing", text="nothing is left", tried=_leaves_nothing),
)
