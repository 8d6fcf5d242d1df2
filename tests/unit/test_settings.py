from __future__ import annotations

import os
import re
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flysync import bootstrap, settings
from flysync.bootstrap import load_settings
from flysync.errors import ConfigError, UsageError
from flysync.model.core import SyncOptions
from flysync.secret import Secret
from flysync.settings import SECRETS, VARIABLES, Settings, Source, dotenv
from flysync.settings.table import HOSTS
from flysync.sim import macaroon

if TYPE_CHECKING:
    from collections.abc import Callable

    from flysync.model.config import ConfigReport

ROOT = Path(__file__).parents[2]
CANARY = "c4nary-v4lue"
MACAROON = macaroon.macaroon(macaroon.organization(9))
DISCHARGE = macaroon.macaroon(location=macaroon.DISCHARGES)
NEEDS = ("DATABASE_URL", "FLY_API_TOKEN", "DAYTONA_API_KEY")
SET = {"DATABASE_URL": "postgresql://u:p@h/d", "FLY_API_TOKEN": "fo1_token", "DAYTONA_API_KEY": "dtn_key"}


def environment(**values: str) -> Source:
    """Give the environment as a source."""
    return Source(label="environment", values=values)


def dot_env(**values: str | None) -> Source:
    """Give a `.env` of the working directory as a source; each setting is in its line 3."""
    return Source(label=".env", values=values, lines=dict.fromkeys(values, 3), is_dot_env=True)


def problems(*sources: Source, needs: tuple[str, ...] = ()) -> str:
    """Give the message with which *sources* are refused."""
    with pytest.raises(ConfigError) as caught:
        settings.load(sources, needs=needs)
    return caught.value.message


def test_the_stronger_source_wins_and_is_remembered() -> None:
    """A setting is that of the first source that has it, and says which one that was."""
    report, made = settings.survey(
        [environment(DATABASE_URL="host=a"), dot_env(DATABASE_URL="host=b", FLY_API_TOKEN="c")]
    )

    assert (Secret("host=a"), Secret("c"), 90) == (made.database_url, made.fly_api_token, made.keep_runs_days)
    assert "environment" == report.line("DATABASE_URL").source
    assert ".env:3" == report.line("FLY_API_TOKEN").source
    assert "default" == report.line("FLYSYNC_KEEP_RUNS_DAYS").source


def test_an_empty_text_counts_as_not_set() -> None:
    """An empty variable hides neither a weaker source nor the default."""
    made = settings.load(
        [environment(DATABASE_URL="", FLYSYNC_VALUE_SOURCE="\n"), dot_env(DATABASE_URL="host=b")], needs=NEEDS[:1]
    )

    assert (Secret("host=b"), "database") == (made.database_url, made.value_source)


def test_all_problems_come_at_once() -> None:
    """One message names every setting that is missing, unknown or malformed."""
    told = problems(environment(FLYSYNC_SNAPSHOTT="x", FLYSYNC_KEEP_RUNS_DAYS="many"), needs=NEEDS)

    assert "FLYSYNC_SNAPSHOTT (environment) is not a setting; did you mean FLYSYNC_SNAPSHOT?" in told
    assert "FLYSYNC_KEEP_RUNS_DAYS (environment) is not a number of days" in told
    assert all(f"{name} is not set" in told for name in NEEDS)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FLYSYNC_SNAPSHOTT", "FLYSYNC_SNAPSHOT"),
        ("FLYSYNC_DATABASE_URL", "DATABASE_URL"),
        ("FLYSYNC_FLY_API_TOKEN", "FLY_API_TOKEN"),
        ("FLYSYNC_TIMEOUT", None),
        ("FLYSYNC_TOKEN", None),
        ("FLYSYNC_FOO", None),
    ],
)
def test_what_was_meant_by_an_unknown_setting(name: str, meant: str | None) -> None:
    """All of ours begin alike, and are compared without that; nothing is better than a wrong guess."""
    told = problems(environment(**{name: "x"}))

    assert f"{name} (environment) is not a setting" + (f"; did you mean {meant}?" if meant else "") == told


@pytest.mark.parametrize("name", SECRETS)
def test_a_line_in_the_place_of_its_value(name: str) -> None:
    """It was pasted with its name."""
    assert f"{name} (environment) begins with its own name" in problems(environment(**{name: f"{name}=x"}))


@pytest.mark.parametrize("text", ["a,b", 'a"b', "pg_ours", "x" * 64, "é" * 32])
def test_a_schema_that_cannot_be_made(text: str) -> None:
    """It is one, and Postgres keeps its own names and cuts off long ones."""
    assert "FLYSYNC_STATE_SCHEMA (environment) is not the name of one" in problems(
        environment(FLYSYNC_STATE_SCHEMA=text)
    )
    fine = settings.load([environment(FLYSYNC_STATE_SCHEMA="Our state")], needs=())
    assert "Our state" == fine.state_schema


def test_an_actor_that_no_run_could_keep() -> None:
    """It is the setting's fault, and not the call's."""
    assert "FLYSYNC_ACTOR (environment) has more than" in problems(environment(FLYSYNC_ACTOR="x" * 1001))


def test_the_hint_is_about_what_is_wrong() -> None:
    """What is missing is to be set, anything else to be corrected."""
    for given, needs, expected, other in (
        ({"FLYSYNC_FOO": "x"}, (), "correct it", "set what is missing"),
        ({}, NEEDS, "set what is missing", "correct it"),
    ):
        with pytest.raises(ConfigError) as caught:
            settings.load([environment(**given)], needs=needs)

        assert caught.value.hint is not None
        assert (True, False) == (expected in caught.value.hint, other in caught.value.hint)


def test_names_of_the_tests_are_let_through() -> None:
    """`FLYSYNC_TEST_…` and the names of others are nobody's mistake."""
    made = settings.load([environment(FLYSYNC_TEST_FLYCTL="x", PATH="y")])

    assert isinstance(made, Settings)


