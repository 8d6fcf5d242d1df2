from __future__ import annotations

import re

import pytest

from flysync import errors
from flysync.adapters.flyctl import verdicts
from flysync.model.fly import Machines, RolloutEnd

QUERY = "failed to run query ($appName: String!) { appcompact:app(name: $appName) { id } }: "


@pytest.mark.parametrize(
    ("text", "error", "may_have_worked"),
    [
        (QUERY + "Could not find App", errors.AppNotFound, False),
        ("failed to list app secrets: app not found", errors.AppNotFound, False),
        (QUERY + "You must be authenticated to view this.", errors.AccessDenied, False),
        ("failed to list app secrets: unauthorized", errors.AccessDenied, False),
        ("no access token available. Please login with 'flyctl auth login'", errors.AccessDenied, False),
        ("update secrets: failed to update app secrets: verify: invalid token: all", errors.AccessDenied, False),
        ('update secrets: failed to update app secrets: "1A" is not a valid', errors.FlyctlFailed, False),
        ('failed to update app secrets: "1A" is not a valid secret name', errors.InvalidCredential, False),
        ("update secrets: failed to update app secrets: rate limit exceeded", errors.RateLimited, False),
        ("failed to list VMs: Too Many Requests", errors.RateLimited, False),
        ("failed to create release (status 429): {}", errors.RateLimited, False),
        ("smoke checks for m0 failed: the app appears to be crashing", errors.DeployIncomplete, False),
        ("timeout reached waiting for machine's state to change", errors.DeployIncomplete, False),
        ("timeout reached waiting for health checks to pass for machine m0: x: EOF", errors.DeployIncomplete, False),
        (
            "machine failed to reach desired start state, and restart policy was set to no",
            errors.DeployIncomplete,
            False,
        ),
        (QUERY + "server returned a non-200 status code: 500", errors.FlyUnavailable, False),
        (QUERY + "server returned a non-200 status code: 429", errors.RateLimited, False),
        (QUERY + "server returned a non-200 status code: 401", errors.AccessDenied, False),
        (
            "update secrets: failed to update app secrets: request returned non-2xx status: 500: <html>oops</html>",
            errors.FlyUnavailable,
            True,
        ),
        (
            'update secrets: failed to update app secrets: Post "http://x/v1/apps/a/secrets": EOF',
            errors.FlyUnavailable,
            True,
        ),
        ('Post "http://x": dial tcp 127.0.0.1:9: connect: connection refused', errors.FlyUnavailable, False),
        ('Get "https://x": http: server gave HTTP response to HTTPS client', errors.FlyUnavailable, False),
        ('Get "https://x": http2: server sent GOAWAY and closed the connection', errors.FlyUnavailable, True),
        ("lookup api.fly.io on 10.0.0.1:53: server misbehaving", errors.FlyUnavailable, False),
        ("dial tcp: lookup no-such-host.invalid on 10.0.0.1:53: no such host", errors.FlyUnavailable, False),
        ("update secrets: failed to update app secrets: injected", errors.FlyctlFailed, False),
        ("update secrets: failed to update app secrets: failed decoding response: EOF", errors.FlyUnavailable, True),
        (
            "update secrets: failed to update app secrets: failed decoding response: invalid character '<' looking",
            errors.FlyUnavailable,
            True,
        ),
        (
            'Post "http://x": net/http: HTTP/1.x transport connection broken: ContentLength=20 with Body length 0',
            errors.FlyUnavailable,
            True,
        ),
        ('Post "http://x": write tcp 127.0.0.1:9: use of closed network connection', errors.FlyUnavailable, True),
        (QUERY + 'Post "http://x/graphql": EOF', errors.FlyUnavailable, False),
        (QUERY + "server returned a non-200 status code: 404", errors.FlyUnavailable, False),
        (QUERY + "decoding response: invalid character '<' looking", errors.FlyUnavailable, False),
    ],
)
def test_each_recorded_text_has_its_meaning(text: str, error: type[errors.FlysyncError], may_have_worked: bool) -> None:
    """The texts of the recorded runs mean what the table says, colours or not."""
    judged = verdicts.judge(1, f"\x1b[31mError:\x1b[0m {text}", phase="set", app="acme")

    assert (error, may_have_worked) == (type(judged.error), judged.may_have_worked)


