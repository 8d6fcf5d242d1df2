from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from report_schema import as_json

from flysync.cli import render
from flysync.cli.render.sync import project_text
from flysync.errors import (
    AmbiguousDeployment,
    ConfigError,
    DeployFailed,
    FlysyncError,
    FlyUnavailable,
    Interrupted,
    OutcomeUnknown,
)
from flysync.handlers.compare import Live
from flysync.handlers.database import CheckReport
from flysync.handlers.doctor.checks import DoctorReport
from flysync.handlers.fly_view import LiveApp
from flysync.handlers.history import HistoryReport, RunReport
from flysync.handlers.prove import ProofLine, ProveReport
from flysync.handlers.prune import SandboxLine, SandboxReport, Use
from flysync.handlers.snapshots import SnapshotLine, SnapshotReport, Way
from flysync.handlers.status import CredentialCondition, StatusLine, StatusReport
from flysync.model.config import ConfigReport, KeyringChange, KeyringReport, SettingLine
from flysync.model.core import AppName, OpenRun, Outcome, ProjectId, Reason, RunId, SandboxInfo, SecretName, State
from flysync.model.fly import AppAtFly, Machine, Machines
from flysync.model.reports import (
    CredentialReport,
    Finding,
    FleetReport,
    InitReport,
    NextStep,
    Note,
    Report,
    RunRow,
    SchemaReport,
    SyncReport,
    command,
    printable,
)
from flysync.model.snapshot import Flyctl, SnapshotInfo

NOW = datetime(2026, 11, 20, 3, 4, 5, tzinfo=UTC)
NEVER_SENT, CHANGED = CredentialCondition.NEVER_SENT, CredentialCondition.CHANGED
#: A line break, an escape sequence, two that turn the text around, a C1 control, and half a surrogate pair.
EVIL = "x\n\r\x1b[31m\u202e\u2066\x9b\udc80y"


def sync_report(**more: Any) -> SyncReport:
    """Give the report of a sync."""
    return SyncReport(run_id=RunId("run1"), project=ProjectId("p"), **more)


def status_line(**more: Any) -> StatusLine:
    """Give a line of a status."""
    filled: dict[str, Any] = {
        "project": "p",
        "app": "acme",
        "name": "A",
        "in_table": True,
        "state": State.DEPLOYED,
        "condition": CredentialCondition.DEPLOYED,
        "updated_at": NOW,
        "written_at": None,
        "deployed_at": NOW,
        "run_id": "run1",
        "actor": "tester",
        "origin": "cli",
    }
    return StatusLine(**filled | more)


def proof_line(**more: Any) -> ProofLine:
    """Give a line of a proof."""
    filled: dict[str, Any] = {
        "name": "arrives",
        "promise": "it arrives",
        "verdict": "proven",
        "seen": "so it is",
        "seconds": 1.25,
    }
    return ProofLine(**filled | more)


def status_report(*lines: StatusLine, **more: Any) -> StatusReport:
    """Give a status."""
    return StatusReport(lines=lines, **{"open_runs": ()} | more)


def run_row(**more: Any) -> RunRow:
    """Give a run that has ended."""
    filled: dict[str, Any] = {
        "run_id": "01k3abcdefghjkmnpqrstvwxyz",
        "project": "p",
        "app": "acme",
        "names": ("A", "B"),
        "origin": "cli",
        "actor": "ann",
        "reason": None,
        "started_at": NOW,
        "sandbox": None,
        "deadline": None,
        "finished_at": NOW,
        "outcome": "failed",
        "error_code": None,
        "release": None,
        "seconds": {},
        "results": {},
    }
    return RunRow(**filled | more)


