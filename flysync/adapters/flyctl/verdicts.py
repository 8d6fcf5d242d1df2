"""
What flyctl's texts mean: one table, each row with the recorded run that shows the text.

flyctl never shows a status code (flyctl.md, top), so words are all there is to judge by: those of the line that begins
with `Error:`, below which an app's own log lines may stand. A text that no row knows means a temporary failure, and is
not shown: it can hold anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flysync.errors import (
    AccessDenied,
    AppNotFound,
    ConfigError,
    DeployIncomplete,
    FlyctlFailed,
    FlyRefused,
    FlyUnavailable,
    InvalidCredential,
    RateLimited,
    TimedOut,
)
from flysync.model.fly import TO_MAKE_ONE, Machines, RolloutEnd

if TYPE_CHECKING:
    from flysync.errors import FlysyncError


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row: a text of flyctl's, and what it means."""

    pattern: str
    error: type[FlysyncError]
    message: str
    #: The run in flyctl-transcripts.txt, or the place in flyctl.md, that shows the text.
    source: str
    #: Whether the request may have done its work all the same.
    may_have_worked: bool = False
    hint: str | None = None
    #: The one exit status that the row is about; nothing for any.
    code: int | None = None


#: The greatest number of a release: what Postgres' integer holds.
MOST_RELEASES = 2**31 - 1

#: How a roll-out fails by the app itself: flyctl looked at a machine, and it was not up.
_NOT_UP = (
    r"^Error: (smoke checks for \S+ failed: |.*machine failed to reach desired (start )?state"
    r"|timeout reached waiting for (machine's state to change|health checks to pass))"
)

#: What comes before the status of an answer that is not JSON of Fly's: of GraphQL, of the Machines API, of releases.
_STATUS = r"(?:non-(?:200|2xx) status(?: code)?: |\(status )"

