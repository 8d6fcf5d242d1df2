"""What a doctor makes of what it is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from doubles import InMemoryJobs, InMemoryTokens
from memory import PROJECT, World, dead_run

from flysync import errors, settings
from flysync.handlers.database import check_database, init_database
from flysync.handlers.doctor.checks import DoctorOptions, DoctorReport, doctor
from flysync.handlers.doctor.next_one import first_sync
from flysync.model.core import AppName, ProjectId
from flysync.model.fly import Flyctl, Reach, Token, TokenKind
from flysync.model.reports import INIT, Finding
from flysync.model.summary import Some, Summary
from flysync.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable

NEEDS = ("DATABASE_URL", "FLY_API_TOKEN", "DAYTONA_API_KEY")
GIVEN = {
    "DATABASE_URL": "postgresql://h/d",
    "FLY_API_TOKEN": "t",
    "DAYTONA_API_KEY": "k",
    "REDIS_URL": "redis://h",
    "FLYSYNC_FLYCTL_SHA256": "5" * 64,
    "FLYSYNC_EGRESS": "fly",
}
FLY = "Fly is out of reach"
DAY_S = 24 * 3600.0


async def examined(world: World, environ: dict[str, str] | None = None, unread: str = "", **asked: Any) -> DoctorReport:
    """Look at everything; no sandbox is left, and no lock is held."""
    found, _ = settings.survey([Source(label="environment", values=environ or GIVEN, unread=unread)])
    options = DoctorOptions(settings=found, **{"needs": NEEDS, **asked})
    report = await doctor(options, services=world.services, listener=world)
    assert ({}, {}) == (world.sandboxes.live, world.lock.holders)
    return report


def said(report: DoctorReport, subject: str) -> list[tuple[str, str]]:
    """Give verdict and message of each finding about *subject*."""
    return [(one.verdict, one.message) for one in report.findings if one.subject == subject]


def failed(report: DoctorReport) -> list[str]:
    """Give the subjects that failed."""
    return [one.subject for one in report.findings if one.verdict == "failed"]


async def test_all_is_well() -> None:
    """Each thing once and in order, and a command that goes on."""
    world = World()
    world.put(A="1")
    report = await examined(world, queue=InMemoryJobs)

    assert (0, None, {"ok"}) == (report.exit_code, report.error, {one.verdict for one in report.findings})
    assert [
        *(*NEEDS, "DAYTONA_API_URL", "database", "server", "clock", "daytona", "leftovers"),
        *("sandbox", "network", "egress", "flyctl", "token", "app", "narrowed token", "redis"),
    ] == [one.subject for one in report.findings]
    assert [("ok", "the token shows acme")] == said(report, "app")
    assert ["flysync sync-project --project p"] == [step.command for step in report.next]


async def test_the_way_to_the_first_sync_is_told_step_by_step() -> None:
    """One thing at a time: each setting, a credential, a deployment, the sync of a project that is there."""
    world = World(app=None)
    told = [await examined(world, {"REDIS_URL": ""} | {its: GIVEN[its] for its in NEEDS[:some]}) for some in range(3)]
    told.append(await examined(world))
    world.put(A="1")
    told.append(await examined(world))
    world.records.deploy("p", "acme")
    told.append(await examined(world))
    await world.sync("A")
    told.append(await examined(world))

    steps = [step.command.partition("=")[0] for report in told for step in report.next]
    credential, rest = steps[3], steps[4:]

    assert [f"export {name}" for name in NEEDS] == steps[:3]
    assert credential.endswith("credential_value) VALUES ('proj123', 'AWS_ACCESS_KEY_ID', '…')")
    assert [
        "INSERT INTO project_deployments (project_id, fly_app_name) VALUES ('p', 'APP')",
        "flysync sync-project --project p",
        "flysync status",
    ] == rest


def test_after_a_failure_the_first_thing_is_to_see_why() -> None:
    """Not to try the one again that was behind longest; and an id is quoted as SQL wants it."""
    behind = Summary(projects=2, credentials=2, behind=2, failed=1, oldest=ProjectId("p"))
    waiting = Summary(projects=1, credentials=1, no_app=Some(count=1, first=("it's",)))

    assert "flysync status --behind" == first_sync(behind).command
    assert first_sync(waiting).command.endswith("VALUES ('it''s', 'APP')")


async def test_offline_nothing_of_fly_is_needed() -> None:
    """No sandbox; a token that is missing is a warning; the command to go on with looks at the rest."""
    world = World()
    environ = {name: value for name, value in GIVEN.items() if name != "FLY_API_TOKEN"}
    report = await examined(world, environ, project=PROJECT, offline=True)

    assert (0, [], []) == (report.exit_code, world.sandboxes.created, world.fly.calls)
    assert [("warning", "not set: a sync needs it")] == said(report, "FLY_API_TOKEN")
    assert [("skipped", "not checked: --offline")] == said(report, "sandbox")
    assert "flysync doctor --project p" == report.next[-1].command


async def test_offline_the_project_has_to_be_known() -> None:
    """The database knows that much; one that is not deployed yet is a warning."""
    world = World()
    world.records.add_project("new", None, A="1")
    unknown = await examined(world, project=ProjectId("nobody"), offline=True)
    new = await examined(world, project=ProjectId("new"), offline=True)

    assert (1, "project_not_found") == (unknown.exit_code, unknown.error and unknown.error.code)
    assert (0, [("warning", "project new is not deployed yet")]) == (new.exit_code, said(new, "app"))


async def test_without_a_token_the_sandbox_is_looked_at_even_so() -> None:
    """And nothing is asked of Fly."""
    world = World()
    report = await examined(world, GIVEN | {"FLY_API_TOKEN": ""})

    assert ["FLY_API_TOKEN"] == failed(report)
    assert [("skipped", "not checked: FLY_API_TOKEN is needed")] == said(report, "token")
    assert ["reach", "prepare"] == world.fly.calls


@pytest.mark.parametrize(
    ("environ", "unread", "skipped", "is_made"),
    [
        ({"DATABASE_URL": "nonsense"}, "", {"database", "leftovers", "app"}, True),
        ({"DAYTONA_API_URL": "nonsense"}, "", {"daytona", "leftovers", "sandbox"}, False),
        ({"FLYSYNC_EGRESS": "nonsense"}, "", {"daytona", "leftovers", "sandbox"}, False),
        ({"DAYTONA_API_KEY": ""}, "", {"daytona", "leftovers", "sandbox"}, False),
        ({"FLY_FLAPS_BASE_URL": "nonsense"}, "", {"sandbox"}, False),
        ({"FLY_API_TOKEN": "two words"}, "", {"token"}, True),
        ({"REDIS_URL": "nonsense"}, "", {"redis"}, True),
        ({"FLYSYNC_KEEP_RUNS_DAYS": "many"}, "", set(), True),
        ({"FLYSYNC_SNAPSHOTT": "s"}, "", set(), True),
        ({}, "it is a directory", {"database", "daytona", "leftovers", "sandbox", "redis"}, False),
    ],
)
async def test_a_broken_setting_is_never_taken_for_one_that_is_not_set(
    environ: dict[str, str], unread: str, skipped: set[str], is_made: bool
) -> None:
    """A credential would go to the place that is the default; what does not hang on it is looked at."""
    world = World()
    report = await examined(world, GIVEN | environ, unread, queue=InMemoryJobs)

    assert (1, errors.ConfigError) == (report.exit_code, type(report.error))
    assert skipped == {one.subject for one in report.findings if one.verdict == "skipped"}
    assert is_made == bool(world.sandboxes.created)


async def test_every_problem_has_a_line() -> None:
    """Warnings too, and no value."""
    environ = GIVEN | {"FLYSYNC_KEEP_RUNS_DAYS": "many", "FLYSYNC_NO_KEYRING": "many"}
    report = await examined(World(), environ)

    assert ["failed", "failed"] == [verdict for verdict, _ in said(report, "settings")]
    assert "2 checks failed" not in str(report.error)
    assert report.error is not None
    assert "1 check failed: settings" == report.error.message


async def test_no_database() -> None:
    """What hangs on it is left out; an app that is named is looked for."""
    world = World()
    world.admin.refuses = errors.DatabaseUnavailable("Postgres is out of reach", hint="start it")
    report = await examined(world, app=AppName("acme"))

    assert (["database"], "database_unavailable", 1) == (failed(report), getattr(report.error, "code", ""), 1)
    assert [("skipped", "not checked: the database is not ready")] == said(report, "leftovers")
    assert [("ok", "the token shows acme")] == said(report, "app")
    assert ["flysync doctor --app acme"] == [step.command for step in report.next]


async def test_tables_that_are_missing() -> None:
    """The next command makes them; a table that is wrong has no such command."""
    world = World()
    world.admin.findings.append(Finding(verdict="failed", subject="flysync_runs", message="no", hint="x", fix=INIT))
    missing = await examined(world)
    world.admin.findings[-1] = replace(world.admin.findings[-1], hint="run `flysync db init`", fix=None)
    wrong = await examined(world)

    assert ("config", ["flysync_runs"]) == (getattr(missing.error, "code", ""), failed(missing))
    assert ["flysync db init"] == [step.command for step in missing.next]
    assert ["flysync doctor"] == [step.command for step in wrong.next]


async def test_a_check_of_the_tables_fails_with_exit_code_1() -> None:
    """Where anything is missing or wrong; a warning alone is fine."""
    admin = World().admin
    admin.findings.append(Finding(verdict="warning", subject="encoding", message="LATIN1"))
    fine = await check_database(admin=admin)
    admin.findings.append(Finding(verdict="failed", subject="flysync_runs", message="no"))
    wrong = await check_database(admin=admin)

    assert (0, None, True) == (fine.exit_code, fine.error, fine.ok)
    assert (1, "config", "postgres") == (wrong.exit_code, *(getattr(wrong.error, key) for key in ("code", "service")))
    assert (tuple(admin.findings), False) == (wrong.findings, wrong.ok)


async def test_tables_are_not_made_beside_others_unasked() -> None:
    """Nothing is done, and what is there is told; with a yes, or where there is nothing, they are made."""
    admin = World().admin
    alone = await init_database(admin=admin, timeout_s=1, role="r")
    admin.others = ["public.users"]
    asked = await init_database(admin=admin, timeout_s=1, role="r")
    meant = await init_database(admin=admin, timeout_s=1, role="r", yes=True)
    printed = await init_database(admin=admin, timeout_s=1, role="r", prints=True)

    assert [("r", ()), (None, ("public.users",)), ("r", ())] == [
        (report.granted_to, report.beside) for report in (alone, asked, meant)
    ]
    assert "-- nothing for r" == printed.sql


@pytest.mark.parametrize(
    ("by_s", "words"), [(95, "s behind Postgres'"), (-95, "s ahead of Postgres'"), (20, "agrees with")]
)
async def test_the_clock_of_this_machine(by_s: float, words: str) -> None:
    """It is compared with Postgres'; half a minute is nothing."""
    world = World()
    world.admin.now = datetime.now(UTC) + timedelta(seconds=by_s)
    ((verdict, message),) = said(await examined(world), "clock")

    assert ("ok" if by_s < 30 and by_s > -30 else "warning") == verdict
    assert words in message


