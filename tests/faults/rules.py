"""
What has to come of a fault: rules of design 6, and of what flyctl and the SDK are known to do by themselves.

Facts: daytona.md 4 (what the SDK repeats), flyctl.md 4 (what flyctl repeats, and what its failures mean).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calls import Call

_CUT = frozenset({"cut before the work", "cut after the work"})
#: Answers that say that nothing was done.
_REFUSED = frozenset({"401", "403", "404", "409", "429", "429, Retry-After"})
_DENIED = frozenset({"401", "403"})
#: Nobody knows what becomes of a create.
_UNANSWERED = frozenset({"no answer", "cut before the work", "HTML", "408", "502"})
#: The work is done, and nobody is told.
_DONE = frozenset({"cut after the work", "half an answer"})
_NO_JSON = frozenset({"HTML", "half an answer"})
#: flyctl's HTTP layer sends these four times in all (flyctl.md 4.1).
_REPEATED = frozenset({"502", "503"})
_SERVER = frozenset({"500", "502", "503"})

MANY = 10**6


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """How a run with a fault has to end."""

    outcome: str
    code: str | None = None
    exit: int = 0
    service: str | None = None
    setting: str | None = None
    #: How often the call is tried: at least, at most.
    tries: tuple[int, int] = (1, 1)
    #: Sandboxes that are there when the run is over, and whether the report tells of one.
    left: int = 0
    is_left_told: bool = False
    restarts: int = 0

    def text(self) -> str:
        """Say it in the words of the docs."""
        least, most = self.tries
        said = [f"`{self.outcome}`"]
        if self.code:
            said.append(f"`{self.code}` {self.exit}")
        said.append(f"{least}x" if least == most else f"{least}x or more")
        if self.is_left_told:
            said.append("1 sandbox left, told" if self.left else "told that one may be left")
        elif self.left:
            said.append("1 sandbox left: Daytona says there is none")
        return ", ".join(said)


_SYNCED = Expected(outcome="synced", restarts=1)
_EXITS = {"access_denied": 1, "daytona_refused": 1}


def _failed(code: str, outcome: str = "failed", *, service: str = "daytona", tries: int = 3) -> Expected:
    denied = {"daytona": "DAYTONA_API_KEY", "fly": "FLY_API_TOKEN"}[service] if code == "access_denied" else None
    return Expected(
        outcome=outcome,
        code=code,
        exit=_EXITS.get(code, 75),
        service=service,
        setting=denied,
        tries=(tries, tries),
    )


def expected(call: Call, fault: str, *, lasting: bool) -> Expected:
    """Give what has to come of *fault* in *call*."""
    if call.service == "fly":
        return _of_fly(call, fault, lasting=lasting)
    if call.step:
        return _of_exec(call.step, fault, lasting=lasting)
    return {"create": _of_create, "get": _of_get, "delete": _of_delete}[call.key](fault, lasting)


def _daytona_code(fault: str) -> str:
    """Give the code for an answer of Daytona's, or for none."""
    if fault in _DENIED:
        return "access_denied"
    if fault in {"408", "no answer"}:
        return "timeout"
    if fault.startswith("quota"):
        return "quota_reached"
    return "rate_limited" if fault.startswith("429") else "daytona_unavailable"


def _of_create(fault: str, lasting: bool) -> Expected:
    """A refusal is told at once; a sandbox whose answer was lost is found by its name; all else is repeated."""
    if fault in _DENIED:
        return _failed("access_denied", tries=1)
    if fault == "suspended":
        return _failed("daytona_refused", tries=1)
    if fault in _DONE:
        return _SYNCED
    if not lasting:
        return replace(_SYNCED, tries=(2, 2))
    return replace(_failed(_daytona_code(fault)), is_left_told=fault in _UNANSWERED)


