"""The double and Daytona by its unmodified clients keep the promises of `Sandboxes`; and what Daytona is asked for."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from doubles import InMemorySandboxes
from sandboxes_contract import LABELS, SandboxesContract, SandboxesWorld, make

from flysync import errors
from flysync.sim.loopback import Fault, Loopback

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flysync.adapters.daytona import DaytonaSandboxes
    from flysync.sim.daytona import Daytona


class MemoryWorld(SandboxesWorld):
    """The double: two processes have the same one."""

    def __init__(self) -> None:
        self.sandboxes = self.others = self.memory = InMemorySandboxes()

    def live(self) -> list[str]:
        """Give the names."""
        return sorted(self.memory.live)


class DaytonaWorld(SandboxesWorld):
    """The simulated Daytona, and the unmodified clients twice."""

    def __init__(self, daytona: Daytona, new_sandboxes: Callable[[], DaytonaSandboxes]) -> None:
        self.daytona = daytona
        self.sandboxes, self.others = new_sandboxes(), new_sandboxes()

    def live(self) -> list[str]:
        """Give the names."""
        return sorted(one.name for one in self.daytona.sandboxes.values())


class TestInMemorySandboxes(SandboxesContract):
    """The promises, kept by the double."""

    @pytest.fixture
    def world(self) -> SandboxesWorld:
        """The double."""
        return MemoryWorld()

    async def test_it_refuses_what_it_is_told_to_refuse(self) -> None:
        """Once for each error that was put there, before anything is done."""
        sandboxes = InMemorySandboxes()
        for call in ("create", "attach", "remove", "list"):
            sandboxes.refusals[call] = [errors.RateLimited(call)]
        for call, work in (
            ("create", sandboxes.create("box", {}, ttl_s=1, timeout_s=1)),
            ("attach", sandboxes.attach("box", timeout_s=1)),
            ("remove", sandboxes.remove("box", timeout_s=1)),
            ("list", sandboxes.list()),
        ):
            with pytest.raises(errors.RateLimited, match=call):
                await work

        assert {} == sandboxes.live
        assert "box" == (await sandboxes.create("box", {}, ttl_s=1, timeout_s=1)).name

    async def test_it_runs_nothing(self) -> None:
        """A test that needs a shell needs another sandbox."""
        with pytest.raises(NotImplementedError):
            await InMemorySandboxes().add("box").run("true", {}, timeout_s=1)


class TestDaytonaSandboxes(SandboxesContract):
    """The promises, kept at Daytona."""

    @pytest.fixture
    def world(self, daytona: Daytona, new_sandboxes: Callable[[], DaytonaSandboxes]) -> SandboxesWorld:
        """The simulated Daytona."""
        return DaytonaWorld(daytona, new_sandboxes)


class TestWhatIsSent:
    """What Daytona is asked for, and what it is not."""

    @pytest.mark.parametrize(("ttl_s", "label", "minutes"), [(0.5, "1", 1), (60, "60", 1), (601.2, "602", 11)])
    async def test_a_sandbox_ends_by_itself(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes, ttl_s: float, label: str, minutes: int
    ) -> None:
        """It is ephemeral, stops when idle, and has a ttl in whole minutes; nothing but labels says whose it is."""
        await make(sandboxes, ttl_s=ttl_s)
        (record,) = daytona.records
        sent = json.loads(record.body)

        assert ("POST", "/api/sandbox", 200) == (record.method, record.path, record.status)
        assert (0, 5, minutes) == (sent["autoDeleteInterval"], sent["autoStopInterval"], sent["ttlMinutes"])
        assert LABELS | {"flysync-sandbox": "box", "flysync-ttl-s": label} == sent["labels"]
        assert ("box", {}, None, "us") == (sent["name"], sent["env"], sent.get("snapshot"), sent["target"])

    async def test_a_snapshot_and_no_target(
        self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes]
    ) -> None:
        """What is configured is sent, what is not is left to Daytona."""
        daytona.add_snapshot("with-flyctl")
        await make(new_sandboxes(snapshot="with-flyctl", target=None))
        sent = json.loads(daytona.records[0].body)

        assert ("with-flyctl", None) == (sent["snapshot"], sent.get("target"))

    async def test_a_limit_to_hosts(self, daytona: Daytona, new_sandboxes: Callable[..., DaytonaSandboxes]) -> None:
        """Sent with every sandbox that is made; without one Daytona is told nothing of hosts."""
        limited = new_sandboxes(hosts=("api.fly.test", "fly.test"))
        for boxes, name in ((limited, "a"), (limited, "b"), (new_sandboxes(), "c")):
            await boxes.create(name, {}, ttl_s=60, timeout_s=20)
        sent = [
            json.loads(record.body).get("domainAllowList") for record in daytona.requests(r"POST /api/sandbox(\?|$)")
        ]

        assert ["api.fly.test,fly.test"] * 2 + [None] == sent

    async def test_the_address_of_the_toolbox(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """Where an answer has none it is asked for, once for each sandbox."""
        daytona.toolbox_url_hidden = True
        boxes = [await make(sandboxes), await sandboxes.attach("box", timeout_s=10)]

        assert ["hello\n"] * 2 == [await box.run("echo hello", {}, timeout_s=10) for box in boxes]
        assert 2 == len(daytona.requests("GET .*/toolbox-proxy-url"))

    @pytest.mark.parametrize("target", ["us", None])
    async def test_a_stray_env_file_changes_nothing(
        self,
        daytona: Daytona,
        new_sandboxes: Callable[..., DaytonaSandboxes],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        target: str | None,
    ) -> None:
        """Key, address, target and organization stay ours, telemetry stays off, and Ctrl-C stays with its handler."""
        monkeypatch.chdir(tmp_path)
        async with Loopback() as trap:
            lines = [
                "DAYTONA_API_KEY=dtn_theirs",
                "DAYTONA_JWT_TOKEN=theirs",
                "DAYTONA_ORGANIZATION_ID=theirs",
                "DAYTONA_TARGET=theirs",
                "DAYTONA_OTEL_ENABLED=true",
                "DAYTONA_EXPERIMENTAL_OTEL_ENABLED=true",
                "DAYTONA_USE_DEPRECATED_POLLING=false",
                f"DAYTONA_API_URL={trap.url}",
                f"DAYTONA_SERVER_URL={trap.url}",
            ]
            for name in (".env", ".env.local"):
                (tmp_path / name).write_text("\n".join(lines))
            for line in lines:
                name = line.partition("=")[0]
                monkeypatch.setenv(name, "")  # so that it is put back
                monkeypatch.delenv(name)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", trap.url)
            handler = signal.getsignal(signal.SIGINT)
            ours = new_sandboxes(target=target)
            box = await make(ours)
            await box.run("true", {}, timeout_s=10)
            await ours.attach("box", timeout_s=10)
            await ours.list()
            await ours.remove("box", timeout_s=10)
            handlers = handler, signal.getsignal(signal.SIGINT)
            await ours.aclose()
            caught = [(record.method, record.path) for record in trap.records]

        assert [] == caught
        assert ["POST", "POST", "GET", "GET", "DELETE"] == [record.method for record in daytona.records]
        assert {f"Bearer {daytona.api_key}"} == {record.headers["Authorization"] for record in daytona.records}
        assert not any("theirs" in f"{record.headers} {record.body!r}" for record in daytona.records)
        assert handlers[0] is handlers[1]

    async def test_a_client_may_be_closed_and_used_again(self, sandboxes: DaytonaSandboxes) -> None:
        """Closing twice is fine; the next call opens it anew."""
        await sandboxes.aclose()
        await make(sandboxes)
        await sandboxes.aclose()
        await sandboxes.aclose()

        assert ["box"] == [one.name for one in await sandboxes.list()]


class TestTheList:
    """What the list is made of."""

    async def test_it_follows_the_pages(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """All are there, each once."""
        names = [f"box-{number:03}" for number in range(101)]
        for name in names:
            await daytona.create({"name": name, "labels": LABELS})

        assert names == sorted(one.name for one in await sandboxes.list())
        assert 2 == len(daytona.requests("GET /api/sandbox"))

    async def test_one_that_is_being_destroyed_is_known_by_the_name_it_had(
        self, daytona: Daytona, sandboxes: DaytonaSandboxes
    ) -> None:
        """Daytona takes the name away at once; the label still has it."""
        daytona.delete_delay_s = 3600
        box = await make(sandboxes)
        await sandboxes.remove("box", timeout_s=10)
        (listed,) = await sandboxes.list()

        assert (box.id, "box", "destroying") == (listed.id, listed.name, listed.state)

    async def test_labels_and_times_may_be_missing_or_odd(self, daytona: Daytona, sandboxes: DaytonaSandboxes) -> None:
        """What cannot be read is absent."""
        odd = await daytona.create({"name": "odd", "labels": {"app": "flysync", "flysync-ttl-s": "soon"}})
        item = odd.json()
        del item["createdAt"]
        daytona.faults.append(
            Fault(match="GET /api/sandbox", status=200, body=json.dumps({"items": [item], "nextCursor": None}))
        )
        (listed,) = await sandboxes.list()

        assert (odd.id, "odd", None, None) == (listed.id, listed.name, listed.ttl_s, listed.created_at)
