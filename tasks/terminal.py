"""What every command line of the house does alike: mistakes in one line, and one look of progress bars."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.base import UserError

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Print a user's mistake in one line and exit with status 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def progress_bar(*, quiet: bool, whole_rate: bool = False) -> "Progress":
    """A bar with what is done of how many, a text, and the time left; enter it with ``with``.

    Args:
        quiet: print nothing.
        whole_rate: the time left follows from the whole command, not from its last half minute: for steps of minutes.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    remaining = TimeRemainingColumn(elapsed_when_finished=whole_rate)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), remaining)
    return Progress(*columns, disable=quiet, speed_estimate_period=float("inf") if whole_rate else 30.0)