def snapshot_line(
    way: Way | None = None, found: Flyctl | None = None, settings: dict[str, str] | None = None, **more: Any
) -> SnapshotLine:
    """Give a line of a list of snapshots."""
    filled: dict[str, Any] = {"id": "id", "name": "ours", "state": "active", "created_at": NOW, "flyctl": "0.4.87"}
    info = SnapshotInfo(**filled | more)
    return SnapshotLine(snapshot=info, in_use=False, way=way, flyctl=found, settings=settings or {})


def evil_texts() -> dict[str, list[str]]:
    """Give all that is shown as text, with an evil word wherever the word comes from others."""
    name, app = SecretName(EVIL), AppName(EVIL)
    report = SyncReport(
        run_id=RunId(EVIL),
        project=ProjectId(EVIL),
        app=app,
        credentials=(CredentialReport(name=name, outcome=Outcome.SYNCED),),
        covered_by=RunId(EVIL),
    )
    run = OpenRun(
        run_id=RunId(EVIL), sandbox=EVIL, borrowed=False, seconds_left=1, origin=EVIL, actor=EVIL, started_at=NOW
    )
    words = ("run_id", "app", "origin", "actor", "reason", "sandbox", "outcome", "error_code", "project")
    result = {EVIL: {"outcome": EVIL, "code": EVIL, "message": EVIL}}
    row = run_row(names=(EVIL,), seconds={EVIL: 1.0}, results=result, **dict.fromkeys(words, EVIL))
    line = status_line(project=EVIL, app=EVIL, name=EVIL, actor=EVIL, origin=EVIL)
    finding = Finding(verdict="failed", subject=EVIL, message=EVIL, hint=EVIL)
    sandbox = SandboxInfo(id=EVIL, name=EVIL, run_id=RunId(EVIL), app=EVIL, state=EVIL, created_at=NOW, ttl_s=60)
    setting = SettingLine(name=EVIL, source=EVIL, shown=EVIL, is_set=True, is_usable=True)
    reports: tuple[Report, ...] = (
        report,
        FleetReport(projects=(report,)),
        status_report(line, open_runs=(run,)),
        HistoryReport(runs=(row,)),
        RunReport(run=row, sent={EVIL: EVIL}),
        CheckReport(findings=(finding,)),
        DoctorReport(findings=(finding,)),
        InitReport(created=(EVIL,)),
        SandboxReport(lines=(SandboxLine(sandbox=sandbox, use=Use.DEAD, age_s=1.0),)),
        SnapshotReport(lines=(snapshot_line(name=EVIL, state=EVIL, image=EVIL, flyctl=None),)),
        ConfigReport(lines=(setting,)),
        KeyringReport(name=EVIL, change=KeyringChange.STORED),
        SchemaReport(text="{}"),
        ProveReport(app=AppName(EVIL), lines=(proof_line(seen=EVIL),), parts={"flyctl": EVIL}),
    )
    kinds = {type(report).__name__ for report in reports}
    below = [kind for kind in Report.__subclasses__() for kind in (kind, *kind.__subclasses__())]
    assert set(render.MODULES) == kinds == {kind.__name__ for kind in below}
    return {
        **{type(report).__name__: render.as_text(report) for report in reports},
        "project": project_text(report),
        "notes": render.notes_text([Note(code="x", message=EVIL)]),
        "next": render.next_text([NextStep(command=command("sync-project", "--project", EVIL), why=EVIL)]),
        "error": render.error_text(AmbiguousDeployment(f"apps: {EVIL}", hint=EVIL)),
    }


@pytest.mark.parametrize(
    "what", sorted(evil_texts().keys() - {"FleetReport", "SchemaReport"})
)  # which have no word of others
def test_no_text_holds_what_a_terminal_would_act_on(what: str) -> None:
    """Names, ids, apps and actors from the database are escaped, and no line is added by them."""
    lines = evil_texts()[what]

    assert [] == [line for line in lines if not line.isprintable()]
    assert any(r"x\n\r\x1b[31m\u202e\u2066\x9b\udc80y" in line for line in lines)