@pytest.mark.parametrize("name", VARIABLES)
def test_no_problem_shows_a_value(name: str) -> None:
    """A malformed value is not in the message, nor in the hint."""
    with pytest.raises(ConfigError) as caught:
        settings.load([environment(**{name: f" {CANARY}\x01 http://[{CANARY}"})])

    assert name in caught.value.message
    assert CANARY not in f"{caught.value.message}{caught.value.hint}{caught.value.__cause__}"


@pytest.mark.parametrize("token", ["fo1_a b", "fo1_a\nfo1_b", "FlyV1  fm2_a", " fo1_a", "fo1_ä"])
def test_a_token_with_white_space_inside_is_refused(token: str) -> None:
    """A token that was pasted badly is noticed before it is sent."""
    assert "FLY_API_TOKEN (environment) contains whitespace" in problems(environment(FLY_API_TOKEN=token))


@pytest.mark.parametrize("name", ["FLY_API_TOKEN", "DAYTONA_API_KEY"])
@pytest.mark.parametrize("token", ['"fo1_a"', "'fo1_a'", '"FlyV1 fm2_a"', "${TOKEN}", "$TOKEN", "$(pass", "`pass`"])
def test_a_token_that_is_quoted_or_not_filled_in_is_refused(name: str, token: str) -> None:
    """Docker's --env-file keeps quotes and fills in nothing: no sandbox is made to find that out."""
    assert f"{name} (environment) contains " in problems(environment(**{name: token}))
    assert "TOKEN}" not in problems(environment(**{name: token}))


@pytest.mark.parametrize(
    "token",
    ["fo1_a\n", f"FlyV1 {MACAROON},{DISCHARGE}", f"FlyV1 {MACAROON}\r\n", f"{MACAROON},fo1_a"],
    ids=["OAuth", "several", "one", "both"],
)
def test_a_token_as_fly_gives_it_is_taken(token: str) -> None:
    """The one legal space stays, a final newline goes."""
    made = settings.load([environment(FLY_API_TOKEN=token)])

    assert Secret(token.rstrip()) == made.fly_api_token


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (MACAROON[:-20], "part of it is missing"),
        (f"FlyV1 {MACAROON[:-21]}", "part of it is missing"),
        (f"FlyV1 {MACAROON},fm2_", "part of it is missing"),
        (f"FlyV1 {DISCHARGE}", "permits nothing"),
    ],
    ids=["cut", "in the middle of a letter", "beside a whole one", "a discharge alone"],
)
def test_a_token_that_is_not_whole_is_refused(token: str, why: str) -> None:
    """It could not be narrowed, and Fly would refuse it: nothing is opened to find that out."""
    told = problems(environment(FLY_API_TOKEN=token))

    assert told.startswith("FLY_API_TOKEN (environment) ")
    assert why in told
    assert "fm2_" not in told


@pytest.mark.parametrize("token", ["fo1_a", f"FlyV1 {MACAROON},fo1_a"], ids=["alone", "beside one that is none"])
def test_oauth_cannot_be_narrowed_to_an_app(token: str) -> None:
    """Then nothing is done with it, wherever it comes from; without the setting it is used as it is."""
    more = environment(FLYSYNC_NARROW_TOKEN="app")
    told = problems(environment(FLY_API_TOKEN=token), more)
    with pytest.raises(ConfigError) as of_keyring:
        settings.load([more], needs=["FLY_API_TOKEN"], lookup=lambda _: Secret(token))

    assert (
        "FLYSYNC_NARROW_TOKEN (environment) needs a macaroon: FLY_API_TOKEN is an OAuth token, or contains one" == told
    )
    assert "FLYSYNC_NARROW_TOKEN" == of_keyring.value.setting
    assert "app" == settings.load([environment(FLY_API_TOKEN=f"FlyV1 {MACAROON}"), more]).narrow_token


COMMAND = "FLYSYNC_TOKEN_COMMAND"


def test_a_command_stands_for_the_token() -> None:
    """The token is neither needed, nor asked of a keyring or taken from a stray file; and if it is there, not used."""
    asked: list[str] = []

    def lookup(name: str) -> Secret | None:
        asked.append(name)
        return None

    given = {"DATABASE_URL": "host=h", "DAYTONA_API_KEY": "k", COMMAND: "cat"}
    made = settings.load(
        [environment(**given), dot_env(FLY_API_TOKEN="fo1_a")], needs=NEEDS, lookup=lookup, stored=lambda: NEEDS
    )
    besides = settings.load([environment(**given, FLY_API_TOKEN="fo1_a", FLYSYNC_NARROW_TOKEN="app")], needs=NEEDS)

    assert ([], None) == (asked, made.fly_api_token)
    assert ([], []) == (made.missing(NEEDS), besides.missing(NEEDS))
    assert (Secret(""), Secret("")) == (made.shared_token, besides.shared_token)
    assert [f"FLY_API_TOKEN (environment) is not used: {COMMAND} is set"] == [note.message for note in besides.notes]
    assert Secret("fo1_a") == settings.load([environment(FLY_API_TOKEN="fo1_a")]).shared_token


def test_an_account_of_a_stray_file_gets_no_token_of_the_commands() -> None:
    """Though the database is the stray file's as well."""
    told = problems(environment(**{COMMAND: "cat"}), dot_env(DATABASE_URL="host=h", DAYTONA_API_KEY="k"), needs=NEEDS)

    assert f"who would get token and values: {COMMAND} (environment) is not from there" in told


@pytest.mark.parametrize("word", ["App", "none", "0", "app "])
def test_a_token_is_narrowed_as_it_says_or_not_at_all(word: str) -> None:
    """Any other word could mean anything."""
    told = problems(environment(FLY_API_TOKEN=MACAROON, FLYSYNC_NARROW_TOKEN=word))

    assert told.startswith('FLYSYNC_NARROW_TOKEN (environment) is not "app"')


