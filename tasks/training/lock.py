"""One training at a time in a run folder: whoever trains holds the lock of every folder it writes.

The system frees the locks of a process that dies, whatever killed it. The lock files stay: to delete one that another
process waits for would let two in.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.base import UserError

LOCK = ".lock"


@contextmanager
def sole_writer(folders: Iterable[Path]) -> Iterator[None]:
    """Hold the locks of these folders, which are made where they are missing.

    Raises:
        UserError: another training holds one, or a folder cannot be written.
    """
    with ExitStack() as held:
        for folder in sorted({folder.absolute() for folder in folders}):  # one order for all: nobody waits in a circle
            try:
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(folder / LOCK, blocking=False))
            except Timeout:
                raise UserError(
                    f"another process is training in {folder}: wait until it has ended, or choose another folder"
                ) from None
            except OSError as error:
                raise UserError(
                    f"expected a place for a run folder at {folder}: {error.strerror}, choose another"
                ) from error
        yield