async def test_daytona_refuses_the_key() -> None:
    """There is no sandbox to look from."""
    world = World()
    world.sandboxes.refusals["list"] = [errors.AccessDenied("no", service="daytona", setting="DAYTONA_API_KEY")]
    report = await examined(world)

    assert (["daytona"], []) == (failed(report), world.sandboxes.created)
    assert isinstance(report.error, errors.AccessDenied)
    assert "DAYTONA_API_KEY" == report.error.setting


@pytest.mark.parametrize(
    ("setting", "subject"), [("FLYSYNC_SNAPSHOT", "snapshot"), ("FLYSYNC_EGRESS", "egress"), (None, "sandbox")]
)
async def test_a_sandbox_that_cannot_be_made(setting: str | None, subject: str) -> None:
    """It is the fault of the snapshot, or of the limit to Fly's hosts, where Daytona says so."""
    world = World()
    world.sandboxes.refusals["create"] = [errors.SandboxNotFound("there is none", setting=setting)]
    report = await examined(world, GIVEN | {"FLYSYNC_SNAPSHOT": "s"})

    assert [subject] == failed(report)
    assert [("skipped", "not checked: there is no sandbox")] == said(report, "network, flyctl and token")


async def test_a_sandbox_that_cannot_be_deleted_is_told() -> None:
    """With the command that removes it later."""
    world = World()
    world.sandboxes.refusals["remove"] = [errors.DaytonaUnavailable("no")]
    report = await doctor(
        DoctorOptions(settings=settings.survey([Source(label="e", values=GIVEN)])[0], needs=NEEDS),
        services=world.services,
        listener=world,
    )

    assert ["ok", "warning"] == [verdict for verdict, _ in said(report, "sandbox")]
    assert ["flysync sandbox prune"] == [step.command for step in report.next]