def _of_get(fault: str, lasting: bool) -> Expected:
    """The sandbox is there: its name is taken when it is created again, and it is looked for again."""
    if fault in _DENIED:
        denied = replace(_failed("access_denied", tries=2))
        return replace(denied, left=1, is_left_told=True) if lasting else denied
    if not lasting:
        return replace(_SYNCED, tries=(2, MANY if fault in _CUT else 2))
    return replace(_failed("daytona_unavailable"), tries=(4, 4 if fault == "404" else MANY), left=1, is_left_told=True)


def _of_delete(fault: str, lasting: bool) -> Expected:
    """Nothing that becomes of the sandbox changes what was done; it is tried until the time for it is over."""
    if fault in _DENIED:
        return replace(_SYNCED, left=1, is_left_told=True)
    if fault == "404":
        return replace(_SYNCED, left=1)
    again = replace(_SYNCED, tries=(2, MANY))
    if not lasting or fault == "half an answer":  # the second one finds nothing to delete
        return again
    return replace(again, left=int(fault not in _DONE), is_left_told=True)


def _of_exec(step: str, fault: str, *, lasting: bool) -> Expected:
    """A step is sent three times and runs once; the sandbox keeps what it told for those who come again."""
    if not lasting:
        return replace(_SYNCED, tries=(2, 2))
    # The key has just made the sandbox: the proxy says 401 of one that it does not know.
    code = "daytona_unavailable" if fault in _DENIED else _daytona_code(fault)
    if step == "install":
        return _failed(code)
    if step == "set":
        return _failed(code) if fault in _REFUSED else _failed("outcome_unknown", "unknown")
    if fault in _REFUSED:
        return _failed("deploy_incomplete", "staged")
    return replace(_failed("outcome_unknown", "unknown"), restarts=int(fault in _DONE))


def _fly_code(call: Call, fault: str) -> str:
    """Give the code for what flyctl prints: it shows the server's words, and its status only for GraphQL."""
    if fault == "no answer":
        return "timeout"
    if fault in _CUT | _NO_JSON:
        return "fly_unavailable"
    if call.match == "POST /graphql":
        if fault in _DENIED:
            return "access_denied"
        return "rate_limited" if fault.startswith("429") else "fly_unavailable"
    return {"401": "access_denied", "404": "app_not_found"}.get(fault, "flyctl_failed")


def _of_fly(call: Call, fault: str, *, lasting: bool) -> Expected:
    if call.key.endswith((": GET machines", ": GET machines, for the status")) and call.step != "deploy":
        return _of_machines(call, fault, lasting=lasting)
    sends = 4 if fault in _REPEATED else 1
    if _is_ignored(call, fault):
        return replace(_SYNCED, tries=(1, MANY) if lasting or sends == 4 else (1, 2))
    if not lasting and _is_overcome(call, fault):
        # A lease that was given without an answer is in its own way until it ends; some calls are usual several times.
        is_often = call.usual > 1 or (call.key == "deploy: POST lease" and fault in _DONE)
        return replace(_SYNCED, tries=(2, MANY if is_often else 2))
    if call.step == "deploy":
        return _of_deploy(call, fault, lasting=lasting)
    code = _fly_code(call, fault)
    attempts, is_late = _attempts(code), call.step in {"list", "confirm"}
    if not lasting and (attempts > 1 or is_late):
        return replace(_SYNCED, tries=(2, 2))
    tries = (attempts + is_late) * sends
    if is_late:
        return _of_a_late_list(call.step, (tries, tries))
    if code == "app_not_found":
        return Expected(outcome="skipped")
    may_have_worked = code == "timeout" or (code == "fly_unavailable" and call.match != "POST /graphql")
    if call.step == "set" and may_have_worked:
        return _failed("outcome_unknown", "unknown", service="fly", tries=tries)
    return _failed(code, service="fly", tries=tries)


def _attempts(code: str) -> int:
    """Give how often a step is tried that always fails so."""
    return {"access_denied": 1, "app_not_found": 1, "timeout": 2}.get(code, 3)


