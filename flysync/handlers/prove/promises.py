"""
What a proof tries, promise by promise, with nothing but what anybody can do from outside.

Each gives what was seen, and raises `Broken` or `NotHere` with it otherwise. They may be tried in any choice.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.model.core import SecretName
from flysync.ports import PREFIX, PROJECT, Clock, Ended, NotHere, Trial
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

_SYNC = ("sync-project", "--project", PROJECT)
#: The first one changes now and then; one with which the app is to fail, where its image looks at it.
_ONE, _CRASH = SecretName(f"{PREFIX}ONE"), SecretName(f"{PREFIX}CRASH")
#: Each class of characters that a value may have; something new goes in front.
_CLASSES: Mapping[str, str] = {
    "QUOTES": 'it\'s "quoted" `id` $(id) ${HOME} $HOME \\ \\n \\\\ !1 %s %d',
    "SPACES": "  two before, two after, a\ttab  ",
    "LINES": "one\ntwo\r\nthree\rfour\n\n",
    "SIGNS": "# = : ; & | < > * ? [ ] { } ~ ^ @ , . / + -",
    "CONTROLS": "".join(map(chr, (*range(1, 32), 127, 128, 133, 159))),
    "LETTERS": "äß 漢字 עברית \u202e \u200b \ufeff e\u0301 🔑 \U0010ffff",
    "KEY": "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\n-----END KEY-----\n",
    "JSON": '{"type": "service_account", "private_key": "-----BEGIN\\n"}',
    "LONG": "0123456789abcdef" * 2048,
}
#: Seconds in which something comes about by itself: Fly's list, or the watcher's look; and between two looks of ours.
_SOON_S, _LOOK_S = 120.0, 0.5


class Broken(Exception):
    """A promise does not hold; the text says what was seen, and holds no value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """A line of a proof."""

    name: str
    text: str  #: What is promised.
    tried: Callable[[Trial, Clock], Awaitable[str]]
    restarts: int = 0  #: How often flysync may restart each machine for it.


def _expect(holds: object, seen: str) -> None:
    if not holds:
        raise Broken(seen)


def _new(text: str = "") -> Secret:
    return Secret(secrets.token_urlsafe(12) + text)


async def _base(trial: Trial) -> None:
    """See that the app has values of ours, and runs with them."""
    if not await trial.digests():
        await trial.store({_ONE: _new(), **{SecretName(PREFIX + name): _new(its) for name, its in _CLASSES.items()}})
    ended = await trial.run(*_SYNC)
    _expect(ended.code == 0, f"the sync before it ended with {ended}")
    await trial.changes()


async def _changed(trial: Trial) -> Ended:
    """Change one row, sync it by its name, and give how that has ended."""
    await _base(trial)
    await trial.store({_ONE: _new()})
    return await trial.run("sync", "--project", PROJECT, "--name", _ONE)


async def _runs(trial: Trial) -> None:
    different = await trial.differing()
    _expect(not different, f"not what the row has: {', '.join(different)}")


async def _until(true: Callable[[], Awaitable[object]], clock: Clock, *, limit_s: float = _SOON_S) -> float | None:
    """Wait until something is so, and give the seconds that it took; nothing where it did not come."""
    began = clock.monotonic()
    while (took_s := clock.monotonic() - began) < limit_s:
        if await true():
            return took_s
        await clock.sleep(_LOOK_S)
    return None


async def _arrives(trial: Trial, _: Clock) -> str:
    await _base(trial)
    await _runs(trial)
    return f"{len(_CLASSES) + 1} values, one of each kind, have the row's SHA-256 in each machine"


async def _is_running(trial: Trial, _: Clock) -> str:
    ended = await _changed(trial)
    _expect(ended.report.get("outcome") == "synced", f"the sync of a change ended with {ended}")
    await _runs(trial)
    return f"a change was {ended.report['outcome']} after {ended.seconds:.1f} s, and the machines have it"


async def _one_restart(trial: Trial, _: Clock) -> str:
    ended = await _changed(trial)
    _expect(ended.code == 0, f"the sync of a change ended with {ended}")
    return await _each_started(trial, 1)