def test_text_that_can_be_seen_stays_as_it_is() -> None:
    """Letters of every script, and what looks like an escape."""
    assert r"é 日本 a\x1b €" == printable(r"é 日本 a\x1b €")


def test_a_project_is_quoted_in_commands() -> None:
    """What a shell would act on is one word."""
    assert "flysync sync-project --project 'a; rm -rf $HOME'" == command("sync-project", "--project", "a; rm -rf $HOME")
    assert """flysync status --project 'it'"'"'s'""" == command("status", "--project", "it's")


def test_several_problems_have_a_line_each() -> None:
    """As the settings report them; any other line break is escaped."""
    error = ConfigError("2 things are wrong:\n- one\n- two\nthree", hint="fix them")

    assert ["error: 2 things are wrong:", "- one", r"- two\nthree", "hint: fix them"] == render.error_text(error)


def test_every_report_has_all_keys_of_the_contract_in_their_order() -> None:
    """Whatever the command is: those that callers rely on come first, its own after them."""
    bare = as_json("db", Report())
    status = as_json("status", status_report())
    sync = as_json("sync", sync_report(warnings=(Note(code="b", message="m"),)), (Note(code="a", message="m"),))

    assert [*bare, "status", "open_runs", "summary"] == list(status)
    assert list(bare) == list(sync)
    assert ("flysync/1", "db", True, 0, [], None, []) == tuple(
        bare[key] for key in ("schema", "command", "ok", "exit_code", "credentials", "error", "next")
    )
    assert ["a", "b"] == [warning["code"] for warning in sync["warnings"]]


@pytest.mark.parametrize(
    ("outcome", "error", "line"),
    [
        (Outcome.SYNCED, None, "✓ A  synced        new"),
        (Outcome.STAGED, DeployFailed("x"), "◐ A  staged        deploy_failed"),
        (Outcome.UNCHANGED, None, "= A  unchanged     new"),
        (Outcome.SKIPPED, None, "- A  skipped       new"),
        (Outcome.FAILED, Interrupted("x"), "✗ A  failed        interrupted"),
        (Outcome.UNKNOWN, OutcomeUnknown("x"), "? A  unknown       outcome_unknown"),
        (None, None, "→ A  would be set  new"),
    ],
)
def test_each_outcome_has_a_line(outcome: Outcome | None, error: FlysyncError | None, line: str) -> None:
    """Mark, name, outcome, and why."""
    one = CredentialReport(name=SecretName("A"), outcome=outcome, reason=Reason.NEW, error=error)

    assert line == render.as_text(sync_report(credentials=(one,)))[0]


def test_the_last_line_sums_up() -> None:
    """Counts, app, release, machines, time; what is not known is left out."""
    one = CredentialReport(name=SecretName("A"), outcome=Outcome.SYNCED)
    full = sync_report(
        app="acme",
        credentials=(one,),
        release=7,
        machines=Machines(updated=1, total=2),
        covered_by="run0",
        timings_ms={"set": 1200, "deploy": 300},
    )
    planned = sync_report(credentials=(CredentialReport(name=SecretName("A"), outcome=None),), dry_run=True)

    assert "p: 1 synced on acme, release 7, 1/2 machines, covered by run run0, 1.5 s" == render.as_text(full)[-1]
    assert "p: sets 1, restarts the machines (dry run: nothing was done)" == render.as_text(planned)[-1]
    assert ["p: no credentials"] == render.as_text(sync_report())


