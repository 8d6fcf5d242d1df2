from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flysync import settings
from flysync.errors import ConfigError
from flysync.secret import Secret
from flysync.settings import VARIABLES, Settings, Source

if TYPE_CHECKING:
    from flysync.model.config import ConfigReport

ROOT = Path(__file__).parents[2]
CANARY = "c4nary-v4lue"
NEEDS = ("DATABASE_URL", "FLY_API_TOKEN", "DAYTONA_API_KEY")
SET = {"DATABASE_URL": "postgresql://u:p@h/d", "FLY_API_TOKEN": "fo1_token", "DAYTONA_API_KEY": "dtn_key"}


def environment(**values: str) -> Source:
    """Give the environment as a source."""
    return Source(label="environment", values=values)


def dot_env(**values: str) -> Source:
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
        [environment(FLYSYNC_SNAPSHOT="a"), dot_env(FLYSYNC_SNAPSHOT="b", FLYSYNC_ACTOR="c")]
    )

    assert ("a", "c", 90) == (made.snapshot, made.actor, made.keep_runs_days)
    assert "environment" == report.line("FLYSYNC_SNAPSHOT").source
    assert ".env:3" == report.line("FLYSYNC_ACTOR").source
    assert "default" == report.line("FLYSYNC_KEEP_RUNS_DAYS").source


def test_an_empty_text_counts_as_not_set() -> None:
    """An empty variable hides neither a weaker source nor the default."""
    made = settings.load([environment(FLYSYNC_SNAPSHOT="", FLYSYNC_VALUE_SOURCE="\n"), dot_env(FLYSYNC_SNAPSHOT="b")])

    assert ("b", "database") == (made.snapshot, made.value_source)


def test_all_problems_come_at_once() -> None:
    """One message names every setting that is missing, unknown or malformed."""
    told = problems(environment(FLYSYNC_SNAPSHOTT="x", FLYSYNC_KEEP_RUNS_DAYS="many"), needs=NEEDS)

    assert "FLYSYNC_SNAPSHOTT (environment) is not a setting; did you mean FLYSYNC_SNAPSHOT?" in told
    assert "FLYSYNC_KEEP_RUNS_DAYS (environment) is not a number of days" in told
    assert all(f"{name} is not set" in told for name in NEEDS)


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


@pytest.mark.parametrize("token", ["fo1_a\n", "FlyV1 fm2_a,fm2_b", "FlyV1 fm2_a\r\n"])
def test_a_token_as_fly_gives_it_is_taken(token: str) -> None:
    """The one legal space stays, a final newline goes."""
    made = settings.load([environment(FLY_API_TOKEN=token)])

    assert Secret(token.rstrip()) == made.fly_api_token


@pytest.mark.parametrize("name", ["FLYSYNC_FLYCTL_INSTALL_URL", "FLY_API_BASE_URL"])
@pytest.mark.parametrize("end", ["?a=1", "&b", "$(id)", "'", ";x"])
def test_an_address_that_a_shell_would_act_on_is_refused(name: str, end: str) -> None:
    """It is a part of the script in the sandbox; the placeholders of a version are fine."""
    assert f"{name} (environment) contains a character" in problems(environment(**{name: f"https://fly.test/x{end}"}))
    archive = "https://fly.test/{version}_{arch}.tar.gz"
    assert archive == settings.load([environment(FLYSYNC_FLYCTL_INSTALL_URL=archive)]).flyctl_install_url


def test_secrets_are_hidden_from_the_first_line_on() -> None:
    """No secret is in the text form of settings or sources."""
    source = environment(**SET | {"FLY_API_TOKEN": CANARY})
    made = settings.load([source])

    assert CANARY not in repr(made) + repr(source)
    assert 3 == len(made.secrets)


@pytest.mark.parametrize("name", [name for name, (_, variable) in VARIABLES.items() if variable.guarded])
def test_a_stray_file_redirects_nothing(name: str) -> None:
    """What says where credentials go is ignored in `.env`, with a warning, and taken from everywhere else."""
    value = "http://elsewhere.test"
    stray = settings.load([dot_env(**{name: value})])
    meant = settings.load([Source(label="my.env", values={name: value})])
    attribute, _ = VARIABLES[name]

    assert (getattr(Settings(), attribute), [(name,)]) == (getattr(stray, attribute), [n.names for n in stray.notes])
    assert (value, ()) == (getattr(meant, attribute), meant.notes)


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


def test_the_example_sets_nothing() -> None:
    """A copy of `.env.example` that was not filled in changes no setting."""
    from flysync.settings import dotenv

    source = dotenv.read(ROOT / ".env.example", is_dot_env=True)

    assert ((), set()) == (source.problems, {value for value in source.values.values() if value})


def told(report: ConfigReport) -> dict[str, tuple[str, str | None]]:
    """Give source and what is shown of each setting."""
    return {line.name: (line.source, line.shown) for line in report.lines}


def test_a_survey_tells_all_settings_and_where_they_come_from() -> None:
    """In the order of the table; of a secret its size alone."""
    report, _ = settings.survey(
        [environment(FLY_API_TOKEN=CANARY), dot_env(FLYSYNC_SNAPSHOT="s", FLYSYNC_ALLOW_EMPTY="on")],
        lookup=lambda name: Secret("dtn_key") if name == "DAYTONA_API_KEY" else None,
        user="ann",
    )
    found = told(report)

    assert list(VARIABLES) == list(found)
    assert ("environment", f"set ({len(CANARY)} bytes)") == found["FLY_API_TOKEN"]
    assert ("keyring", "set (7 bytes)") == found["DAYTONA_API_KEY"]
    assert ("not set", None) == found["DATABASE_URL"] == found["DAYTONA_TARGET"]
    assert (".env:3", "s") == found["FLYSYNC_SNAPSHOT"]
    assert ((".env:3", "yes"), ("default", "no")) == (found["FLYSYNC_ALLOW_EMPTY"], found["FLYSYNC_NO_KEYRING"])
    assert (("default", "ann"), ("default", "90")) == (found["FLYSYNC_ACTOR"], found["FLYSYNC_KEEP_RUNS_DAYS"])
    assert (None, ()) == (report.error, report.warnings)


def test_a_survey_is_there_whatever_is_wrong() -> None:
    """Every problem in the words of the usual message; what is of no use is not shown."""
    bad = {"FLY_API_TOKEN": f"{CANARY} x", "FLYSYNC_KEEP_RUNS_DAYS": CANARY, "FLYSYNC_NOPE": CANARY}
    unread = Source(label=".env", values={}, problems=(".env:2 is not NAME=VALUE",))
    report, _ = settings.survey([environment(**bad, FLYSYNC_SNAPSHOT="s"), unread])
    found = told(report)

    assert report.error is not None
    assert f"{problems(environment(**bad))}".splitlines()[1:] == report.error.message.splitlines()[2:]
    assert ".env:2 is not NAME=VALUE" in report.error.message
    assert ("environment", None) == found["FLY_API_TOKEN"] == found["FLYSYNC_KEEP_RUNS_DAYS"]
    assert {"FLY_API_TOKEN", "FLYSYNC_KEEP_RUNS_DAYS"} == {line.name for line in report.lines if not line.is_usable}
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
