"""What is known of a command whose answer is missing, and that no error tells a value or the key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from parts import cases
from sandboxes_contract import make

from flysync import errors
from flysync.ports import AnswerLost, NotSent
from flysync.secret import Secret
from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from flysync.adapters.daytona import DaytonaSandbox, DaytonaSandboxes
    from flysync.sim.daytona import Daytona

EXEC = "POST /toolbox/.*/process/execute"
VALUE = "s3cr3t-value\"with'quotes"
KEY = "dtn_sim"


@pytest.fixture
async def box(sandboxes: DaytonaSandboxes) -> DaytonaSandbox:
    """A sandbox."""
    return await sandboxes.create("box", {}, ttl_s=600, timeout_s=60)


async def failed(work: Awaitable[str]) -> NotSent | AnswerLost:
    """Give what a command ends with; its cause names Daytona and the step."""
    with pytest.raises((NotSent, AnswerLost)) as caught:
        await work
    error = caught.value
    assert isinstance(error, NotSent | AnswerLost)
    assert ("daytona", "exec") == (error.cause.service, error.cause.phase)
    return error


def everything(error: BaseException) -> Iterator[str]:
    """Give all that an error holds, and all that is behind it."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        one = queue.pop()
        if not isinstance(one, BaseException) or one in seen:
            continue
        seen.append(one)
        yield from (str(one), repr(one), repr(one.args), repr(vars(one)))
        queue += [one.__cause__, one.__context__, *vars(one).values()]
        trace = one.__traceback__
        while trace is not None:
            if "/flysync/" in trace.tb_frame.f_code.co_filename and "adapters" in trace.tb_frame.f_code.co_filename:
                yield repr(trace.tb_frame.f_locals)
            trace = trace.tb_next


class TestWhatIsKnown:
    """A command that was not sent may be sent again; one whose answer is lost may have run."""

    async def test_values_travel_in_the_environment(self, daytona: Daytona, box: DaytonaSandbox) -> None:
        """The output comes back, both streams; the value stands in no part of the request but there."""
        output = await box.run('printf "%s" "$V0"; echo err >&2', {"V0": Secret(VALUE)}, timeout_s=10)
        (record,) = daytona.requests(EXEC)
        sent = json.loads(record.body)

        assert VALUE + "err\n" == output
        assert {"V0": VALUE} == sent.pop("envs")
        assert 10 == sent["timeout"]
        assert VALUE not in f"{sent} {record.headers} {record.path} {record.query}"

    async def test_there_may_be_no_output(self, box: DaytonaSandbox) -> None:
        """That is an empty text, and a status of the script's is not ours to judge."""
        assert ["", ""] == [await box.run(script, {}, timeout_s=10) for script in ("true", "exit 3")]

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, errors.DaytonaUnavailable),
            (401, errors.DaytonaUnavailable),
            (403, errors.DaytonaUnavailable),
            (404, errors.DaytonaUnavailable),
            (409, errors.DaytonaUnavailable),
            (410, errors.DaytonaUnavailable),
            (422, errors.DaytonaUnavailable),
            (429, errors.RateLimited),
        ],
    )
    async def test_a_refused_command_was_not_sent(
        self, daytona: Daytona, box: DaytonaSandbox, status: int, kind: type[errors.FlysyncError]
    ) -> None:
        """It has not run, and is not sent again by itself; a refused key means that the sandbox is gone."""
        daytona.faults.append(Fault(match=EXEC, status=status, times=9, headers={"Retry-After": "4"}))
        error = await failed(box.run("touch mark", {}, timeout_s=10))

        assert (NotSent, kind, True) == (type(error), type(error.cause), error.cause.temporary)
        assert (4.0 if status == 429 else None) == error.cause.retry_after_s
        assert (1, 0) == (len(daytona.requests(EXEC)), len(daytona.execs))

    @pytest.mark.parametrize(
        ("fault", "kind", "runs"),
        [
            ({"kind": FaultKind.DROP_BEFORE}, errors.DaytonaUnavailable, 0),
            ({"kind": FaultKind.DROP_AFTER}, errors.DaytonaUnavailable, 1),
            ({"kind": FaultKind.TRUNCATE}, errors.DaytonaUnavailable, 1),
            pytest.param({"kind": FaultKind.HANG}, errors.TimedOut, 0, marks=pytest.mark.slow),  # waited for 6 s
            ({"kind": FaultKind.STATUS_AFTER, "status": 200, "body": "<html>"}, errors.DaytonaUnavailable, 1),
            ({"status": 408}, errors.TimedOut, 0),
            ({"status": 500}, errors.DaytonaUnavailable, 0),
            ({"status": 502, "body": ""}, errors.DaytonaUnavailable, 0),
            ({"kind": FaultKind.STATUS_AFTER, "status": 502, "body": "<html>"}, errors.DaytonaUnavailable, 1),
            ({"status": 503}, errors.DaytonaUnavailable, 0),
            ({"status": 504}, errors.TimedOut, 0),
            ({"status": 418}, errors.DaytonaUnavailable, 0),
        ],
    )
    async def test_an_answer_that_was_lost_leaves_it_open(
        self,
        daytona: Daytona,
        box: DaytonaSandbox,
        fault: dict[str, Any],
        kind: type[errors.FlysyncError],
        runs: int,
    ) -> None:
        """It may have run or not; it is never sent again by itself."""
        daytona.faults.append(Fault(match=EXEC, times=9, **fault))
        error = await failed(box.run("true", {}, timeout_s=1 if fault.get("kind") is FaultKind.HANG else 30))

        assert (AnswerLost, kind, True) == (type(error), type(error.cause), error.cause.temporary)
        assert (1, runs) == (len(daytona.requests(EXEC)), len(daytona.execs))

    async def test_a_command_that_takes_too_long_is_killed_and_leaves_it_open(
        self, daytona: Daytona, box: DaytonaSandbox
    ) -> None:
        """What it did until then is done."""
        error = await failed(box.run("sleep 30", {}, timeout_s=1))

        assert (AnswerLost, errors.TimedOut) == (type(error), type(error.cause))
        assert 1 == len(daytona.execs)

    @pytest.mark.parametrize("cached", [True, False])
    async def test_a_sandbox_that_was_taken_away_runs_nothing(
        self, daytona: Daytona, box: DaytonaSandbox, *, cached: bool
    ) -> None:
        """Whether Daytona says that it is missing or that the key is wrong."""
        daytona.access_cached = cached
        await daytona.delete(daytona.sandboxes[box.id])
        error = await failed(box.run("true", {}, timeout_s=30))

        assert (NotSent, errors.DaytonaUnavailable) == (type(error), type(error.cause))
        assert [404 if cached else 401] == [record.status for record in daytona.requests(EXEC)]

    async def test_without_a_connection_nothing_was_sent(self, daytona: Daytona, box: DaytonaSandbox) -> None:
        """Nobody listens any more."""
        await daytona.__aexit__(None, None, None)
        error = await failed(box.run("true", {}, timeout_s=30))

        assert (NotSent, errors.DaytonaUnavailable) == (type(error), type(error.cause))