@pytest.mark.parametrize(("runner", "where"), [("daytona", ""), ("local", " --runner local")])
async def test_what_runs_have_left(runner: str, where: str) -> None:
    """A run that died, and its sandbox, with what removes them there; not those of one that lives."""
    world = World()
    await world.sandboxes.create(
        "flysync-dead", {"app": "flysync", "flysync-run": "dead", "flysync-app": "acme"}, ttl_s=60, timeout_s=1
    )
    await dead_run(world, borrowed=False, deadline_s=60)
    values = GIVEN | {"FLYSYNC_RUNNER": runner, "FLYSYNC_EGRESS": "open"}
    found, _ = settings.survey([Source(label="environment", values=values)])
    options = DoctorOptions(settings=found, needs=NEEDS, offline=True)
    report = await doctor(options, services=world.services, listener=world)
    assert await world.lock.try_acquire(AppName("acme"))
    living = await doctor(options, services=world.services, listener=world)

    assert "flysync-dead" in said(report, "sandboxes")[0][1]
    assert "dead (acme)" in said(report, "runs")[0][1]
    assert (0, "flysync sandbox prune") == (report.exit_code, report.next[-1].command)
    hints = [one.hint for one in report.findings if one.subject in {"sandboxes", "runs"}]
    assert all(str(hint).endswith(f"flysync sandbox prune{where}") for hint in hints)
    assert [("ok", "no leftover sandboxes, no dead runs")] == said(living, "leftovers")