def test_a_status_has_a_head_per_project_and_its_credentials_below() -> None:
    """With what was done last, and the runs in progress."""
    run = OpenRun(
        run_id=RunId("run2"), sandbox="s", borrowed=False, seconds_left=1, origin="cli", actor="ann", started_at=NOW
    )
    tried = run_row(run_id="run9", origin="queue", error_code="access_denied")
    report = status_report(
        status_line(),
        status_line(name="LONG", condition=NEVER_SENT, deployed_at=None, actor=None, origin=None),
        status_line(name="NEWER", condition=CHANGED),
        status_line(name="TRIED", condition=CredentialCondition.FAILED, state=State.FAILED),
        status_line(name="WHY", condition=CredentialCondition.FAILED, state=State.FAILED, tried=tried),
        status_line(
            project="q",
            app=None,
            name=None,
            condition=CredentialCondition.NO_CREDENTIALS,
            deployed_at=None,
            actor=None,
        ),
        open_runs=(run, replace(run, run_id=RunId("run3"))),
        died={"run3"},
    )

    assert [
        "p  acme",
        "  ✓ A      deployed",
        "    deployed 2026-11-20 03:04:05Z by tester (cli) run run1",
        "  ! LONG   never sent",
        "  ! NEWER  changed since",
        "    stored 2026-11-20 03:04:05Z",
        "    deployed 2026-11-20 03:04:05Z by tester (cli) run run1",
        "  ! TRIED  failed",
        "    deployed 2026-11-20 03:04:05Z, before",
        "    last tried by tester (cli) run run1",
        "  ! WHY    failed",
        "    deployed 2026-11-20 03:04:05Z, before",
        "    last tried 2026-11-20 03:04:05Z: failed  access_denied",
        "    by ann (queue) run run9",
        "q  (not deployed)",
        "  ! -  no credentials",
        "run run2 in progress since 2026-11-20 03:04:05Z (cli, ann)",
        "run run3 died; the next sync cleans up. It began 2026-11-20 03:04:05Z (cli, ann)",
    ] == render.as_text(report)
    assert ["no projects"] == render.as_text(status_report())


def test_a_status_says_what_fly_shows() -> None:
    """The machines with the app, a mark for what is well, astray, not known, and not ours."""
    machines = (
        Machine(id="m1", state="started", release=7),
        Machine(id="m2", state="started", release=6),
        Machine(id="m3", state="stopped", release=7),
        Machine(id="m4", state="started", is_managed=False),
    )
    acme, gone, dark, bare, idle = (AppName(name) for name in ("acme", "gone", "dark", "bare", "idle"))
    report = status_report(
        status_line(live=Live.RUNNING, deployed_at=None),
        status_line(name="B", live=Live.MISSING, deployed_at=None),
        status_line(name="C", live=Live.FOREIGN, condition=NEVER_SENT, in_table=False, deployed_at=None),
        status_line(name="D", live=Live.RUNNING, condition=CHANGED, updated_at=None, deployed_at=None),
        status_line(app=gone, live=Live.NO_APP, condition=NEVER_SENT, deployed_at=None),
        status_line(app=dark, live=Live.UNKNOWN, live_unknown="Fly.io refuses the token", deployed_at=None),
        status_line(app=bare, live=Live.NO_MACHINES, condition=CredentialCondition.STORED, deployed_at=None),
        status_line(app=idle, live=Live.AT_REST, deployed_at=None),
        apps={
            acme: LiveApp(shown=AppAtFly(secrets=(), machines=machines)),
            gone: LiveApp(exists=False),
            dark: LiveApp(),
            bare: LiveApp(shown=AppAtFly(secrets=(), machines=())),
        },
        error=FlyUnavailable("out of reach", service="fly"),
    )
    data = as_json("status", report)

    assert [
        "p  acme  machines: 2 started, 1 stopped on release 6, 7 (and 1 that no roll-out reaches)",
        "  ✓ A  running",
        "  ! B  missing",
        "  - C  foreign",
        "  ! D  running (changed since)",
        "p  gone  Fly.io knows no such app",
        "  - A  no app (never sent)",
        "p  dark  machines not seen",
        "  ? A  unknown",
        "    Fly.io refuses the token",
        "p  bare  machines: none",
        "  ✓ A  no machines (stored, not deployed)",
        "p  idle",
        "  ✓ A  on stopped machines",
        "    the machines are stopped or suspended, and will start with it",
    ] == render.as_text(report)
    assert (3, False, "fly_unavailable") == (data["exit_code"], data["ok"], data["error"]["code"])
    assert [False, True, False, True, False, False, False, False] == [line["drift"] for line in data["status"]]
    assert data["status"][5]["machines"] is None
    assert {"id": "m4", "state": "started", "release": None, "managed": False} == data["status"][0]["machines"][3]