class TestNothingIsTold:
    """Daytona repeats what it was sent in each of its errors, and ours have nothing of it."""

    @pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 408, 409, 429, 500, 502])
    async def test_an_error_has_no_value(self, daytona: Daytona, box: DaytonaSandbox, status: int) -> None:
        """Neither it, nor what is behind it, nor our frames, have the value or the key."""
        said = f"{VALUE} and {KEY}"
        daytona.faults.append(
            Fault(match=EXEC, status=status, body=json.dumps({"message": said, "exitCode": said}), headers={"X": said})
        )
        error = await failed(box.run(f"echo {status}", {"V0": Secret(VALUE)}, timeout_s=30))
        text = "\n".join(everything(error))

        assert [] == [piece for piece in [*Secret(VALUE).encodings(), KEY] if piece in text]

    @pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.TRUNCATE])
    async def test_a_broken_connection_has_none_either(
        self, daytona: Daytona, box: DaytonaSandbox, kind: FaultKind
    ) -> None:
        """What aiohttp knows of the request is not behind the error."""
        daytona.faults.append(Fault(match=EXEC, kind=kind))
        error = await failed(box.run('echo "$V0"', {"V0": Secret(VALUE)}, timeout_s=30))
        text = "\n".join(everything(error))

        assert [] == [piece for piece in [*Secret(VALUE).encodings(), KEY] if piece in text]

    @pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 409, 429, 500])
    @cases("call", ["create", "attach", "remove", "list"], quick=2)
    async def test_no_other_call_tells_the_key(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes], call: str, status: int
    ) -> None:
        """Masked where Daytona's words are shown, and nowhere behind the error."""
        ours = new_sandboxes(snapshot="fine", call_s=2.0)
        daytona.add_snapshot("fine")
        if call == "remove":
            await make(ours)
        body = json.dumps({"message": f"Bearer {KEY} is odd", "id": KEY, "items": KEY})
        daytona.faults.append(Fault(match="/api/sandbox", status=status, body=body, headers={"X": KEY}, times=99))
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "create": lambda: make(ours),
            "attach": lambda: ours.attach("box", timeout_s=30),
            "remove": lambda: ours.remove("box", timeout_s=0.5),
            "list": ours.list,
        }
        if call == "remove" and status == 404:
            await calls[call]()
            return
        with pytest.raises(errors.FlysyncError) as caught:
            await calls[call]()

        assert not any(KEY in text for text in everything(caught.value))