@pytest.mark.parametrize(
    ("reach", "words", "goes_on"),
    [
        (Reach(fly={"a": False, "b": False}, essential=True), "Fly does not answer: a, b", False),
        (Reach(fly={"a": False, "b": False}, essential=True, other=False), "Daytona's tier lets", False),
        (Reach(fly={"a": False, "b": False}, essential=False, other=False), "no network in the sandbox", False),
        (Reach(fly={"a": False, "b": False}, essential=True, other=True), "Fly does not answer: a, b", False),
        (Reach(fly={"a": False, "b": False}, essential=False, other=True), "Fly does not answer: a, b", False),
        (Reach(fly={"a": True, "b": False}, essential=True, other=False), "Fly does not answer: b", True),
    ],
)
async def test_whose_fault_it_is_that_fly_is_out_of_reach(reach: Reach, words: str, goes_on: bool) -> None:
    """Fly's, the limit's, Daytona's, or the network's; what needs Fly is left out where nothing of it answers."""
    world = World()
    world.fly.reach = reach
    report = await examined(world, GIVEN | {"FLYSYNC_EGRESS": "fly" if reach.other is None else "open"})

    assert (["network"], errors.FlyUnavailable) == (failed(report), type(report.error))
    assert words in said(report, "network")[0][1]
    assert goes_on == bool(said(report, "token"))
    assert goes_on != bool(said(report, "flyctl and token"))


@pytest.mark.parametrize(
    ("egress", "other", "verdict", "words"),
    [
        ("fly", False, "ok", "reaches no other host"),
        ("fly", True, "warning", "FLYSYNC_EGRESS=fly does not hold"),
        ("open", None, "skipped", "`FLYSYNC_EGRESS=fly flysync doctor` tries it"),
    ],
)
async def test_whether_a_limit_to_flys_hosts_holds(egress: str, other: bool | None, verdict: str, words: str) -> None:
    """It is tried from inside, where it is set; else the doctor says how to try it."""
    world = World()
    world.fly.reach = Reach(fly={"a": True}, essential=other, other=other)
    report = await examined(world, GIVEN | {"FLYSYNC_EGRESS": egress})
    ((found, message),) = said(report, "egress")

    assert (0, verdict) == (report.exit_code, found)
    assert words in message