async def _each_started(trial: Trial, times: int) -> str:
    starts = [its.starts for its in (await trial.changes()).values()]
    seen = f"starts of the {len(starts)} machines: {', '.join(map(str, starts))}"
    _expect(starts and set(starts) == {times}, seen)
    return seen


async def _no_restart(trial: Trial, _: Clock) -> str:
    await _base(trial)
    for words in (_SYNC, (*_SYNC, "--verify")):
        ended = await trial.run(*words)
        _expect(ended.report.get("outcome") == "unchanged", f"with nothing new, {words[-1]} ended with {ended}")
    return await _each_started(trial, 0)


async def _list_agrees(trial: Trial, clock: Clock) -> str:
    await _base(trial)
    before = (await trial.digests()).get(_ONE)
    ended = await _changed(trial)

    async def is_new() -> bool:
        return (await trial.digests()).get(_ONE) not in (None, before)

    late_s = await _until(is_new, clock)
    _expect(late_s is not None, f"Fly's list has the old digest {_SOON_S:.0f} s after a sync that ended with {ended}")
    live = await trial.run("status", "--project", PROJECT, "--live")
    _expect(live.code == 0, f"status --live ended with {live}")
    return f"Fly's list shows a change {late_s:.1f} s after the sync, and status --live finds nothing else"


async def _row_alone(trial: Trial, clock: Clock) -> str:
    await _base(trial)
    watching = await trial.begin("watch", "--every", "1s")
    ending = asyncio.ensure_future(watching.ended())
    await trial.store({_ONE: _new()})

    async def is_there() -> bool:
        return ending.done() or not await trial.differing()

    try:
        took_s = await _until(is_there, clock)
        if ending.done() and (await ending).error.get("code") == "config":
            raise NotHere("watch needs the packages of the extra worker")
        _expect(took_s is not None, f"watch has not brought it within {_SOON_S:.0f} s")
    finally:
        watching.stop()
        ended = await ending
    _expect(ended.code == 0, f"watch ended with {ended}")
    return f"watch has brought a row that nobody told of within {took_s:.0f} s"


async def _goes_on(trial: Trial, _: Clock) -> str:
    await _base(trial)
    await trial.store({_ONE: _new()})
    if not await trial.killed("deploy", *_SYNC):
        raise NotHere("the run ended before it could be killed")
    ended = await trial.run(*_SYNC, "--lock-wait", "5m", "--timeout", "15m")
    _expect(ended.code == 0, f"after the kill, the next run ended with {ended}")
    await _runs(trial)
    return f"killed as it began the roll-out; the next run went on and was done after {ended.seconds:.1f} s"


async def _joins(trial: Trial, _: Clock) -> str:
    await _base(trial)
    await trial.store({_ONE: _new()})
    both = [await trial.begin(*_SYNC, "--lock-wait", "5m") for _ in range(2)]
    first, second = [await one.ended() for one in both]
    _expect(first.code == second.code == 0, f"two runs at once ended with {first} and {second}")
    covered = sum(one.report.get("covered_by") is not None for one in (first, second))
    await _runs(trial)
    return f"two runs at once: one sent it, {covered or 'none'} was covered by it; {await _each_started(trial, 1)}"


async def _fails(trial: Trial, clock: Clock) -> str:
    del clock
    await _base(trial)
    await trial.store({_CRASH: Secret("1")})
    ended, rollouts = [], 0
    for _ in range(3):
        ended.append(await trial.run(*_SYNC))
        if ended[0].code == 0 and not await trial.differing():
            raise NotHere(f"the app runs on with {_CRASH}=1; its image has to exit then (docs/prove.md)")
        rollouts += max(its.updates for its in (await trial.changes()).values())
    seen = f"three syncs with a value that the app exits with: {', '.join(map(str, ended))}; {rollouts} roll-outs"
    _expect([one.code for one in ended] == [75, 1, 1] and rollouts <= 2, seen)  # noqa: PLR2004 - what is promised
    await trial.store({_CRASH: Secret("0")})
    mended = await trial.run(*_SYNC)
    _expect(mended.code == 0, f"{seen}; then with one that it runs with: {mended}")
    await _runs(trial)
    return f"{seen}; then with one that it runs with: {mended}"