def test_a_status_in_json_has_its_moments_in_iso() -> None:
    """Under a key of its own."""
    (line,) = as_json("status", status_report(status_line()))["status"]

    assert ("2026-11-20T03:04:05+00:00", None, "deployed") == (line["deployed_at"], line["written_at"], line["state"])


def test_findings_and_what_was_created() -> None:
    """A verdict per line, the hint below; the doctor's have the error's code."""
    fine = Finding(verdict="ok", subject="cloud_credentials", message="as needed")
    wrong = Finding(verdict="failed", subject="project_actions", message="has no details", hint="ALTER TABLE …")
    check, examined = CheckReport(findings=(fine, wrong)), DoctorReport(findings=(replace(wrong, code="config"),))

    assert [
        "ok       cloud_credentials: as needed",
        "failed   project_actions: has no details",
        "         ALTER TABLE …",
    ] == render.as_text(check)
    told = {
        "verdict": "failed",
        "subject": "project_actions",
        "message": "has no details",
        "hint": "ALTER TABLE …",
    }
    assert told == as_json("db check", check)["check"][1]
    assert [told | {"code": "config"}] == as_json("doctor", examined)["doctor"]
    assert ["created a", "created b"] == render.as_text(InitReport(created=("a", "b")))
    assert ["nothing to create: all tables exist"] == render.as_text(InitReport(created=()))
    moved = InitReport(created=("a",), migrated_from=1, shared_apps={AppName("acme"): (ProjectId("p"), ProjectId("q"))})
    assert [
        "created a",
        "migrated flysync's tables from version 1",
        "acme had secrets of several projects: p, q; the first owns it now",
    ] == render.as_text(moved)
    init = {"created": ["a"], "migrated_from": 1, "shared_apps": {"acme": ["p", "q"]}, "granted_to": None, "sql": None}
    assert init == as_json("db init", moved)["init"]
    granted = InitReport(created=(), granted_to="flysync_sync")
    assert ["nothing to create: all tables exist", "flysync_sync may sync"] == render.as_text(granted)
    assert ["BEGIN;", "COMMIT;"] == render.as_text(InitReport(created=(), sql="BEGIN;\nCOMMIT;"))


def test_sandboxes_have_a_line_each() -> None:
    """Name, app, age, use, and what was done; JSON has no app where there is none."""
    sandbox = SandboxInfo(
        id="id", name="flysync-x", run_id=RunId("x"), app="", state="started", created_at=NOW, ttl_s=600
    )
    lines = (
        SandboxLine(sandbox=sandbox, use=Use.DEAD, age_s=125.4, removed=True),
        SandboxLine(sandbox=sandbox, use=Use.EXPIRED, age_s=None, removed=False),
    )
    report = SandboxReport(lines=lines)

    assert [
        "flysync-x                           -                      2 min ago  dead, deleted",
        "flysync-x                           -                              ?  expired, not deleted",
    ] == render.as_text(report)
    assert {
        "id": "id",
        "name": "flysync-x",
        "run_id": "x",
        "app": None,
        "state": "started",
        "created_at": "2026-11-20T03:04:05+00:00",
        "age_s": 125,
        "ttl_s": 600,
        "use": "dead",
        "removed": True,
    } == as_json("sandbox list", report)["sandboxes"][0]
    assert ["no sandboxes"] == render.as_text(SandboxReport(lines=()))