@pytest.mark.parametrize(
    ("runner", "prints"), [("daytona", "`flysync snapshot build`"), ("local", '`sha256sum "$(command -v flyctl)"`')]
)
async def test_a_flyctl_that_nothing_checks(runner: str, prints: str) -> None:
    """How to have it checked is said; one that has another sum than those that are set is named."""
    world = World()
    unchecked = await examined(
        world, GIVEN | {"FLYSYNC_FLYCTL_SHA256": "", "FLYSYNC_EGRESS": "open", "FLYSYNC_RUNNER": runner}
    )
    world.fly.flyctl = Flyctl(version="0.4.87", was_there=False, changed="the flyctl on the PATH was not run")
    changed = await examined(world)
    warnings = [[one for one in said(report, "flyctl") if one[0] != "ok"] for report in (unchecked, changed)]
    hints = [one.hint for one in unchecked.findings if one.subject == "flyctl" and one.hint]

    assert (0, 0) == (unchecked.exit_code, changed.exit_code)
    assert "FLYSYNC_FLYCTL_SHA256 is not set" in warnings[0][0][1]
    assert f"{prints} prints" in hints[0]
    assert [("warning", "the flyctl on the PATH was not run")] == warnings[1]


async def test_a_network_that_cannot_be_looked_at() -> None:
    """It is not failed for that: flyctl tells more."""
    world = World()
    world.fly.reach = None
    report = await examined(world)

    assert (0, "warning") == (report.exit_code, said(report, "network")[0][0])
    assert ["ok"] == [verdict for verdict, _ in said(report, "token")]


@pytest.mark.parametrize(
    ("flyctl", "verdicts", "words"),
    [
        (
            Flyctl(version="0.4.87", was_there=True),
            ["ok"],
            "0.4.87, found, its sum is one of those that are set; it would write values into its log files",
        ),
        (Flyctl(version="0.4.88", was_there=False), ["ok"], "0.4.88, installed in 0.0 s"),
        (Flyctl(version="0.0.0-dev", was_there=True), ["ok"], "0.0.0-dev, found"),
        (Flyctl(version="0.5.0", was_there=False, too_old="0.4.5"), ["ok", "warning"], "0.5.0, installed in 0.0 s"),
    ],
)
async def test_what_is_known_of_a_flyctl(flyctl: Flyctl, verdicts: list[str], words: str) -> None:
    """How it came there, and its faults."""
    world = World()
    world.fly.flyctl = flyctl
    found = said(await examined(world), "flyctl")

    assert verdicts == [verdict for verdict, _ in found]
    assert found[0][1].startswith(words)
    assert ("log files" in words) == ("log files" in found[0][1])


async def test_no_flyctl() -> None:
    """The token cannot be tried without one."""
    world = World()
    world.fly.failures["prepare"] = [errors.FlyctlFailed("flyctl's installer failed")]
    report = await examined(world)

    assert (["flyctl"], [("skipped", "not checked: there is no flyctl")]) == (failed(report), said(report, "token"))


def ending(days: float, kind: TokenKind = TokenKind.DEPLOY) -> Token:
    """Give a token that ends in so many days."""
    return Token(kind=kind, expires_at=datetime(2027, 1, 31, 12, tzinfo=UTC), left_s=days * DAY_S)