SET = "update secrets: failed to update app secrets: "
VM = "failed to update VM m0: "


@pytest.mark.parametrize(
    ("text", "error", "scope", "said"),
    [
        # Fewer requests.
        (SET + "rate limit exceeded", errors.RateLimited, "service", ""),
        ("failed to launch VM: resource_exhausted: rate limit exceeded", errors.RateLimited, "service", ""),
        ("failed to get lease on VM m0: request returned non-2xx status: 429: slow", errors.RateLimited, "service", ""),
        ("failed to create release (status 429): {}", errors.RateLimited, "service", ""),
        (
            'failed to list VMs: Get "https://x/v1/apps/rate-limiter/machines": EOF',
            errors.FlyUnavailable,
            "service",
            "",
        ),
        # The token.
        ("failed to create release (status 401): {}", errors.AccessDenied, "setup", "refuses the token"),
        ("Not authorized to deploy this app.", errors.AccessDenied, "setup", "refuses the token"),
        (SET + "verify: invalid token: token is revoked", errors.AccessDenied, "setup", "refuses the token"),
        (
            SET + "failed to fetch discharge tokens: tp error (401): unauthorized",
            errors.AccessDenied,
            "setup",
            "only a login can give",
        ),
        # The account.
        (
            "failed to list VMs: trial has ended, please add a credit card by visiting https://fly.io/trial",
            errors.FlyRefused,
            "setup",
            "'trial has ended'",
        ),
        (SET + "Your account has overdue invoices. Please", errors.FlyRefused, "setup", "'has overdue invoices'"),
        (VM + "To create more than 1 machine per app please add a payment method.", errors.FlyRefused, "setup", ""),
        ("We need your payment information to continue! Add a credit card", errors.FlyRefused, "setup", ""),
        ("Your account has been marked as high risk. Please go to", errors.FlyRefused, "setup", "high risk"),
        (VM + "Your organization has reached its machine limit. Please contact", errors.FlyRefused, "setup", "limit"),
        (SET + "Your organization is suspended", errors.FlyRefused, "setup", "'organization is suspended'"),
        # One app, for a while.
        (
            "failed to get lease on VM m0: machine ID m0 lease currently held by c@tokens.fly.io, expires at 2026",
            errors.FlyctlFailed,
            "app",
            "a lease on it",
        ),
        (VM + "aborted: could not reserve resource for machine: x", errors.FlyctlFailed, "app", "no room"),
        (VM + "insufficient memory available to fulfill request", errors.FlyctlFailed, "app", "no room"),
        ("failed to get lease on VM m0: machine not found", errors.FlyctlFailed, "app", "unknown message"),
        *(
            (f"failed to get VM m0: request returned non-2xx status: {status}: x", errors.FlyctlFailed, "app", status)
            for status in ("400", "404", "409", "412", "413", "422", "423")
        ),
        # Fly.
        (VM + "request returned non-2xx status: 504: upstream request timeout", errors.FlyUnavailable, "service", ""),
        (VM + "request returned non-2xx status: 408: x", errors.FlyUnavailable, "service", ""),
        (
            "failed to set release status: failed to update release (status 502): x",
            errors.FlyUnavailable,
            "service",
            "",
        ),
        ("failed to wait for VM m0 in started state: context deadline exceeded", errors.FlyUnavailable, "service", ""),
        # The way there.
        ('Post "https://x": dial tcp 1.2.3.4:443: i/o timeout', errors.FlyUnavailable, "service", "cannot reach"),
        ('Post "https://x": proxyconnect tcp: dial tcp: EOF', errors.FlyUnavailable, "service", "cannot reach"),
        (QUERY + 'Post "https://x/graphql": Forbidden', errors.FlyUnavailable, "service", "cannot reach"),
        (QUERY + 'Post "https://x": net/http: TLS handshake timeout', errors.FlyUnavailable, "service", "cannot reach"),
        (
            'Post "https://x": tls: failed to verify certificate: x509: certificate has expired or is not yet valid',
            errors.FlyUnavailable,
            "service",
            "cannot reach",
        ),
        (
            'Post "https://x": tls: failed to verify certificate: x509: certificate signed by unknown authority',
            errors.ConfigError,
            "setup",
            "does not trust",
        ),
    ],
)
def test_whom_a_text_concerns_and_whether_waiting_helps(
    text: str, error: type[errors.FlysyncError], scope: str, said: str
) -> None:
    """What Fly, its proxies and Go are known to say; none of it is quoted but the words of the table."""
    found = verdicts.judge(1, f"Error: {text}", phase="set", app="acme").error

    assert (error, scope) == (type(found), found.scope)
    assert said in found.message
    assert not re.search("https://|c@tokens|2026|upstream|visiting|1\\.2", found.message)


