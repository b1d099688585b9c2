"""One progress interface for every face: a terminal bar, Slicer's progress bar, a job on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from .errors import CancelledError

T = TypeVar("T")


class Progress(Protocol):
    """Hears how far a piece of work has come, and may stop it."""

    def report(self, stage: str, done: int, total: int) -> None:
        """Tell that `done` of `total` steps of `stage` are finished."""

    def cancelled(self) -> bool:
        """True once the user wants the work to stop."""


class SilentProgress:
    """Reports nothing and never cancels."""

    def report(self, stage: str, done: int, total: int) -> None:
        """Ignore the report."""

    def cancelled(self) -> bool:
        """Never."""
        return False


class CallbackProgress:
    """Forwards every report to a function.

    Args:
        on_report: Called with (stage, done, total).
        is_cancelled: Asked between steps.
    """

    def __init__(
        self,
        on_report: Callable[[str, int, int], None],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._on_report = on_report
        self._is_cancelled = is_cancelled

    def report(self, stage: str, done: int, total: int) -> None:
        """Forward to the function."""
        self._on_report(stage, done, total)

    def cancelled(self) -> bool:
        """What the function says."""
        return self._is_cancelled()


def tracked(items: Iterable[T], stage: str, total: int, progress: Progress) -> Iterator[T]:
    """Yield `items`, reporting after each.

    Raises:
        CancelledError: Between two items, when the user has cancelled.
    """
    progress.report(stage, 0, total)
    for done, item in enumerate(items, start=1):
        if progress.cancelled():
            raise CancelledError(f"Cancelled during {stage} after {done - 1} of {total} steps.")
        yield item
        progress.report(stage, done, total)