@pytest.mark.parametrize(
    ("token", "verdict", "words"),
    [
        (ending(14.5), "ok", "a deploy token (macaroon), ends 2027-01-31 12:00:00Z"),
        (
            ending(13.5, TokenKind.ORG),
            "warning",
            "an organization's token (macaroon), ends 2027-01-31 12:00:00Z, in 13 days",
        ),
        (ending(-0.1), "failed", "the token ended 2027-01-31 12:00:00Z"),
        (Token(kind=TokenKind.PERSONAL), "ok", "to which a login has to be added"),
        (
            Token(kind=TokenKind.OAUTH, can_be_narrowed=False),
            "warning",
            "a personal token (OAuth), its end is not known; each sandbox gets it as it is",
        ),
        (Token(kind=TokenKind.ORG, can_be_narrowed=False), "warning", "each sandbox gets it as it is"),
    ],
)
async def test_what_is_known_of_a_token(token: Token, verdict: str, words: str) -> None:
    """Its kind and its end: a warning two weeks before, and no use in asking Fly after."""
    world = World()
    world.fly.token = token
    report = await examined(world)
    ((found, message),) = said(report, "token")

    assert verdict == found
    assert words in message
    assert ("sign-in" in world.fly.calls) == (verdict != "failed")


async def test_a_token_for_one_app_is_tried() -> None:
    """Whether or not it is asked for; one that does not work is a warning, and OAuth has none."""
    world, refusing, oauth = World(), World(), World()
    refusing.fly.failures["see alone"] = [errors.AccessDenied("Fly.io refuses the token", service="fly")]
    oauth.fly.token = Token(kind=TokenKind.OAUTH, can_be_narrowed=False)
    works, refused, none = [said(await examined(one), "narrowed token") for one in (world, refusing, oauth)]

    assert [("ok", "one for acme alone works here (FLYSYNC_NARROW_TOKEN=app)")] == works
    assert [("warning", "one for acme alone does not work here: Fly.io refuses the token")] == refused
    assert [] == none


async def test_a_token_that_fly_refuses() -> None:
    """No app is asked for with it."""
    world = World()
    world.fly.failures["sign-in"] = [errors.AccessDenied("Fly.io refuses the token", service="fly")]
    report = await examined(world)

    assert (["token"], "access_denied") == (failed(report), getattr(report.error, "code", ""))
    assert "see" not in world.fly.calls


OWN = "FLYSYNC_TOKEN_COMMAND"
ASKS = GIVEN | {OWN: "cat", "FLY_API_TOKEN": ""}


def of_two() -> tuple[World, InMemoryTokens]:
    """Give a world of two projects, with a token for each."""
    world, tokens = World(), InMemoryTokens(p="ours", q="theirs")
    world.records.deploy("q", "other")
    world.fly.add_app("other")
    world.fly.keys, world.tokens = {"acme": "ours", "other": "theirs"}, tokens
    return world, tokens


@pytest.mark.parametrize(
    ("asked", "whose"),
    [({}, ("q", "other")), ({"project": PROJECT}, ("p", "acme")), ({"app": AppName("acme")}, ("p", "acme"))],
    ids=["newest", "project", "app"],
)
async def test_a_command_is_asked_for_one_app_s_token(asked: dict[str, Any], whose: tuple[str, str]) -> None:
    """That of a project that is named, or of the newest deployment; and that token shows its app."""
    world, tokens = of_two()
    report = await examined(world, ASKS, needs=[OWN if one == "FLY_API_TOKEN" else one for one in NEEDS], **asked)
    project, app = whose

    assert (0, [whose]) == (report.exit_code, tokens.calls), report.findings
    assert [("ok", f"it gives a token for {app} of {project}, after 0.0 s")] == said(report, "token command")
    assert [("ok", f"the token shows {app}")] == said(report, "app")
    assert ["ok"] == [verdict for verdict, _ in said(report, "token")]
    assert [("ok", "environment: cat")] == said(report, OWN)


@pytest.mark.parametrize(
    ("failure", "subject", "why"),
    [
        (errors.TokenFailed("no token"), "token command", "FLYSYNC_TOKEN_COMMAND has given none"),
        (None, None, "FLYSYNC_TOKEN_COMMAND has given none"),
    ],
    ids=["it has none", "nothing is deployed"],
)
async def test_a_command_that_gives_no_token(
    failure: errors.FlysyncError | None, subject: str | None, why: str
) -> None:
    """The sandbox is looked at even so."""
    world, tokens = of_two()
    if failure is None:
        world = World(app=None)
        world.tokens = tokens
    else:
        tokens.failures["q"] = failure
    report = await examined(world, ASKS, needs=(NEEDS[0], OWN, NEEDS[2]))

    assert [subject] * bool(subject) == failed(report)
    assert [("skipped", f"not checked: {why}")] == said(report, "token")
    assert ["reach", "prepare"] == world.fly.calls