def _of_a_late_list(step: str, tries: tuple[int, int]) -> Expected:
    """
    What cannot be looked at before the deploy is not rolled out; after it, nobody knows how the machines are.

    Neither is tried again in its step, which is the set's or the deploy's, and then once more in one of its own.
    """
    if step == "list":
        return replace(_failed("deploy_incomplete", "staged", service="fly"), tries=tries)
    return replace(_failed("outcome_unknown", "unknown", service="fly"), tries=tries, restarts=1)


def _of_machines(call: Call, fault: str, *, lasting: bool) -> Expected:
    """
    A list asks twice: `secrets list` for the status, which it can do without, and then `machine list`.

    The one before the set has the secrets alone; the one after it shows which machines are down before the deploy, and
    the one after the deploy which are down by it. What does not answer keeps `machine list` from being run.
    """
    attempts = _attempts(_fly_code(call, fault))
    is_first, is_for_status = call.step == "first", call.key.endswith("status")
    more = int(fault in _REPEATED | _CUT or fault == "404")  # flyctl comes again by itself where that may help
    if is_for_status and fault == "no answer":  # then `secrets list` has none to give either
        if not lasting:
            return replace(_SYNCED, tries=(2, 2) if is_first else (3, 3))
        tries = (attempts + (not is_first),) * 2
        return (
            replace(_failed("timeout", service="fly"), tries=tries) if is_first else _of_a_late_list(call.step, tries)
        )
    if is_first:
        tries = (1, MANY) if lasting and more else (1 + more, 1 + more)
        return _of_a_late_list("list", tries) if lasting else replace(_SYNCED, tries=tries)
    if not lasting and is_for_status:
        return replace(_SYNCED, tries=(2 + more, 2 + more))
    if not lasting:
        return replace(_SYNCED, tries=(3, 3) if fault in _REPEATED else (4, 4))
    least = 2 + attempts if fault == "no answer" else 2 * (1 + attempts)
    return _of_a_late_list(call.step, (least, MANY if more else least))


def _is_ignored(call: Call, fault: str) -> bool:
    """Tell whether flyctl takes no notice, or only warns; what does not answer holds it up everywhere."""
    if fault == "no answer":
        return False
    if call.key == "deploy: GET wait":
        return fault in _NO_JSON  # the status says it all
    return call.key.endswith(": GET releases") or call.key in {
        "deploy: DELETE lease",
        "deploy: PATCH releases, complete",
    }


def _is_overcome(call: Call, fault: str) -> bool:
    """Tell whether flyctl itself gets over a fault that comes once."""
    if fault in _REPEATED:
        return True
    if fault == "no answer":
        return False
    if call.key in {"deploy: POST lease", "deploy: GET wait"}:
        return True
    if call.key == "deploy: PATCH releases, running":
        return fault in _SERVER | _CUT | _NO_JSON
    # Not so after a wait, whose answer is not read.
    is_later_get = call.match.startswith("GET") and not call.key.endswith(("GET secrets", "GET machine"))
    if is_later_get and fault in _CUT:
        return True  # it comes over a connection that is kept, and Go sends it again over a new one
    return call.key == "deploy: GET machines" and fault == "404"


def _of_deploy(call: Call, fault: str, *, lasting: bool) -> Expected:
    """There is one deploy per run; restarted is whatever the fault let through."""
    if call.key == "deploy: POST machine":
        restarts = int(fault in _DONE)
    else:
        later = ("wait", "GET machine", "DELETE lease", "complete")
        restarts = int(call.key.endswith(later))
    ended = replace(_failed("deploy_incomplete", "staged", service="fly", tries=1), restarts=restarts)
    is_patient = call.usual > 1 or (
        lasting
        and call.key
        in {
            "deploy: POST lease",
            "deploy: GET wait",
            "deploy: PATCH releases, running",
            "deploy: GET machine",
        }
    )
    return replace(ended, tries=(1, MANY) if is_patient else (4, 4) if fault in _REPEATED else (1, 1))