def test_an_error_carries_what_callers_decide_by() -> None:
    """Code, temporary, service, phase, seconds to wait; the setting only where there is one."""
    error = FlysyncError("m", hint="h", service="fly", phase="set", setting="FLY_API_TOKEN", retry_after_s=3.0)
    data = render.as_json("sync", Report(error=error))["error"]
    interrupted = as_json("sync", Report(error=Interrupted("x", signal_number=15)))

    assert {
        "code": "error",
        "message": "m",
        "hint": "h",
        "temporary": False,
        "service": "fly",
        "phase": "set",
        "retry_after_s": 3.0,
        "scope": "app",
        "setting": "FLY_API_TOKEN",
    } == data
    assert "setting" not in interrupted["error"]
    assert 143 == interrupted["exit_code"]


def test_snapshots_have_a_line_each() -> None:
    """State, what is in it, size, age, and whether it is in use; what is not known is left out."""
    lines = (
        replace(snapshot_line(size_gb=0.25), in_use=True),
        snapshot_line(name="pulled", flyctl=None, image="debian:12", state="inactive"),
        snapshot_line(name="x", flyctl=None, created_at=None),
    )

    assert [
        "ours    active        flyctl 0.4.87  0.2 GB  2026-11-20 03:04:05Z  in use",
        "pulled  inactive      debian:12  2026-11-20 03:04:05Z",
        "x       active        -",
    ] == render.as_text(SnapshotReport(lines=lines))
    assert ["no snapshots"] == render.as_text(SnapshotReport(lines=()))


def test_a_snapshot_that_was_built_has_what_is_in_it() -> None:
    """And the settings to change; of one that is broken the state says more than what was done."""
    found = Flyctl(version="0.4.87", sha256="5" * 64)
    line = replace(snapshot_line(Way.BUILT, found, {"FLYSYNC_SNAPSHOT": "ours"}), warm=2)
    report = SnapshotReport(lines=(line,))
    broken = SnapshotReport(lines=(snapshot_line(Way.BUILT, state="build_failed"),))

    assert [
        "ours  built         flyctl 0.4.87  2026-11-20 03:04:05Z",
        "flyctl  0.4.87",
        f"sha256  {'5' * 64}",
        "set     FLYSYNC_SNAPSHOT=ours",
        "warm    2",
    ] == render.as_text(report)
    assert render.as_text(broken)[0].startswith("ours  build_failed  ")
    assert [
        {
            "id": "id",
            "name": "ours",
            "state": "active",
            "image": None,
            "size_gb": None,
            "created_at": "2026-11-20T03:04:05+00:00",
            "in_use": False,
            "flyctl": "0.4.87",
            "sha256": "5" * 64,
            "way": "built",
            "settings": {"FLYSYNC_SNAPSHOT": "ours"},
            "warm": 2,
        }
    ] == as_json("snapshot build", report)["snapshots"]


def test_a_proof_says_what_was_seen_and_what_to_set() -> None:
    """Two lines per promise; then parts, steps and settings."""
    lines = (proof_line(), proof_line(name="sum", verdict="not possible here"))
    report = ProveReport(
        app=AppName("acme"),
        lines=lines,
        parts={"flyctl": "0.4.87", "clock": "it agrees"},
        steps={"set": (0.5, 2.0)},
        settings={"FLYSYNC_EGRESS": "fly"},
    )

    assert [
        "✓ arrives: it arrives: proven (1.2 s)",
        "    so it is",
        "- sum: it arrives: not possible here (1.2 s)",
        "    so it is",
        "flyctl: 0.4.87",
        "set took 0.5 to 2.0 s",
        "set     FLYSYNC_EGRESS=fly",
    ] == render.as_text(report)
    found = as_json("prove", report)
    assert ("acme", {"set": {"shortest_s": 0.5, "longest_s": 2.0}}) == (found["app"], found["prove"]["steps"])
    assert ["proven", "not possible here"] == [line["verdict"] for line in found["prove"]["lines"]]
