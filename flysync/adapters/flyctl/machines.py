"""
The machines of an app, as `flyctl machine list --json` shows them.

A machine's configuration holds the app's environment, and a health check's output may hold anything: what leaves the
sandbox are words that are known beforehand, numbers, and ids.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from flysync.adapters.flyctl.verdicts import MOST_RELEASES
from flysync.errors import FlyctlFailed
from flysync.model.fly import Machine

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Gives a line for each thing that is of use. flyctl indents by 4 spaces a level, and in JSON a line break is not part
#: of a text (measured). A machine whose host does not answer has an `incomplete_config` in the place of its
#: configuration (read: fly-go machine_types.go, GetConfig); flyctl does not count a check that it makes itself
#: (RemoveCompatChecks there). The last two lines say that nothing is missing, and what time it is.
LIST = """\
{ o=$(@CALL@); r=$?
printf "%s\\n" "$o" | LC_ALL=C sed -nE "s/^ {4}[{]$/machine/p
s/^ {8}\\"id\\": \\"([A-Za-z0-9][A-Za-z0-9_-]{0,63})\\".*/id \\1/p
s/^ {8}\\"(state|host_status)\\": \\"([a-z_-]{1,40})\\".*/\\1 \\2/p
/^ {8}\\"(incomplete_)?config\\": [{]$/,/^ {8}[}]/{
/^ {12}\\"metadata\\": [{]$/,/^ {12}[}]/{
s/^ {12}\\".*/metadata/p
s/^ {16}\\"fly_platform_version\\": \\"v2\\".*/launched/p
s/^ {16}\\"fly_release_version\\": \\"([0-9]{1,10})\\".*/release \\1/p
s/^ {16}\\"fly_process_group\\": \\"fly_app_(release_command|console|test_machine_command)\\".*/temporary/p
s/^ {16}\\"(process_group\\": \\"release_command|fly_canary\\": \\"true)\\".*/temporary/p
}
}
/^ {8}\\"checks\\": [[]$/,/^ {8}]/{
s/^ {12}[{]$/check/p
s/^ {16}\\"name\\": \\"bg_deployments_compat.*/compat/p
s/^ {16}\\"status\\": \\"critical\\".*/critical/p
}
/^ {8}\\"events\\": [[]$/,/^ {8}]/{
s/^ {12}[{]$/event/p
s/^ {16}\\"type\\": \\"(start|exit)\\".*/\\1/p
s/^ {16}\\"timestamp\\": ([0-9]{1,15}),?$/at \\1/p
s/^ {24}\\"exit_code\\": (-?[0-9]{1,9}),?$/code \\1/p;t
s/^ {24}\\"exit_code\\": .*/code odd/p
s/^ {24}\\"(requested_stop|oom_killed)\\": true.*/\\1/p
}
s/^[[]]$/none/p
s/^]$/end/p" || r=74
printf "now %s\\n" "$(date +%s)"
(exit "$r"); }"""

_WHOLE = re.compile(r"(?P<machines>machine\n(?:.+\n)*end|none)\nnow (?P<now>\d{1,15})\n?")
#: Fly's are 14 letters and digits, and are shown; what is not as plain may be anything.
_ID = re.compile(r"[0-9A-Za-z_]{1,40}")
#: Fly's words for a machine (fly.io/docs/machines/machine-states) and for a host that does not answer (fly-go,
#: machine_types.go). Another one may be anything: it is not shown, and says as little as "unknown".
# fmt: off
_WORDS = frozenset({
    "created", "started", "stopped", "suspended", "failed", "creating", "starting", "stopping", "restarting",
    "suspending", "launch_failed", "updating", "replacing", "replaced", "migrating", "migrated", "unreachable",
})
# fmt: on
_GONE = frozenset({"destroyed", "destroying"})


def read(told: str) -> tuple[Machine, ...]:
    """
    Make machines of what `LIST` prints; those that are gone, or that flyctl makes for a moment only, are left out.

    Raises:
        FlyctlFailed: it is not what flysync expects.
    """
    if whole := _WHOLE.fullmatch(told):
        blocks = re.split(r"^machine\n", whole["machines"], flags=re.MULTILINE)[1:]
        with suppress(ValueError, KeyError, OverflowError):
            listed = [_machine(block.splitlines(), int(whole["now"])) for block in blocks]
            return tuple(machine for machine in listed if machine)
    raise FlyctlFailed("flyctl's list of machines is not what flysync expects", service="fly", phase="machines")


def _machine(told: Sequence[str], now: int) -> Machine | None:
    lines = [line.partition(" ")[::2] for line in told]
    words = dict(lines)
    if not _ID.fullmatch(words["id"]):
        raise ValueError("not a machine's id")
    state, host = words.get("state", ""), words.get("host_status", "ok")
    if state in _GONE or "temporary" in words:
        return None
    is_seen = host == "ok"  # else what is known of it is old, and may not even say who made it
    state = state if is_seen else host
    events = _blocks(lines, "event") if is_seen else []
    newest = next((event for event in events if event.keys() & {"start", "exit"}), {})
    exits = [int(event["at"]) for event in events if "exit" in event]
    release = int(words.get("release", 0))
    return Machine(
        id=words["id"],
        state=state if state in _WORDS else "unknown",
        release=release if 0 < release <= MOST_RELEASES else None,
        is_managed="launched" in words or (not is_seen and "metadata" not in words),
        has_crashed="exit" in newest
        and "requested_stop" not in newest
        and ("oom_killed" in newest or int(newest.get("code", 0)) != 0),
        exited_ago_s=max(0.0, now - exits[0] / 1000) if exits else None,
        is_critical=is_seen and any("critical" in check and "compat" not in check for check in _blocks(lines, "check")),
    )


def _blocks(lines: Sequence[tuple[str, str]], first: str) -> list[dict[str, str]]:
    """Give the lines after each line *first*: what a check says, or an event, newest first as Fly lists them."""
    blocks: list[dict[str, str]] = []
    for key, value in lines:
        if key == first:
            blocks.append({})
        elif blocks:
            blocks[-1][key] = value
    return blocks