@pytest.mark.parametrize("name", ["FLYSYNC_FLYCTL_INSTALL_URL", "FLY_API_BASE_URL"])
@pytest.mark.parametrize("end", ["?a=1", "&b", "$(id)", "'", ";x"])
def test_an_address_that_a_shell_would_act_on_is_refused(name: str, end: str) -> None:
    """It is a part of the script in the sandbox; the placeholders of a version are fine."""
    assert f"{name} (environment) contains a character" in problems(environment(**{name: f"https://fly.test/x{end}"}))
    archive = "https://fly.test/{version}_{arch}.tar.gz"
    assert archive == settings.load([environment(FLYSYNC_FLYCTL_INSTALL_URL=archive)]).flyctl_install_url


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A" * 64, ["a" * 64]),
        (f"sha256:{'1' * 64}", ["1" * 64]),
        (f"{'1' * 64},{'2' * 64}", ["1" * 64, "2" * 64]),
        (f" {'1' * 64} , sha256:{'2' * 64}  {'3' * 64},", ["1" * 64, "2" * 64, "3" * 64]),
    ],
)
def test_there_may_be_several_sums(text: str, found: list[str]) -> None:
    """Of programs for several machines, or of one version after the other; as GitHub writes them, too."""
    assert tuple(found) == settings.load([environment(FLYSYNC_FLYCTL_SHA256=text)]).flyctl_sha256
    report, _ = settings.survey([environment(FLYSYNC_FLYCTL_SHA256=text)])
    assert ", ".join(found) == report.line("FLYSYNC_FLYCTL_SHA256").shown


@pytest.mark.parametrize(
    "text", [",", "1" * 63, "1" * 65, f"{'1' * 64},x", f"md5:{'1' * 64}", f"{'1' * 64};{'2' * 64}"]
)
def test_what_is_no_sum_is_refused(text: str) -> None:
    """A slip must not leave nothing, or less, to compare with."""
    assert "is not one or more SHA-256 sums" in problems(environment(FLYSYNC_FLYCTL_SHA256=text))


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "2130706433",
        "0x7f.0.0.1",
        "a,b.c",
        "a%2cb.c",
        "{version}.c",
        "c.",
        "fly.test",
        "xn--a.h-1_b.c",
    ],
)
def test_a_limit_to_hosts_takes_names_alone(name: str, host: str) -> None:
    """An address could not be in Daytona's list; without the limit it is fine."""
    address = environment(**{name: f"https://{host}/x", "FLYSYNC_EGRESS": "fly"})
    settings.load([environment(**{name: f"https://{host}/x", "FLYSYNC_EGRESS": "open"})])

    if host in {"fly.test", "xn--a.h-1_b.c"}:
        assert "fly" == settings.load([address]).egress
    else:
        assert f"{name} (environment) has no plain name of a host, and FLYSYNC_EGRESS=fly" in problems(address)


def test_secrets_are_hidden_from_the_first_line_on() -> None:
    """No secret is in the text form of settings or sources."""
    source = environment(**SET | {"FLY_API_TOKEN": CANARY})
    made = settings.load([source])

    assert CANARY not in repr(made) + repr(source)
    assert 3 == len(made.secrets)


@pytest.mark.parametrize("name", [name for name, (_, its) in VARIABLES.items() if not (its.secret or its.limits)])
def test_a_stray_file_decides_nothing(name: str) -> None:
    """Whatever is no secret is ignored in `.env`, valid or not, with one warning, and taken from everywhere else."""
    attribute, variable = VARIABLES[name]
    value = next(one for one in ("https://e.test", "7.7.7", "complete", "caller", "7", "yes") if fits(name, one))
    stray = settings.load([dot_env(**{name: value, "FLYSYNC_NOPE": "x"})])
    odd = settings.load([dot_env(**{name: "\x01", "DATABASE_URL": "host=h", "REDIS_URL": "\x01"})], needs=NEEDS[:1])
    meant = settings.load([Source(label="my.env", values={name: value})])

    for made, names in ((stray, (name, "FLYSYNC_NOPE")), (odd, (name,)), (meant, ())):
        assert [names] * bool(names) == [note.names for note in made.notes]
        assert made is meant or getattr(Settings(), attribute) == getattr(made, attribute)
    assert f"ignored: {name} (.env:3), FLYSYNC_NOPE (.env:3); only FLY_API_TOKEN, " in stray.notes[0].message
    assert variable.read(value) == getattr(meant, attribute) != getattr(Settings(), attribute)


def fits(name: str, text: str) -> bool:
    """Tell whether a text is a value of a setting."""
    try:
        VARIABLES[name][1].read(text)
    except ValueError:
        return False
    return True


def test_a_stray_file_does_not_bury_what_else_is_told() -> None:
    """However many names it has, and however long they are."""
    values = dict.fromkeys(("FLYSYNC_" + "A" * 10**6, *(f"FLYSYNC_{n}" for n in range(10_000))), "x")
    (note,) = settings.load([dot_env(**values)]).notes

    assert (True, 100) == (len(note.message) < 3_000, len(note.names))


def test_what_the_environment_sets_needs_no_warning() -> None:
    """A line of `.env` that would not have counted anyway is no news."""
    made = settings.load([environment(DAYTONA_TARGET="eu"), dot_env(DAYTONA_TARGET="us")])

    assert ("eu", ()) == (made.daytona_target, made.notes)


def test_the_keyring_is_asked_only_for_what_is_missing() -> None:
    """A secret that is set, or that nobody needs, is no reason to ask the keyring."""
    asked: list[str] = []

    def lookup(name: str) -> Secret:
        asked.append(name)
        return Secret("dtn_key")

    made = settings.load([environment(DATABASE_URL="host=h", FLY_API_TOKEN="t")], needs=NEEDS, lookup=lookup)

    assert (["DAYTONA_API_KEY"], Secret("dtn_key")) == (asked, made.daytona_api_key)