VERDICTS: tuple[Verdict, ...] = (
    Verdict(
        _NOT_UP,
        DeployIncomplete,
        "a machine of {app} did not start, or did not become healthy",
        "flyctl.md 4: start timeout, health, crash; tests/contract/test_flyctl_crashes.py; internal/machine/wait.go",
    ),
    Verdict(
        r"Could not find App|: app not found\b",
        AppNotFound,
        "Fly.io knows no app {app}",
        "transcripts: app does not exist",
    ),
    Verdict(
        r"failed to fetch discharge tokens|missing third-party discharge token",
        AccessDenied,
        "Fly.io refuses the token: it needs a discharge that only a login can give",
        "flyctl.md 4, macaroon without discharge",
    ),
    Verdict(
        rf"You must be authenticated to view this|no access token available|: unauthorized\b|invalid token: "
        rf"|\b(?i:not authorized to) |{_STATUS}40[13]\b",
        AccessDenied,
        "Fly.io refuses the token",
        "transcripts: token; flyctl.md 3 and 4; superfly/fly-pr-review-apps issue 60",
    ),
    Verdict(
        r'"(?P<name>[A-Za-z0-9_]+)" is not a valid secret name',
        InvalidCredential,
        "Fly.io refuses {name!r} as the name of a secret",
        "transcripts: secrets set 1A=2",
    ),
    Verdict(
        rf"{_STATUS}429\b|(?i:\brate limit|too many requests)",
        RateLimited,
        "Fly.io asks for fewer requests",
        "transcripts: GraphQL 429; superfly/flyctl pull request 3961: `resource_exhausted: rate limit exceeded`",
    ),
    Verdict(
        r"(?i:(?P<why>trial has ended|add a payment method|need your payment information|has overdue invoices"
        r"|has been marked as high risk|has reached its machine limit|(organization|account) (is|has been) suspended))",
        FlyRefused,
        "Fly.io refuses the organization of {app}: {why!r}",
        "what people quote of flyctl (2023 to 2026): `failed to list VMs: trial has ended, please add a credit card`,"
        " superfly/flyctl issue 981, pull request 2060; that of a suspended one is assumed",
        hint="Fly.io's dashboard says more (Billing); correct what the message names",
    ),
    Verdict(
        r"^Error: update secrets: error saving config file: ",
        FlyctlFailed,
        "Fly has the change, and flyctl could not write its configuration in the sandbox",
        "flyctl.md 4, config dir lock: it comes after the request",
        may_have_worked=True,
    ),
    Verdict(
        r"lease currently held by",
        FlyctlFailed,
        "somebody else is changing a machine of {app} and has a lease on it",
        "what people quote of flyctl: `machine ID m0 lease currently held by ID@tokens.fly.io, expires at ...`",
        hint="run the same command again in a minute; `fly machine lease view` shows who has it",
    ),
    Verdict(
        r"could not reserve resource for machine|insufficient (resources|memory|CPUs|IPs) |no capacity\b"
        r"|deploys to this host are temporarily disabled",
        FlyctlFailed,
        "Fly.io has no room for a machine of {app} where it is",
        "machines_deploymachinesapp.go: 409 and 422 of a full host; a machine without a volume is replaced by flyctl",
        hint="run the same command again later, or move the machine to another region (`fly machine clone`)",
    ),
    Verdict(
        r"x509: certificate signed by unknown authority",
        ConfigError,
        "the sandbox does not trust the certificate that Fly.io's API shows",
        "Go's crypto/x509: an image without certificates, or a proxy on the way that has its own",
        hint="put ca-certificates into the snapshot (FLYSYNC_SNAPSHOT; `flysync snapshot build` does), or use another",
    ),
    Verdict(
        r"dial tcp|no such host|connection refused|no route to host|network is unreachable|server misbehaving"
        r"|HTTP response to HTTPS client|TLS handshake|x509: "
        r'|": (Forbidden|Proxy Authentication Required)$',
        FlyUnavailable,
        "the sandbox cannot reach Fly.io's API",
        "transcripts: connection refused, no such host; Go's net/http/transport.go: a proxy's answer to CONNECT;"
        " Go's net: the others",
        hint="Daytona's lower tiers allow no connection to fly.io; `flysync doctor` checks that",
    ),
    Verdict(
        r": (unexpected )?EOF\b|connection reset by peer|broken pipe|i/o timeout|Client\.Timeout|deadline[ _]exceeded"
        r"|transport connection broken|use of closed network connection|GOAWAY|stream error: ",
        FlyUnavailable,
        "the connection to Fly.io's API broke",
        "transcripts: connection dropped before and after the work; flyctl.md 4: exit status 126",
        may_have_worked=True,
    ),
    Verdict(
        rf"non-200 status code: [45]\d\d|{_STATUS}(5\d\d|408)\b",
        FlyUnavailable,
        "Fly.io's API answers with an error",
        "transcripts: GraphQL 500, POST secrets 500 with HTML",
        may_have_worked=True,
    ),
    Verdict(
        rf"{_STATUS}(?P<why>4\d\d)\b",
        FlyctlFailed,
        "Fly.io's API refuses a request with status {why}",
        "fly-go flaps.go: handleAPIError",
    ),
    Verdict(
        r"decod(ing|e) response: ",
        FlyUnavailable,
        "Fly.io's API answers with something that is not an answer",
        "tests/contract/test_flyctl.py, test_flyctl_odds.py: an answer that is HTML, or ends early",
        may_have_worked=True,
    ),
    Verdict(
        r"\A\s*\Z",
        FlyctlFailed,
        "flyctl broke off: a machine failed while others waited, or it was interrupted",
        "flyctl.md 4: 127 prints nothing; tests/contract/test_flyctl_rollout.py: a machine in the middle fails",
        may_have_worked=True,
        code=127,
    ),
)

#: A call that fails while it looks its app up has stored nothing (flyctl.md 4.4).
_LOOKING_UP = re.compile(r"failed to run query \(\$appName: String!\) \{ appcompact:")

#: deploy exits 1 with this where there is nothing to roll out to (transcripts: secrets deploy --app empty-app).
_NO_MACHINES = re.compile(r"^Error: no machines available to deploy")

#: A machine was being changed (transcripts: roll-out fails): its line comes before the request.
_TOUCHED = re.compile(r"^(?:> |✔ |✖ )(?:\[\d+/\d+\] )?(?:Updating|Machine|Waiting|Checking) ", re.MULTILINE)
#: One machine is done (transcripts: secrets deploy).
_UPDATED = re.compile(r"^✔ (?:\[\d+/(?P<total>\d+)\] )?Machine ", re.MULTILINE)
#: How many machines there are; the part is missing where there is one.
_NUMBERED = re.compile(r"^(?:> |✔ |✖ )\[\d+/(?P<total>\d{1,9})\] ", re.MULTILINE)
#: The last line of a deploy that succeeded, by FLY_EMIT_RELEASE_JSON (transcripts: secrets deploy).
_RELEASE = re.compile(r'^\{"id":.*"version":(?P<version>\d{1,10})\b.*\}$', re.MULTILINE)

