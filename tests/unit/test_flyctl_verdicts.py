from __future__ import annotations

import pytest

from flysync import errors
from flysync.adapters import flyctl_verdicts as verdicts

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
        ("dial tcp: lookup no-such-host.invalid on 10.0.0.1:53: no such host", errors.FlyUnavailable, False),
        ("update secrets: failed to update app secrets: injected", errors.FlyctlFailed, False),
        ("update secrets: failed to update app secrets: failed decoding response: EOF", errors.FlyUnavailable, True),
        (
            "update secrets: failed to update app secrets: failed decoding response: invalid character '<' looking",
            errors.FlyUnavailable,
            True,
        ),
        (QUERY + 'Post "http://x/graphql": EOF', errors.FlyUnavailable, False),
        (QUERY + "decoding response: invalid character '<' looking", errors.FlyUnavailable, False),
    ],
)
def test_each_recorded_text_has_its_meaning(text: str, error: type[errors.FlysyncError], may_have_worked: bool) -> None:
    """The texts of the recorded runs mean what the table says, colours or not."""
    judged = verdicts.judge(1, f"\x1b[31mError:\x1b[0m {text}", phase="set", app="acme")

    assert (error, may_have_worked) == (type(judged.error), judged.may_have_worked)


@pytest.mark.parametrize("code", [124, 137])
def test_time_limits_are_told(code: int) -> None:
    """The codes of timeout(1) are a time limit, after which nobody knows."""
    judged = verdicts.judge(code, "", phase="set", app="acme")

    assert (errors.TimedOut, True) == (type(judged.error), judged.may_have_worked)


def test_a_roll_out_that_broke_off_is_told_from_a_program_that_is_missing() -> None:
    """127 without a word is flyctl's own way to say interrupted; with words it is a shell that found no flyctl."""
    broke_off = verdicts.judge(127, "", phase="deploy", app="acme")
    missing = verdicts.judge(127, "timeout: failed to run command", phase="deploy", app="acme")

    assert (True, True, False) == (broke_off.is_known, broke_off.may_have_worked, missing.is_known)
    assert "broke off" in broke_off.error.message


def test_only_the_exit_status_is_known_where_the_texts_were_lost() -> None:
    """No text is not an empty text."""
    judged = verdicts.judge(127, None, phase="deploy", app="acme")

    assert (False, True) == (judged.is_known, judged.may_have_worked)


def test_a_text_that_nobody_knows_is_not_shown() -> None:
    """Unknown text can hold anything: only its length is told."""
    judged = verdicts.judge(1, "Error: canary-value", phase="set", app="acme")

    assert "canary" not in judged.error.message + (judged.error.hint or "")
    assert "19 characters" in judged.error.message


def test_every_row_cites_where_it_was_seen() -> None:
    """No verdict without a source."""
    assert [] == [row.pattern for row in verdicts.VERDICTS if not row.source]