def test_the_keyring_can_be_left_alone() -> None:
    """With `FLYSYNC_NO_KEYRING` nobody asks it."""

    def lookup(name: str) -> Secret:
        raise AssertionError(name)

    with pytest.raises(ConfigError, match=r"FLY_API_TOKEN is not set$"):
        settings.load([environment(FLYSYNC_NO_KEYRING="1")], needs=["FLY_API_TOKEN"], lookup=lookup)


def test_a_keyring_that_fails_counts_as_empty() -> None:
    """Its failure is asked for once, told with the missing settings, and its text is not shown."""
    asked: list[str] = []

    def lookup(name: str) -> Secret:
        asked.append(name)
        raise RuntimeError(CANARY)

    with pytest.raises(ConfigError, match="FLY_API_TOKEN is not set, and the system keyring could not") as caught:
        settings.load([], needs=NEEDS, lookup=lookup)

    assert 1 == len(asked)
    assert CANARY not in caught.value.message


WHERE = ("environment", "my.env", "stored", "dot_env", "keyring")


@pytest.mark.parametrize("first", range(len(WHERE)), ids=WHERE)
@pytest.mark.parametrize("needed", [True, False])
def test_who_comes_first(first: int, *, needed: bool) -> None:
    """The order of all sources: what `config set` has stored is before `.env`, what else the keyring has is last."""
    has, asked = WHERE[first:], []

    def lookup(name: str) -> Secret:
        asked.append(name)
        return Secret("keyring")

    sources = [
        Source(label=label, values={"FLY_API_TOKEN": label}, is_dot_env=label == "dot_env")
        for label in ("environment", "my.env", "dot_env")
        if label in has
    ]
    stored = ["FLY_API_TOKEN"] if "stored" in has else []
    made = settings.load(sources, needs=["FLY_API_TOKEN"] * needed, lookup=lookup, stored=lambda: stored)
    expected: str | None = {"stored": "keyring"}.get(has[0], has[0])
    if not needed:  # neither `.env` nor the keyring is looked at
        expected = next((source.label for source in sources if not source.is_dot_env), None)

    assert expected == (None if made.fly_api_token is None else made.fly_api_token.reveal())
    assert (["FLY_API_TOKEN"] if expected == "keyring" else []) == asked


@pytest.mark.parametrize("failing", [True, False])
def test_what_is_stored_in_the_keyring_comes_from_there_or_not_at_all(*, failing: bool) -> None:
    """Whoever can keep the keyring from answering must not have `.env` read in its place."""
    asked: list[str] = []

    def lookup(name: str) -> None:
        asked.append(name)
        if failing:
            raise TimeoutError(CANARY)

    given = [dot_env(**SET)]
    report, made = settings.survey(given, lookup=lookup, stored=lambda: NEEDS[1:])
    with pytest.raises(ConfigError) as caught:
        settings.load(given, needs=NEEDS, lookup=lookup, stored=lambda: NEEDS[1:])

    assert (None, None, Secret(SET["DATABASE_URL"])) == (made.fly_api_token, made.daytona_api_key, made.database_url)
    assert "keyring" == report.line("FLY_API_TOKEN").source
    assert not report.line("FLY_API_TOKEN").is_usable
    assert failing == ("(TimeoutError)" in caught.value.message)
    assert caught.value.message.count("was stored with") == 2
    assert CANARY not in caught.value.message
    assert "flysync config unset NAME" in str(caught.value.hint)
    assert [*NEEDS[1:], "REDIS_URL", *NEEDS[1:]] == asked or [NEEDS[1]] * 2 == asked, "one failure is enough"


def unknown() -> tuple[str, ...]:
    """Fail as a list does that cannot be read."""
    raise ConfigError("the list of what is in the keyring", hint="remove it")


def test_a_list_that_cannot_be_read_stops_who_needs_it() -> None:
    """And nobody else."""
    with pytest.raises(ConfigError, match="the list of what"):
        settings.load([dot_env(**SET)], needs=NEEDS, lookup=Secret, stored=unknown)
    for sources, needs in (
        ([environment(**SET)], NEEDS),
        ([environment(FLYSYNC_NO_KEYRING="1"), dot_env(**SET)], NEEDS),
    ):
        assert 3 == len(settings.load(sources, needs=needs, lookup=Secret, stored=unknown).secrets)


@pytest.mark.parametrize("needs", [NEEDS, NEEDS[:1]])
def test_who_keeps_everything_elsewhere_waits_for_no_keyring(needs: tuple[str, ...]) -> None:
    """All in the environment and stored as well; all in `.env` and nothing stored; stored and to be left alone."""

    def lookup(name: str) -> Secret:
        raise AssertionError(name)

    left = environment(FLYSYNC_NO_KEYRING="1")
    for sources, stored in (([environment(**SET)], NEEDS), ([dot_env(**SET)], ()), ([left, dot_env(**SET)], NEEDS)):
        made = settings.load(sources, needs=needs, lookup=lookup, stored=partial(tuple, stored))
        assert made.database_url == Secret(SET["DATABASE_URL"])


def test_base_urls_are_handed_on_by_name() -> None:
    """What flyctl gets are the addresses that are set, without a slash at the end, and no others."""
    made = settings.load([environment(FLY_API_BASE_URL="http://127.0.0.1:8080/")])

    assert {"FLY_API_BASE_URL": "http://127.0.0.1:8080"} == made.flyctl_base_urls


@pytest.mark.parametrize(
    ("file", "pattern"), [(".env.example", r"^(?:# )?([A-Z0-9_]+)="), ("docs/settings.md", r"^\| `([A-Z0-9_]+)`")]
)
def test_every_setting_is_documented(file: str, pattern: str) -> None:
    """`.env.example`, docs/settings.md and the code name the same variables."""
    named = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(VARIABLES) == sorted(named)


