"""
Ctrl-C, SIGTERM and a terminal that closes, from the first line of the program to its last.

The first signal ends what is being done, in the way that fits the moment; the second one ends the process at once.

Until this module is loaded, a signal ends the process as any other: it imports nothing that Python has not loaded.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # what `signal` is in C; its enums take 4 ms
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def _interrupt() -> None:
    raise KeyboardInterrupt


def _nothing() -> None:
    pass


class Signals:
    """The signals of this process, as one object: `SIGNALS`."""

    def __init__(self) -> None:
        self.received: list[int] = []  #: The numbers of those received, in order.
        #: What the first one does. It is called at any point: it raises, or does next to nothing.
        self.on_first: Callable[[], None] = _nothing
        #: Says what is left before the second one ends the process; called at any point, too.
        self.on_second: Callable[[], None] = _nothing

    def catch(self) -> None:
        """Handle the signals, except those that our caller wants ignored (nohup, a job in the background)."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._receive)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt on the first one, or now if it has been received already."""
        self.on_first = _interrupt
        if self.received:
            _interrupt()

    @property
    def was_swallowed(self) -> bool:
        """Whether the exception of the first one has come to nobody who knows it: Typer makes an exit code of it."""
        return bool(self.received) and self.on_first is _interrupt

    def note(self) -> None:
        """Only note the first one: there is nothing left to end, and the result is about to be shown."""
        self.on_first = _nothing

    @property
    def exit_code(self) -> int:
        """128 plus the number of the first one, as in a shell."""
        return 128 + (self.received[0] if self.received else int(signal.SIGINT))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received.append(number)
        if len(self.received) == 1:
            self.on_first()
            return
        try:
            if len(self.received) == 2:  # noqa: PLR2004 - a third one finds the words of the second stuck
                self.on_second()
        finally:
            os._exit(self.exit_code)


SIGNALS = Signals()