async def test_a_token_of_a_command_may_end_soon() -> None:
    """Each run asks for another; one that is over is none."""
    ends = [datetime.now(UTC) + timedelta(seconds=left_s) for left_s in (600, -600)]
    reports = []
    for left_s, end in zip((600.0, -600.0), ends, strict=True):
        world, _ = of_two()
        world.fly.token = Token(kind=TokenKind.DEPLOY, expires_at=end, left_s=left_s)
        reports.append(await examined(world, ASKS, needs=(NEEDS[0], OWN, NEEDS[2])))

    assert [["ok"], ["failed"]] == [[verdict for verdict, _ in said(report, "token")] for report in reports]
    assert OWN == getattr(reports[1].error, "setting", "")


async def test_a_command_that_is_broken_is_not_taken_for_none() -> None:
    """A token that it would stand for is not tried in its place."""
    world = World()
    report = await examined(world, GIVEN | {OWN: "no-such-program"}, needs=(NEEDS[0], OWN, NEEDS[2]))

    assert [("skipped", f"not checked: {OWN} is needed")] == said(report, "token")
    assert ["reach", "prepare"] == world.fly.calls


async def test_apps_that_the_token_does_not_show() -> None:
    """One that was asked for has to be there; of those that were deployed last, one is enough."""
    world = World()
    world.records.deploy("q", "gone")
    some = await examined(world)
    project = await examined(world, project=PROJECT)
    asked = await examined(world, app=AppName("gone"))
    misspelled = await examined(world, app=AppName("acne"))
    world.fly.apps.clear()
    none = await examined(world)

    assert (0, {"ok", "warning"}) == (some.exit_code, {verdict for verdict, _ in said(some, "app")})
    assert "flysync sync-project --project p --dry-run" == project.next[-1].command
    assert isinstance(asked.error, errors.AppNotVisible)
    assert "did you mean acme? check" in str(misspelled.findings[-1].hint)
    assert isinstance(none.error, errors.AppNotVisible)
    assert "no app gone nor acme" in said(none, "app")[0][1]


@pytest.mark.parametrize(
    ("meddle", "verdict", "words"),
    [
        (lambda world: world.records.projects.clear(), "failed", "neither a credential nor a deployment"),
        (lambda world: world.records.deploy("p", "two", at=datetime.max.replace(tzinfo=UTC)), "failed", "no app two"),
        (lambda world: world.records.deploy("p", None), "ok", "the token shows acme"),
        (lambda world: world.records.projects["p"].deployments.clear(), "warning", "project p is not deployed yet"),
        (
            lambda world: world.records.projects["p"].deployments.append(
                ("two", world.records.projects["p"].deployments[0][1])
            ),
            "failed",
            "the newest deployments of p name several apps: acme, two",
        ),
    ],
)
async def test_the_app_of_a_project(meddle: Callable[[World], object], verdict: str, words: str) -> None:
    """That of its newest deployment; none is no fault of anybody's."""
    world = World()
    world.put(A="1")
    meddle(world)
    found = said(await examined(world, project=PROJECT), "app")

    assert (verdict, True) == (found[0][0], words in found[0][1])


async def test_redis() -> None:
    """What the worker is told, and what it lacks; without an address it is not looked at."""

    def lacking() -> InMemoryJobs:
        raise ImportError

    refusing = InMemoryJobs()
    refusing.refuses = errors.RedisUnavailable("Redis is out of reach", service="redis")
    refused = await examined(World(), queue=lambda: refusing)
    lacks = await examined(World(), queue=lacking)

    assert (["redis"], "redis_unavailable", 1) == (failed(refused), getattr(refused.error, "code", ""), 1)
    assert (0, [("warning", "the worker needs more packages")]) == (lacks.exit_code, said(lacks, "redis"))
    assert [] == said(await examined(World()), "redis")