def test_the_flag_says_where_flyctl_runs_before_the_environment() -> None:
    """And on this machine no key of Daytona's is needed."""
    environ = {**SET, "DAYTONA_API_KEY": "", "FLYSYNC_NO_KEYRING": "1"}
    local = load_settings(NEEDS, environ=environ | {"FLYSYNC_RUNNER": "daytona"}, runner="local")
    with pytest.raises(ConfigError, match="DAYTONA_API_KEY is not set"):
        load_settings(NEEDS, environ=environ | {"FLYSYNC_RUNNER": "local"}, runner="daytona")

    assert ("local", None) == (local.runner, local.daytona_api_key)


def test_a_runner_that_there_is_not_is_the_one_problem() -> None:
    """Nobody knows whether a key of Daytona's would be needed."""
    with pytest.raises(ConfigError) as caught:
        load_settings(NEEDS, environ={**SET, "DAYTONA_API_KEY": "", "FLYSYNC_NO_KEYRING": "1"}, runner="docker")

    assert 'FLYSYNC_RUNNER (--runner) is not "daytona" or "local"' == caught.value.message


def test_a_keyring_is_not_asked_for_what_this_machine_does_not_need() -> None:
    """Somebody may have to unlock it, and be asleep."""
    environ = {name: text for name, text in SET.items() if name != "DAYTONA_API_KEY"}

    made = settings.load([environment(FLYSYNC_RUNNER="local", **environ)], needs=NEEDS, lookup=pytest.fail)

    assert "local" == made.runner


def test_what_is_about_daytona_on_this_machine() -> None:
    """A snapshot has no effect, and is told; a limit that nobody keeps is refused, and so is a sandbox by its id."""
    made = settings.load([environment(FLYSYNC_RUNNER="local", FLYSYNC_SNAPSHOT="mine", FLYSYNC_EGRESS="open")])
    with pytest.raises(ConfigError) as refused:
        settings.load([environment(FLYSYNC_RUNNER="local", FLYSYNC_EGRESS="fly")])
    with pytest.raises(UsageError):
        made.complete(SyncOptions(sandbox="box"))

    assert ["setting_ignored"] == [note.code for note in made.notes]
    assert "FLYSYNC_EGRESS" == refused.value.setting


@pytest.mark.parametrize(
    ("elsewhere", "needs", "told"),
    [
        (("FLY_API_TOKEN",), NEEDS, "FLY_API_TOKEN (environment)"),
        (("DATABASE_URL",), NEEDS, "DATABASE_URL (environment)"),
        (("FLY_API_TOKEN", "DATABASE_URL"), NEEDS, "FLY_API_TOKEN (environment)"),
        (("DATABASE_URL",), bootstrap.SANDBOXES, "DATABASE_URL (environment)"),
        (("FLY_API_TOKEN",), bootstrap.SANDBOXES, None),
        (("FLY_API_TOKEN", "DATABASE_URL"), bootstrap.SNAPSHOTS, None),
        (("FLY_API_TOKEN", "DATABASE_URL"), bootstrap.DATABASE, None),
        (("DAYTONA_API_KEY",), NEEDS, None),
        (("DAYTONA_API_KEY", "FLY_API_TOKEN", "DATABASE_URL"), NEEDS, None),
        ((), NEEDS, None),
    ],
)
@pytest.mark.parametrize("place", ["environment", "keyring"])
def test_an_account_at_daytona_that_a_stray_file_names_gets_nothing_of_ours(
    elsewhere: tuple[str, ...], needs: tuple[str, ...], told: str | None, place: str
) -> None:
    """Whatever it would get is of that file, too; a command that sends it nothing does not care."""
    there = environment(**{name: SET[name] for name in elsewhere if place == "environment"})
    stray = dot_env(**{name: text for name, text in SET.items() if name not in elsewhere})

    def lookup(name: str) -> Secret | None:
        return Secret(SET[name]) if name in elsewhere else None

    if told is None:
        assert settings.load([there, stray], needs=needs, lookup=lookup).notes == ()
        return
    with pytest.raises(ConfigError) as caught:
        settings.load([there, stray], needs=needs, lookup=lookup)
    _, made = settings.survey([there, stray], lookup=lookup)

    assert "DAYTONA_API_KEY (.env:3) may be a stranger's" in caught.value.message
    assert told.replace("environment", place) in caught.value.message
    assert "--env-file .env" in str(caught.value.hint)
    assert (made.daytona_api_key, caught.value.setting) == (None, "DAYTONA_API_KEY"), "doctor has no key to use"


