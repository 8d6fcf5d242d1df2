"""What the promises are tried with: values, and the steps that several have in common."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from flysync.model.core import SecretName
from flysync.ports import PREFIX, PROJECT, Clock, Ended, NotHere, Trial
from flysync.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

SYNC = ("sync-project", "--project", PROJECT)
#: The first one changes now and then; one with which the app is to fail, where its image looks at it.
ONE, CRASH = SecretName(f"{PREFIX}ONE"), SecretName(f"{PREFIX}CRASH")
#: Each class of characters that a value may have; something new goes in front.
CLASSES: Mapping[str, str] = {
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
SOON_S, _LOOK_S = 120.0, 1.0


class Broken(Exception):
    """A promise does not hold; the text says what was seen, and holds no value."""


def expect(holds: object, seen: str) -> None:
    """Raise `Broken` with what was seen, unless it *holds*."""
    if not holds:
        raise Broken(seen)


def new_value(text: str = "") -> Secret:
    """Give a value that was never there before, with *text* at its end."""
    return Secret(secrets.token_urlsafe(12) + text)


async def base(trial: Trial) -> None:
    """See that the app has values of ours, and runs with them."""
    if not trial.names:
        classes = {SecretName(PREFIX + name): new_value(its) for name, its in CLASSES.items()}
        await trial.store({ONE: new_value(), **classes})
    ended = await trial.run(*SYNC)
    expect(ended.code == 0, f"the sync before it ended with {ended}")
    if ended.report.get("outcome") == "staged":
        raise NotHere("the app has no machine")
    await trial.changes()


async def changed(trial: Trial) -> Ended:
    """Change one row, sync it by its name, and give how that has ended."""
    await base(trial)
    await trial.store({ONE: new_value()})
    return await trial.run("sync", "--project", PROJECT, "--name", ONE)


async def runs(trial: Trial) -> None:
    """Expect that the machines run with the rows."""
    different = await trial.differing()
    expect(not different, f"not what the row has: {', '.join(different)}")


async def until(true: Callable[[], Awaitable[object]], clock: Clock) -> float | None:
    """Wait until something is so, and give the seconds that it took; nothing where it did not come."""
    began = clock.monotonic()
    while (took_s := clock.monotonic() - began) < SOON_S:
        if await true():
            return took_s
        await clock.sleep(_LOOK_S)
    return None


async def each_started(trial: Trial, times: int) -> str:
    """Expect that each machine that runs was started so often since the last look, and give what was seen."""
    starts = [its.starts for its in (await trial.changes()).values() if its.starts or not its.rests]
    if not starts:
        raise NotHere("no machine of the app is started")
    seen = f"starts of the machines: {', '.join(map(str, starts))}"
    expect(set(starts) == {times}, seen)
    return seen