def test_a_change_that_is_made_is_not_called_failed() -> None:
    """Flyctl writes its configuration after its request: a full disk says nothing of the secret."""
    text = "Error: update secrets: error saving config file: failed acquiring lock"
    judged = verdicts.judge(1, text, phase="set", app="acme")

    assert (errors.FlyctlFailed, True) == (type(judged.error), judged.may_have_worked)


@pytest.mark.parametrize("code", [124, 137])
def test_time_limits_are_told(code: int) -> None:
    """The codes of timeout(1) are a time limit, after which nobody knows."""
    judged = verdicts.judge(code, "", phase="set", app="acme")

    assert (errors.TimedOut, True) == (type(judged.error), judged.may_have_worked)


@pytest.mark.parametrize(
    ("code", "stderr", "may_have_worked", "said"),
    [
        (127, "", True, "broke off"),  # flyctl's own way to say interrupted
        (
            127,
            "timeout: failed to run command",
            False,
            "status 127 and an unknown message of 30 characters",
        ),  # a shell found no flyctl
        (127, None, True, "status 127 (deploy)"),  # no text is not an empty text
        (3, "", True, "status 3 and no message"),  # it crashed
        (143, "", True, "status 143"),  # somebody has killed it
    ],
)
def test_what_an_exit_status_says_by_itself(code: int, stderr: str | None, may_have_worked: bool, said: str) -> None:
    """Where flyctl ended otherwise than by failing, the work may be done."""
    judged = verdicts.judge(code, stderr, phase="deploy", app="acme")

    assert (errors.FlyctlFailed, may_have_worked) == (type(judged.error), judged.may_have_worked)
    assert said in judged.error.message


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("smoke checks for m0 failed: the app appears to be crashing", errors.DeployIncomplete),
        ("failed to update VM m0: injected", errors.FlyctlFailed),
    ],
)
def test_what_an_app_has_said_is_not_judged(text: str, error: type[errors.FlysyncError]) -> None:
    """Its last lines stand below flyctl's own, whatever they look like."""
    log = f'Error: {text}\n\nError: "A" is not a valid secret name\nno such host\nrate limit'

    assert error is type(verdicts.judge(1, log, phase="deploy", app="acme").error)


@pytest.mark.parametrize("name", ["", "a b", "can\nary", "\x1b[2J", "canary/x"])
def test_what_is_no_name_is_not_shown(name: str) -> None:
    """Fly quotes what it was given; of that only what looks like a name is told."""
    error = verdicts.judge(1, f'Error: "{name}" is not a valid secret name', phase="set", app="acme").error

    assert isinstance(error, errors.FlyctlFailed)