@pytest.mark.parametrize("name", ["DAYTONA_API_URL", "FLY_API_BASE_URL", "FLY_FLAPS_BASE_URL", "FLY_UIEX_BASE_URL"])
@pytest.mark.parametrize(
    ("url", "is_plain"),
    [
        ("https://daytona.test", False),
        ("http://daytona.test", True),
        ("HTTP://daytona.test:3000/api", True),
        ("http://127.0.0.1:8080/x", False),
        ("http://127.1.2.3", False),
        ("http://localhost/", False),
        ("http://[::1]:80", False),
        ("http://localhost.evil.test", True),
        ("http://127.0.0.1.evil.test", True),
        ("http://127.0.0.1@evil.test", True),
        ("http://localhost:1@evil.test", True),
    ],
)
def test_an_address_that_others_can_listen_at(name: str, url: str, *, is_plain: bool) -> None:
    """It is taken, with a warning: a private network may encrypt by itself. What is run may not come from there."""
    if name == "DAYTONA_API_URL" or fits(name, url):  # a sandbox's script takes no [
        made = settings.load([environment(**{name: url})])
        assert [("not_encrypted", (name,))] * is_plain == [(note.code, note.names) for note in made.notes]
    if fits("FLY_API_BASE_URL", url):
        assert is_plain != fits("FLYSYNC_FLYCTL_INSTALL_URL", url)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, text) for name in SECRETS for text in ("'x'", '"x"', ' "x', "${T}", "a${T}b", "$T", "<token>")),
        ("DATABASE_URL", '"postgresql://h/d"'),
        ("DATABASE_URL", "postgresql://u:${PW}@h/d"),
        ("DATABASE_URL", "postgresql://u:$DB_PASSWORD@h/d"),
        ("DATABASE_URL", "postgresql://<user>:<password>@h/d"),
        ("DATABASE_URL", "host=h password=$PW"),
        ("DATABASE_URL", "host=h password=<password>"),
        ("REDIS_URL", "'redis://h:6379'"),
        ("REDIS_URL", "redis://:${REDIS_PASSWORD}@h:6379"),
        ("REDIS_URL", "redis://:$REDIS_PASSWORD@h:6379"),
        ("REDIS_URL", "redis://<host>:6379"),
        ("DAYTONA_API_URL", '"https://h/api"'),
        ("DAYTONA_API_URL", "https://${HOST}/api"),
        ("DAYTONA_API_URL", "https://$HOST/api"),
        ("FLY_API_BASE_URL", "https://<host>"),
        ("FLYSYNC_FLYCTL_INSTALL_URL", "'https://h/x'"),
        *(
            (name, text)
            for name in (
                "DAYTONA_TARGET",
                "FLYSYNC_SNAPSHOT",
                "FLYSYNC_DB_SCHEMA",
                "FLYSYNC_STATE_SCHEMA",
                "FLYSYNC_QUEUE",
                "FLYSYNC_QUEUE_PREFIX",
            )
            for text in ('"x"', "'x'", "${X}", "$X", "<x>")
        ),
    ],
)
def test_what_is_in_quotes_or_not_filled_in_is_refused(name: str, text: str) -> None:
    """Wherever it comes from, before anything is opened; the value is not told."""
    told = problems(environment(**{name: text}))

    assert re.search(f"{name} \\(environment\\) (is in quotes|contains (a variable|a quote|white))", told)
    with pytest.raises(ConfigError):
        settings.read_secret(name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DATABASE_URL", "postgresql://u:p$A@h/d?options=-csearch_path%3D$user"),
        ("DATABASE_URL", "postgresql://u:%24PW@h/d"),
        ("DATABASE_URL", "host=h password=a<b>c options='-c search_path=$user,public'"),
        ("REDIS_URL", "redis://:a$b@h:6379"),
        ("DAYTONA_API_URL", "https://h/a$b"),
    ],
)
def test_a_sign_that_may_be_meant_is_taken(name: str, text: str) -> None:
    """Only what cannot be meant is refused; a whole password `$PW` is written `%24PW`."""
    assert isinstance(settings.load([environment(**{name: text})]), Settings)


def test_the_example_sets_nothing() -> None:
    """A copy of `.env.example` that was not filled in changes no setting."""
    from flysync.settings import dotenv

    source = dotenv.read(ROOT / ".env.example", is_dot_env=True)

    assert ("", set()) == (source.unread, {value for value in source.values.values() if value})
    assert set(SECRETS) == set(source.values), "the others may not be in .env"


def told(report: ConfigReport) -> dict[str, tuple[str, str | None]]:
    """Give source and what is shown of each setting."""
    return {line.name: (line.source, line.shown) for line in report.lines}


def test_a_survey_tells_all_settings_and_where_they_come_from() -> None:
    """In the order of the table; of a secret its size alone."""
    default = Source(label="default", values={"FLYSYNC_ACTOR": "ann"})
    report, _ = settings.survey(
        [environment(FLY_API_TOKEN=CANARY, FLYSYNC_ALLOW_EMPTY="on"), dot_env(REDIS_URL="redis://h/0"), default],
        lookup=lambda name: Secret("dtn_key") if name == "DAYTONA_API_KEY" else None,
    )
    found = told(report)

    assert list(VARIABLES) == list(found)
    assert ("environment", f"set ({len(CANARY)} bytes)") == found["FLY_API_TOKEN"]
    assert ("keyring", "set (7 bytes)") == found["DAYTONA_API_KEY"]
    assert ("not set", None) == found["DATABASE_URL"] == found["DAYTONA_TARGET"]
    assert (".env:3", "set (11 bytes)") == found["REDIS_URL"]
    assert (("environment", "yes"), ("default", "no")) == (found["FLYSYNC_ALLOW_EMPTY"], found["FLYSYNC_NO_KEYRING"])
    assert (("default", "ann"), ("default", "90")) == (found["FLYSYNC_ACTOR"], found["FLYSYNC_KEEP_RUNS_DAYS"])
    assert (None, ()) == (report.error, report.warnings)


def test_a_survey_is_there_whatever_is_wrong() -> None:
    """Every problem in the words of the usual message; what is of no use is not shown."""
    bad = {"FLY_API_TOKEN": f"{CANARY} x", "FLYSYNC_KEEP_RUNS_DAYS": CANARY, "FLYSYNC_NOPE": CANARY}
    unread = Source(label="my.env", values={}, unread="Is a directory")
    line = dot_env(REDIS_URL=None)
    report, _ = settings.survey([environment(**bad, FLYSYNC_SNAPSHOT="s"), unread, line])
    found = told(report)

    assert report.error is not None
    assert problems(environment(**bad)).splitlines()[1:] == report.error.message.splitlines()[1:-2]
    assert "cannot read my.env: Is a directory" in report.problems
    assert "REDIS_URL (.env:3) is not NAME=VALUE" in report.problems
    assert ("environment", None) == found["FLY_API_TOKEN"] == found["FLYSYNC_KEEP_RUNS_DAYS"]
    assert {"FLY_API_TOKEN", "FLYSYNC_KEEP_RUNS_DAYS", "REDIS_URL"} == {
        line.name for line in report.lines if not line.is_usable
    }
    assert ("environment", "s") == found["FLYSYNC_SNAPSHOT"]
    assert CANARY not in repr(report)


