"""A progress bar on terminals, silence elsewhere."""

import sys
from types import TracebackType


class Progress:
    """Shows how much of some work is done.

    >>> with Progress("training", 10, show=False) as bar:
    ...     bar.advance(10)
    """

    def __init__(self, label: str, total: float, *, show: bool):
        self._bar = None
        self._label, self._total = label, total
        self._show = show and sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        if self._show:
            from rich.console import Console
            from rich.progress import Progress as Bar

            # Rich would send what is printed meanwhile to its own stream, out of a pipe's reach.
            self._bar = Bar(console=Console(stderr=True), transient=True, redirect_stdout=False)
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._total)
        return self

    def advance(self, amount: float) -> None:
        if self._bar is not None:
            self._bar.advance(self._task, amount)

    def say(self, what: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._label}: {what}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