def test_the_name_that_fly_refuses_is_part_of_the_error() -> None:
    """So that nobody has to look for it in a message."""
    error = verdicts.judge(1, 'Error: "1A" is not a valid secret name', phase="set", app="acme").error

    assert isinstance(error, errors.InvalidCredential)
    assert "1A" == error.name


UPDATING = "Updating existing machines in 'acme' with rolling strategy\n"
FIRST = f"{UPDATING}> [1/2] Updating m0 [app]\n"


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "end"),
    [
        (
            1,
            "",
            "Error: no machines available to deploy\n'fly secrets deploy' will only work if",
            RolloutEnd.NO_MACHINES,
        ),
        (1, FIRST, "Error: smoke checks for m0 failed: the app appears to be crashing", RolloutEnd.APP_FAILED),
        (1, FIRST, "Error: timeout reached waiting for health checks to pass for machine m0", RolloutEnd.APP_FAILED),
        (124, FIRST, "", RolloutEnd.OUT_OF_TIME),
        (137, FIRST, None, RolloutEnd.OUT_OF_TIME),
        (124, UPDATING, "", RolloutEnd.UNTOUCHED),
        (127, FIRST, "", RolloutEnd.BROKEN_OFF),
        (127, UPDATING, "", RolloutEnd.UNTOUCHED),
        (1, FIRST, "Error: failed to update VM m0: injected", RolloutEnd.BROKEN_OFF),
        (1, UPDATING, "Error: failed to get lease on VM m0: currently held", RolloutEnd.UNTOUCHED),
        (1, "", "Error: failed to create release (status 500): x", RolloutEnd.UNTOUCHED),
        (1, FIRST, 'Error: Get "http://x": EOF', RolloutEnd.BROKEN_OFF),
        (1, "\x1b[33mWARN\x1b[0m x\n\x1b[1m> Updating m0 [app]\n", None, RolloutEnd.BROKEN_OFF),
    ],
)
def test_how_a_roll_out_ended(code: int, stdout: str, stderr: str | None, end: RolloutEnd) -> None:
    """By exit status, by what was touched, and by one row of the table."""
    error = verdicts.judge(code, stderr, phase="deploy", app="acme").error

    assert end == verdicts.rollout_end(code, stdout, stderr, error)


@pytest.mark.parametrize(
    ("line", "release"),
    [
        ('{"id":"r","version":14,"image_ref":"x"}', 14),
        ('{"id":"r","version":2147483647}', 2147483647),
        ('{"id":"r","version":2147483648}', None),
        ('{"id":"r","version":' + "9" * 5000 + "}", None),
        ('{"id":"r","version":0}', None),
        ('{"id":"r","version":-1}', None),
        ('{"id":"r","version":"x"}', None),
        ("", None),
    ],
)
def test_the_number_of_a_release(line: str, release: int | None) -> None:
    """One that no database keeps is none."""
    assert release == verdicts.release(f"✔ Machine m0 [app] update succeeded\n{line}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (UPDATING, None),
        (FIRST, Machines(updated=0, total=2)),
        (f"{FIRST}✔ [1/2] Machine m0 [app] update succeeded\n✖ [2/2] Machine m1", Machines(updated=1, total=2)),
        ("> Updating m0 [app]\n✔ Machine m0 [app] update succeeded", Machines(updated=1, total=1)),
    ],
)
def test_how_far_a_roll_out_has_come(text: str, expected: Machines | None) -> None:
    """Where there is one machine, its lines have no number."""
    assert expected == verdicts.machines(text)


def test_a_text_that_nobody_knows_is_not_shown() -> None:
    """Unknown text can hold anything: only its length is told."""
    judged = verdicts.judge(1, "Error: canary-value", phase="set", app="acme")

    assert "canary" not in judged.error.message + (judged.error.hint or "")
    assert "19 characters" in judged.error.message


def test_every_row_cites_where_it_was_seen() -> None:
    """No verdict without a source."""
    assert [] == [row.pattern for row in verdicts.VERDICTS if not row.source]