@pytest.mark.parametrize("url", [f"https://u:{CANARY}@h/x", f"https://u:1/{CANARY}@h", f"https://h/x?token={CANARY}"])
def test_an_address_that_may_hold_a_password_is_not_shown(url: str) -> None:
    """Though it is no secret by its name."""
    report, _ = settings.survey([environment(DAYTONA_API_URL=url, FLYSYNC_ACTOR="ann@x.org")])

    assert (None, f"set ({len(url)} bytes)") == (report.error, report.line("DAYTONA_API_URL").shown)
    assert "ann@x.org" == report.line("FLYSYNC_ACTOR").shown


def test_a_survey_asks_the_keyring_for_all_that_is_missing() -> None:
    """For secrets alone, until it fails once; not at all where it is to be left alone."""
    asked: list[str] = []

    def lookup(name: str) -> Secret | None:
        asked.append(name)
        if name == "REDIS_URL":
            raise RuntimeError(CANARY)
        return None

    report, _ = settings.survey([environment(FLY_API_TOKEN="t")], lookup=lookup)
    settings.survey([environment(FLYSYNC_NO_KEYRING="1")], lookup=lookup)

    assert ["DAYTONA_API_KEY", "DATABASE_URL", "REDIS_URL"] == asked
    assert (None, ["keyring_failed"]) == (report.error, [note.code for note in report.warnings])


@pytest.mark.parametrize("path", ["a" * 300, "a\0b", "nowhere", "."])
def test_a_file_that_cannot_be_is_a_problem(path: str) -> None:
    """Whatever the system says to such a path; the settings that it may hold are unknown."""
    source = dotenv.read(Path(path))

    assert source.unread
    assert settings.survey([source])[0].has_unread
    assert f"cannot read {path}: {source.unread}" == problems(source)


def test_a_working_directory_that_cannot_be_looked_into_has_no_settings(tmp_path: Path) -> None:
    """As one that may not be searched: a link that leads to no possible name is refused by the system as well."""
    (tmp_path / ".env").symlink_to("a" * 300)
    made = load_settings((), environ=SET, directory=tmp_path)

    assert (Secret(SET["DATABASE_URL"]), ()) == (made.database_url, made.notes)


def make_directory(path: Path) -> None:
    """Make what a virtual environment may be."""
    path.mkdir()


def make_open(path: Path) -> None:
    """Make a file that everybody may write."""
    path.write_text("DATABASE_URL=host=evil\n")
    path.chmod(0o602)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (make_directory, "Is a directory"),
        (os.mkfifo, "it did not end within"),
        (make_open, "everybody may write it; chmod o-w .env"),
        (lambda path: path.write_text("A=1\n" * 250_001), "it is not a text of up to 1,000,000 characters in UTF-8"),
        (lambda path: path.write_text("DATABASE_URL=host=h\n", encoding="utf-16"), "it is not a text of up to"),
        (lambda path: path.symlink_to("/dev/zero"), "it is not a text of up to|everybody may write it"),
    ],
)
def test_a_stray_file_of_no_use_is_ignored(
    make: Callable[[Path], object], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is, nobody has asked for it: a warning, told again where something is missing."""
    monkeypatch.setattr(dotenv, "_READ_S", 0.2)
    make(tmp_path / ".env")
    made = load_settings((), environ={}, directory=tmp_path)
    (note,) = made.notes
    with pytest.raises(ConfigError) as caught:
        load_settings(NEEDS, environ={"FLYSYNC_NO_KEYRING": "1"}, directory=tmp_path)
    named = dotenv.read(tmp_path / ".env")

    assert ("setting_ignored", None) == (note.code, made.database_url)
    assert re.match(rf"\.env is ignored \(({why})", note.message)
    assert f"DATABASE_URL is not set, and {note.message}" in caught.value.message
    assert bool(named.unread) == (make is not make_open), "a file that is named may be writable for all"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_whose_file_it_is_does_not_matter(tmp_path: Path) -> None:
    """Containers mount files of other users."""
    (tmp_path / ".env").write_text("DATABASE_URL=host=h\n")
    os.chown(tmp_path / ".env", 12_345, 12_345)

    assert Secret("host=h") == load_settings(["DATABASE_URL"], environ={}, directory=tmp_path).database_url


@pytest.mark.parametrize("is_dot_env", [True, False])
def test_a_pipe_is_read_to_its_end(tmp_path: Path, *, is_dot_env: bool) -> None:
    """As `<(...)` is, and as managers of passwords make `.env`: whoever writes comes after the reader."""
    os.mkfifo(pipe := tmp_path / ".env")
    writer = threading.Thread(target=pipe.write_text, args=("A=1\nDATABASE_URL=host=h\n",))
    writer.start()
    source = dotenv.read(pipe, is_dot_env=is_dot_env)
    writer.join(10)

    assert ("", "host=h", 2) == (source.unread, source.values["DATABASE_URL"], source.lines["DATABASE_URL"])


FOREIGN = """\
export PATH
alias ll='ls -l'
if [ -f x ]; then
[section]
  yaml: [1, 2]
=nothing
FLY_API_TOKENS no name of ours
caf\udce9=caf\udce9
MORE="one
FLY_API_TOKEN=not ours
three"
"""


@pytest.mark.parametrize("is_dot_env", [True, False])
def test_the_lines_of_others_are_none_of_our_business(tmp_path: Path, *, is_dot_env: bool) -> None:
    """Whatever the program that they are for makes of them; ours are found in between."""
    text = f"{FOREIGN}\nexport FLY_API_TOKEN='t' # ours\nexport FLY_API_TOKEN\n{FOREIGN}KEY='never closed\n"
    (tmp_path / ".env").write_text(text, errors="surrogateescape")
    source = dotenv.read(tmp_path / ".env", is_dot_env=is_dot_env)
    report, made = settings.survey([source])

    assert (None, (), Secret("t")) == (report.error, made.notes, made.fly_api_token)
    assert f".env:{FOREIGN.count(chr(10)) + 2}" == report.line("FLY_API_TOKEN").source.rpartition("/")[2]


@pytest.mark.parametrize(
    "line", ["{} x", "{}", "export {}", "  {}: x", "{}='x", '{}="x"y', "{} := x", "\n\n{} x", "{}\tx", "'{}'"]
)
@pytest.mark.parametrize("name", SECRETS)
def test_a_malformed_line_of_ours_is_a_problem(tmp_path: Path, name: str, line: str) -> None:
    """Unless nobody would look there; line and name are told, and nothing of the rest."""
    (tmp_path / ".env").write_text(f"A=1\n{line.format(name)}{CANARY if ' x' in line else ''}\nB=2\n")
    source = dotenv.read(tmp_path / ".env", is_dot_env=True)
    at = f".env:{2 + line.count(chr(10))}"
    good = {"DATABASE_URL": "host=h", "REDIS_URL": "redis://h"}.get(name, "t")

    assert f"{name} ({at}) is not NAME=VALUE" == problems(source, needs=(name,))
    assert () == settings.load([environment(**{name: good}), source]).notes


@pytest.mark.parametrize("path", [".env", "./.env", "sub/../.env"])
def test_a_file_that_is_named_may_say_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Also where it is `.env`: it is read once, and nothing of it is ignored."""
    (tmp_path / "sub").mkdir()
    (tmp_path / ".env").write_text("".join(f"{name}={text}\n" for name, text in SET.items()) + "DAYTONA_TARGET=eu\n")
    (tmp_path / ".env").chmod(0o666)
    monkeypatch.chdir(tmp_path)
    elsewhere = {"FLY_API_TOKEN": "ours"}
    made = load_settings(NEEDS, env_file=Path(path), environ=elsewhere)

    assert ("eu", (), Secret("ours")) == (made.daytona_target, made.notes, made.fly_api_token)
    (tmp_path / ".env").write_text("FLYSYNC_NOPE=1\n")
    with pytest.raises(ConfigError, match="FLYSYNC_NOPE"):
        load_settings((), env_file=Path(path), environ={})


APPS, RESERVED, DECRYPT = "FLYSYNC_APPS", "FLYSYNC_RESERVED_NAMES", "FLYSYNC_DECRYPT"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (APPS, "*", ("*",)),
        (APPS, "user-*", ("user-*",)),
        (APPS, " user-*,demo-?,\tacme-1.eu\n*_x ,", ("user-*", "demo-?", "acme-1.eu", "*_x")),
        (APPS, "*-", ("*-",)),
        (RESERVED, "PLATFORM_*, NODE_OPTIONS LD_*", ("PLATFORM_*", "NODE_OPTIONS", "LD_*")),
        (RESERVED, "*1,?2,**,_?", ("*1", "?2", "**", "_?")),
    ],
)
def test_what_may_be_touched(name: str, text: str, expected: tuple[str, ...]) -> None:
    """Patterns with commas or white space between them; `config show` tells them, and what holds without any."""
    report, made = settings.survey([environment(**{name: text})])
    default = settings.load([])

    assert (expected, None) == (made.apps if name == APPS else made.reserved_names, report.error)
    assert ", ".join(expected) == report.line(name).shown
    assert (("*",), ()) == (default.apps, default.reserved_names)
    assert ("default", "*") == told(settings.survey([])[0])[APPS]
    assert ("default", "none") == told(settings.survey([])[0])[RESERVED]