async def _unsets(trial: Trial, _: Clock) -> str:
    await _base(trial)
    await trial.remove(_ONE)
    return await _is_gone(trial, await trial.run("unset", "--project", PROJECT, "--name", _ONE, "--yes"))


async def _prunes(trial: Trial, _: Clock) -> str:
    await _base(trial)
    await trial.remove(_ONE)
    return await _is_gone(trial, await trial.run(*_SYNC, "--prune", "--prune-after", "0s", "--yes"))


async def _is_gone(trial: Trial, ended: Ended) -> str:
    """See that the one whose row was removed is gone, and give it a row again."""
    _expect(ended.code == 0, f"it ended with {ended}")
    _expect(_ONE not in await trial.digests(), f"it ended with {ended}, and Fly lists it all the same")
    await _runs(trial)
    seen = await _each_started(trial, 1)
    await trial.store({_ONE: _new()})
    return f"gone from Fly's list and from each machine; {seen}"


async def _app_alone(trial: Trial, _: Clock) -> str:
    _expect(await trial.may_see(), "Fly refuses a token that is narrowed to the app")
    _expect(not await trial.may_see(other=True), "a token that is narrowed to another app opens this one")
    await _base(trial)
    ended = await trial.run(*_SYNC, "--verify", settings={"FLYSYNC_NARROW_TOKEN": "app"})
    _expect(ended.code == 0, f"with FLYSYNC_NARROW_TOKEN=app a sync ended with {ended}")
    return "a token narrowed to the app opens it and syncs, one narrowed to another does not"


async def _token_ends(trial: Trial, _: Clock) -> str:
    _expect(await trial.may_see(), "Fly refuses a token that ends in an hour")
    _expect(not await trial.may_see(ended=True), "a token that ended an hour ago opens the app")
    return "Fly takes a token that ends in an hour, and refuses one that ended an hour ago"


async def _refused(trial: Trial, settings: Mapping[str, str], *, code: str, exit_code: int) -> str:
    """Sync with settings with which nothing can be done, and see that it says so and has done nothing."""
    await _base(trial)
    ended = await trial.run(*_SYNC, "--verify", settings=settings)
    _expect((ended.code, ended.error.get("code")) == (exit_code, code), f"it ended with {ended}")
    return f"{ended}; {await _each_started(trial, 0)}"


async def _says_no(trial: Trial, _: Clock) -> str:
    settings = {"FLY_API_TOKEN": f"fo1_{secrets.token_urlsafe(24)}", "FLYSYNC_TOKEN_COMMAND": ""}
    seen = await _refused(trial, settings, code="access_denied", exit_code=1)
    return f"with a token that nobody has given: {seen}"


async def _says_later(trial: Trial, _: Clock) -> str:
    nowhere = dict.fromkeys(("FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL"), "http://127.0.0.1:9")
    return f"with a Fly that does not answer: {await _refused(trial, nowhere, code='fly_unavailable', exit_code=75)}"


async def _sum(trial: Trial, _: Clock) -> str:
    settings = {"FLYSYNC_FLYCTL_SHA256": secrets.token_hex(32)}
    return f"with a sum of nothing: {await _refused(trial, settings, code='flyctl_changed', exit_code=1)}"


async def _egress(trial: Trial, _: Clock) -> str:
    ended = await trial.run("doctor", "--app", trial.app, settings={"FLYSYNC_EGRESS": "fly"})
    found = {one["subject"]: one for one in ended.report.get("doctor", ())}
    if "runner" in found:
        raise NotHere("flyctl runs on this machine, whose network flysync does not limit")
    _expect({"network", "egress"} <= found.keys(), f"the doctor ended with {ended}")
    both = found["network"], found["egress"]
    seen = "; ".join(one["message"] for one in both)
    _expect(all(one["verdict"] == "ok" for one in both), seen)
    return seen


async def _hidden(trial: Trial, _: Clock) -> str:
    await _base(trial)
    leaks = await trial.leaks()
    _expect(not leaks, f"a value is in {', '.join(leaks)}")
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
    Promise(name="goes-on", text="after a run that was killed, the next one goes on", tried=_goes_on, restarts=2),
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
