"""
The plain script that most teams would write, and flysync, through the same faults: the table of docs/why.md.

    nox -s compare [-- NUMBER …]    all cases, or those of these numbers

The script is `bare.py first-plan`. Each case is played twice, in new worlds: a real Postgres; Daytona, Fly and flyctl
simulated, with a second until a sandbox is there and two until the installer answers (assumed), all else at once.
1 where flysync does not do what is promised.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

from bench_sync import INSTALLER_S, SLOW_CREATE_S, script
from platform_of_tests import Platform, Running, running

from flysync.sim.fly_machine import Crash
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

TEN = {f"KEY_{number}": "value" for number in range(1, 11)}
ONE, TWO = {"KEY_1": "value"}, {"KEY_1": "value", "KEY_2": "value"}
#: Apps that change at once, and sandboxes that Daytona allows at a time; seconds by which one of two sandboxes is late.
APPS, QUOTA, LATE_S = 4, 2, 8.0


class Side:
    """Some apps with the same keys, the script or flysync (*ours*) that brings them, and what has come of it."""

    def __init__(self, platform: Platform, apps: int, *, ours: bool) -> None:
        self.platform, self.ours, self.said = platform, ours, "-"
        self.apps = [platform.world.fly.add_app(f"app-{number}") for number in range(1, apps + 1)]
        self.keys: dict[str, str] = {}
        self.codes: list[int] = []
        platform.flysync("db", "init", cold=True)
        for app in self.apps:
            platform.deploy(app.name, app.name)

    def start(self, keys: dict[str, str], *command: str) -> list[Running]:
        """Let the table have these keys and no others, and call what brings them (of flysync, this *command*)."""
        self.keys = keys
        self.platform.execute("DELETE FROM cloud_credentials")
        for app in self.apps:
            self.platform.store_all(app.name, keys)
        if self.ours:
            which = ("--project", "app-1") if len(self.apps) == 1 else ("--all", "--concurrency", str(APPS))
            usual = ("sync-project", *which, "--prune", "--prune-after", "0s")
            return [self.platform.start(*(command or usual), cold=True)]
        words = [f"{name}={value}" for name, value in keys.items()]
        commands = [script("bare.py", "first-plan", app.name, *words) for app in self.apps]
        pipe, env = subprocess.PIPE, self.platform.environ
        return [Running(subprocess.Popen(one, env=env, stdin=pipe, stdout=pipe, stderr=pipe)) for one in commands]

    def end(self, processes: list[Running]) -> None:
        """Wait for the end, and note what was said."""
        ended = [process.done() for process in processes]
        self.codes += [one.code for one in ended]
        lines = "".join(one.stderr + one.stdout for one in ended).splitlines() or ["nothing"]
        telling = [line for line in lines if re.match(r'\S*[eE]rror: |.*"app-1: ', line)]
        said = re.sub(r"run \w{26}", "another run", (telling or lines)[-1])
        self.said = re.sub(r'\{.*"message": "(.*?)".*', r"\1", said).replace("|", "/")

    def restarts(self) -> int:
        """Give how often a machine was restarted, or started again."""
        started = self.platform.world.fly.requests(r"POST /v1/apps/[^/]+/machines/[^/]+/start")
        return sum(sum(app.restarts.values()) for app in self.apps) + len(started)

    def arrived(self) -> str:
        """Give how many keys the apps run with, and what is not as it should be."""
        good, wrong = 0, set()
        for app in self.apps:
            (machine,) = app.machines
            good += machine.runs * len(self.keys.items() & machine.env.items())
            is_old = any(machine.env.get(name, value) != value for name, value in self.keys.items())
            wrong |= {"an older value"} if is_old else set()
            wrong |= {"the app is down"} if not machine.runs else set()
            wrong |= {"the removed one still there"} if {*machine.env, *app.secrets} - {*self.keys} else set()
        wrong |= {"a sandbox left"} if self.platform.world.daytona.sandboxes else set()
        return ", ".join([f"{good} of {len(self.keys) * len(self.apps)}", *sorted(wrong)])


def until(holds: Callable[[], object]) -> None:
    """Wait until it is so."""
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def simply(side: Side, keys: dict[str, str] = TEN) -> None:
    """Bring keys, and let nothing go wrong."""
    side.end(side.start(keys))


def killed(side: Side) -> None:
    """Kill it as soon as Fly has half of the keys, and run it again."""
    (process,) = side.start(TEN)
    until(lambda: len(side.apps[0].secrets) >= len(TEN) / 2)
    process.process.send_signal(SIGKILL)
    side.end([process])
    simply(side)


def crashing(side: Side) -> None:
    """Let the app crash with a value, and run it three times, as a queue does."""
    side.apps[0].machines[0].crash = Crash(secrets=ONE, after_s=0.2, restarts=10)
    for _ in range(3):
        simply(side, ONE)


def lost(side: Side) -> None:
    """Let nobody call: the script does nothing then, `flysync watch` brings the key."""
    side.keys = ONE
    if side.ours:
        (watcher,) = side.start(ONE, "watch", "--every", "1s")
        until(lambda: side.arrived() == "1 of 1")
        watcher.process.send_signal(SIGTERM)
        side.end([watcher])


def removed(side: Side) -> None:
    """Remove one of three keys; nobody can tell the script."""
    simply(side, {**TWO, "KEY_3": "value"})
    simply(side, TWO)


def twice(side: Side) -> None:
    """Store a newer value while the older one waits for its sandbox, and bring it beside that."""
    late = Fault(match="POST /api/sandbox$", kind=FaultKind.DELAY, delay_s=LATE_S)
    side.platform.world.daytona.faults.append(late)
    older = side.start({"KEY_1": "old"})
    until(lambda: late.times == 0)
    side.end(older + side.start(ONE))


def used_up(side: Side) -> None:
    """Let more apps change than there may be sandboxes."""
    side.platform.world.daytona.quota = QUOTA
    simply(side, ONE)


@dataclass(frozen=True, slots=True)
class Case:
    """What happens, and what flysync promises then: its exit codes, what arrives, and the most restarts."""

    what: str
    play: Callable[[Side], None]
    codes: list[int]
    arrived: str
    restarts: int = 1
    apps: int = 1

    def played(self, *, ours: bool) -> bool:
        """Play it, print the line, and tell whether it is as promised."""
        with running() as world, tempfile.TemporaryDirectory() as home:
            world.daytona.create_delay_s = SLOW_CREATE_S
            late = Fault(match=r"GET /install\.sh", kind=FaultKind.DELAY, delay_s=INSTALLER_S, times=10**6)
            world.fly.faults.append(late)
            side = Side(Platform(world, world.dsn, Path(home)), self.apps, ours=ours)
            start = time.perf_counter()
            self.play(side)
            took = f"{time.perf_counter() - start:.0f} s" if side.codes else "-"
            codes = ", ".join("killed" if code < 0 else str(code) for code in side.codes) or "-"
            who = " | flysync" if ours else f"{self.what} | script"
            print(f"| {who} | {side.restarts()} | {took} | {side.arrived()} | {codes} | {side.said} |", flush=True)
            return (side.codes, side.arrived()) == (self.codes, self.arrived) and side.restarts() <= self.restarts


CASES = (
    Case("Ten keys, and nothing goes wrong", simply, [0], "10 of 10"),
    Case("Ten keys; killed when Fly has half of them, and run again", killed, [-9, 0], "10 of 10"),
    Case("The app crashes with the value; run three times", crashing, [75, 1, 1], "0 of 1, the app is down", 2),
    Case("The job is lost: nobody calls", lost, [0], "1 of 1"),
    Case("Three keys; then one is removed from the table, and run again", removed, [0, 0], "2 of 2", 2),
    Case(f"Two at once, and the older one's sandbox comes {LATE_S:.0f} s late", twice, [0, 0], "1 of 1", 2),
    Case(f"{APPS} apps at once, and Daytona's quota is {QUOTA} sandboxes", used_up, [0], "4 of 4", APPS, APPS),
)
if __name__ == "__main__":
    print("| what happens | with | restarts | time | what arrived | exit | what it said last |\n|" + "---|" * 7)
    wanted, broken = sys.argv[1:], []
    for number, case in enumerate(CASES, 1):
        if not wanted or str(number) in wanted:
            case.played(ours=False)
            broken += [] if case.played(ours=True) else [case.what]
    sys.exit(f"not as promised: {'; '.join(broken)}" if broken else 0)