@pytest.mark.parametrize("name", [DECRYPT, COMMAND])
def test_a_command_that_cannot_be_run(name: str) -> None:
    """It is split as a shell would, and its program has to be there, before anything is opened."""
    command = "'cat' 'a b' \"c\" d\\ e"

    assert command == getattr(settings.load([environment(**{name: command})]), VARIABLES[name][0])
    told = problems(environment(**{name: "CREDENTIALS_KEY=hunter2 node x"}))
    assert f"{name} (environment) begins with a variable" in told
    assert "hunter2" not in told
    for text in ("'", "a\nb", " ", "nothing-like-it x", "/dev/null"):
        assert f"{name} (environment) " in problems(environment(**{name: text}))


@pytest.mark.parametrize("name", [APPS, RESERVED])
@pytest.mark.parametrize("text", ["", "\n", " ", ",", " , ,\t"])
def test_an_empty_limit_is_an_error(name: str, text: str) -> None:
    """Whoever writes it means something: it is no limit that is not set, and no weaker source is asked instead."""
    assert f"{name} (environment) is set but empty" in problems(environment(**{name: text}), dot_env(**{name: "a*"}))
    assert Settings() != settings.load([environment(**{name: "A*"}), dot_env(**{name: text})])


@pytest.mark.parametrize(
    "name", [APPS, RESERVED, "FLYSYNC_FLYCTL_SHA256", "FLYSYNC_EGRESS", "FLYSYNC_NARROW_TOKEN", DECRYPT, COMMAND]
)
def test_a_limit_in_a_stray_file_is_an_error(name: str) -> None:
    """Ignored like the other settings there, it would limit nothing; where it is set elsewhere that one holds."""
    text = next(one for one in ("f" * 64, "fly", "app", "a*", "cat") if fits(name, one))

    assert f"{name} (.env:3) would have no effect" in problems(dot_env(**{name: "x"}))
    assert () == settings.load([environment(**{name: text}), dot_env(**{name: "x"})]).notes


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        (APPS, "-a*", 1),
        (APPS, "a,b;c", 2),
        (APPS, "a [ab]", 2),
        (APPS, '"user-*"', 1),
        (APPS, "a/*", 1),
        (APPS, "ä*", 1),
        (APPS, "a" * 101, 1),
        (APPS, ".?", 1),
        (RESERVED, "A_*,B-*", 2),
        (RESERVED, "1*", 1),
        (RESERVED, "A.B", 1),
        (RESERVED, "[!A]", 1),
    ],
)
def test_a_pattern_that_matches_nothing(name: str, text: str, place: int) -> None:
    """It is told by its place among them."""
    assert f"{name} (environment) can match nothing with its pattern {place}: " in problems(environment(**{name: text}))