_ERROR_LINE = re.compile(r"^Error: .*", re.MULTILINE)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")

#: timeout(1) says 124, or 137 where it had to kill.
_OUT_OF_TIME = (124, 137)
#: flyctl's own word that it failed (flyctl.md 4), and a shell's that there was nothing to run. With another one it has
#: crashed or was killed, wherever it was.
_FAILED = (1, 126, 127)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a failed call means."""

    error: FlysyncError
    #: Whether the request may have done its work all the same.
    may_have_worked: bool


def judge(code: int, stderr: str | None, *, phase: str, app: str, is_late: bool = False) -> Judgement:
    """Give the error that a failed call stands for; of *stderr* it has a few words, which stand in the table too."""
    if code in _OUT_OF_TIME:
        error: FlysyncError = TimedOut(f"flyctl ran out of time ({phase})", service="fly", phase=phase)
        return Judgement(error=error, may_have_worked=True)
    text = plain(stderr or "")
    line = _error_line(text)
    for row in VERDICTS:
        if stderr is not None and row.code in {None, code} and (found := re.search(row.pattern, line)):
            error = _error(row, found.groupdict(), phase=phase, app=app)
            if is_late and isinstance(error, AccessDenied):  # it is the token of this call that is over
                error = TimedOut(f"the token for this call ended before it ({phase})", service="fly", phase=phase)
            return Judgement(error=error, may_have_worked=row.may_have_worked and not _LOOKING_UP.search(line))
    words = f" and an unknown message of {len(text)} characters" if text else " and no message"
    message = f"flyctl failed with status {code}{'' if stderr is None else words} ({phase})"
    error = FlyctlFailed(message, service="fly", phase=phase)
    return Judgement(error=error, may_have_worked=stderr is None or code not in _FAILED)


def _error(row: Verdict, words: dict[str, str], *, phase: str, app: str) -> FlysyncError:
    """Give the error of *row*; *words* are of the text, and none but the row's own pattern lets through."""
    message = row.message.format(app=app or "the app", **words)
    hint, setting = row.hint, None
    if row.error is AccessDenied:
        hint, setting = f"set a new FLY_API_TOKEN: {TO_MAKE_ONE}", "FLY_API_TOKEN"
    return row.error(message, hint=hint, service="fly", phase=phase, setting=setting, name=words.get("name"))


def rollout_end(code: int, stdout: str, stderr: str | None, error: FlysyncError) -> RolloutEnd:
    """Tell how a roll-out ended that failed with *error*."""
    if _NO_MACHINES.search(_error_line(plain(stderr or ""))):
        return RolloutEnd.NO_MACHINES
    if isinstance(error, DeployIncomplete):
        return RolloutEnd.APP_FAILED
    if not _TOUCHED.search(plain(stdout)):
        return RolloutEnd.UNTOUCHED
    return RolloutEnd.OUT_OF_TIME if code in _OUT_OF_TIME else RolloutEnd.BROKEN_OFF


def release(stdout: str) -> int | None:
    """Find the number of the release that a deploy has made; nothing where flysync cannot keep it."""
    found = _RELEASE.search(plain(stdout))
    number = int(found["version"]) if found else 0
    return number if 0 < number <= MOST_RELEASES else None


def machines(stdout: str) -> Machines | None:
    """Count machines in what a deploy printed."""
    text = plain(stdout)
    total = _NUMBERED.search(text)
    updated = len(_UPDATED.findall(text))
    if total:
        return Machines(updated=updated, total=int(total["total"]))
    return Machines(updated=updated, total=1) if _TOUCHED.search(text) else None


def plain(text: str) -> str:
    """Give *text* without colours: some of flyctl's lines have them even where there is no terminal (flyctl.md 1.2)."""
    return _ANSI.sub("", text)


def _error_line(text: str) -> str:
    found = _ERROR_LINE.search(text)
    return found[0] if found else text
