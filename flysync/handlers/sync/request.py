"""What one call of a handler wants: the same for its waiting, its run and its delivery."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flysync.handlers.sync.values import Values
from flysync.model.reports import RunRow, chosen, command
from flysync.plan import Plan, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flysync.model.core import AppName, ProjectId, ProjectView, RunId, SecretName, SyncOptions
    from flysync.ports import ProgressListener, Services
    from flysync.secret import Secret

    #: Gives the credentials that are asked for by now and were not before, with the values that came with them, if any.
    More = Callable[[], Mapping[SecretName, Secret | None]]

#: The options that are flags of the command line, too.
_FLAGS = ("stage", "verify", "force", "if_gone", "retry", "take_over")


class AppChanged(Exception):
    """The project has another app than the one that is locked."""

    def __init__(self, old: str, new: str | None) -> None:
        super().__init__("the app changed")
        self.old = old
        self.new = new


@dataclass(slots=True)
class SyncRequest:
    """Copy credentials of *project* to its app, or remove secrets from it; more of them may `join`."""

    project: ProjectId
    #: The credentials that were named; absent where all of the project's are meant.
    names: tuple[SecretName, ...] | None
    options: SyncOptions
    services: Services
    listener: ProgressListener  #: Who follows it.
    removes: bool = False
    more: More | None = None
    start: float = field(init=False)  #: When it began, by the monotonic clock.
    run_id: RunId | None = None  #: Of its own run.
    _values: Values = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.start = self.services.clock.monotonic()
        self._values = Values(decryption=self.services.decryption, removes=self.removes)

    def join(self) -> tuple[SecretName, ...]:
        """Take in what is asked for by now, and give its names; what is read next is read for them, too."""
        joined = self.more() if self.more else {}
        values = {name: value for name, value in joined.items() if value is not None}
        if joined:
            self.names = tuple(dict.fromkeys((*(self.names or ()), *joined)))
            self.options = replace(self.options, values={**self.options.values, **values})
        return tuple(joined)

    @property
    def end_at(self) -> float:
        """When it must be over, by the monotonic clock."""
        return self.start + self.options.timeout_s

    @property
    def left_s(self) -> float:
        """Seconds until it must be over."""
        return max(0.0, self.end_at - self.services.clock.monotonic())

    @property
    def is_borrowed(self) -> bool:
        """Whether the sandbox is somebody else's, and not ours to delete."""
        return self.options.sandbox is not None

    @property
    def of_all_names(self) -> str:
        """The command that syncs all credentials of the project, to the same app."""
        return command("sync-project", *chosen(project=self.project, app=self.options.app))

    def again(self) -> tuple[str, ...]:
        """Give the words of the command that does the same."""
        does = "unset" if self.removes else "sync-project" if self.names is None else "sync"
        names = [word for name in self.names or () for word in chosen(name=name)]
        value = ["--value-stdin"] if self.options.value_source == "caller" and not self.removes else []
        wait = [] if self.options.wait else ["--no-wait"]
        flags = ["--" + name.replace("_", "-") for name in _FLAGS if getattr(self.options, name)]
        return (does, *chosen(project=self.project), *names, *value, *chosen(app=self.options.app), *wait, *flags)

    async def view(self, locked: AppName | None = None) -> ProjectView:
        """
        Read everything but what our own run says of itself; and decrypt values.

        Raises:
            AppChanged: the project has another app now than the one that is *locked*.
            DecryptFailed, ConfigError: values cannot be decrypted; see `Values`.
        """
        app, values = self.options.app, self.options.value_source != "caller"
        view = await self.services.records.view(self.project, self.names, app=app, owned=self.removes, values=values)
        if locked is not None and view.app != locked:
            raise AppChanged(locked, view.app)
        others = tuple(run for run in view.open_runs if run.run_id != self.run_id)
        return await self._values.put_into(replace(view, open_runs=others), self.options)

    async def run(self, run_id: RunId) -> RunRow | None:
        """Give how a run stands; nothing where it is not known (any more)."""
        known, _ = await self.services.records.runs([run_id])
        return known.get(run_id)

    def plan(self, view: ProjectView) -> Plan:
        """Decide what is to be done, by what *view* shows; see `flysync.plan.plan`."""
        return plan(view, self.names, self.options, self.services.allowed, removes=self.removes)
