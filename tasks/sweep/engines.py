"""Where a sweep's jobs run: in this process, in worker processes of this machine (loky), or on a Dask cluster."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import Any, Literal, Protocol, runtime_checkable

from tasks.base import UserError

EngineName = Literal["loky", "dask", "here"]
Outcome = Literal["over", "held", "apart", "died"]
"""``over``: each cell is finished or has failed; ``held``: by another command; ``apart``: they failed together, and
only apart will show which of them is at fault; ``died``: the worker did."""


@runtime_checkable
class Engine(Protocol):
    """Workers that run jobs."""

    slots: int
    """Jobs that may be submitted at once."""

    def submit(self, function: Callable[..., Outcome], **task: Any) -> Future[Outcome]:
        """The outcome of ``function(**task)``, in time. Each submission is followed by one ``outcome``."""
        ...

    def outcome(self, future: Future[Outcome]) -> Outcome:
        """The outcome of a future that is done; ``died`` where its worker did. What the function raised, it raises."""
        ...

    def close(self) -> None:
        """End the workers, whatever they do."""
        ...


class Here:
    """Jobs run one after the other in this process."""

    slots = 1

    def submit(self, function: Callable[..., Outcome], **task: Any) -> Future[Outcome]:
        """The outcome, once there is one."""
        import torch

        future: Future[Outcome] = Future()
        threads = torch.get_num_threads()
        try:
            future.set_result(function(**task))
        finally:
            torch.set_num_threads(threads)
        return future

    def outcome(self, future: Future[Outcome]) -> Outcome:
        """As it is."""
        return future.result()

    def close(self) -> None:
        """Nothing."""


class Loky:
    """Worker processes, each a loky pool of its own: one that dies breaks no other's pool."""

    def __init__(self, slots: int | None) -> None:
        from joblib import cpu_count

        self.slots = slots or cpu_count()
        self._free = list(reversed(range(self.slots)))
        self._pools: dict[int, Any] = {}
        self._at: dict[Future[Outcome], int] = {}

    def submit(self, function: Callable[..., Outcome], **task: Any) -> Future[Outcome]:
        """The outcome in a free worker."""
        slot = self._free.pop()
        given = {"slot": slot, "parent": os.getpid(), **task}
        try:
            future = self._pool(slot).submit(function, **given)
        except BrokenExecutor:  # its worker died while it had nothing to do
            self._pools.pop(slot).shutdown(kill_workers=True)
            future = self._pool(slot).submit(function, **given)
        self._at[future] = slot
        return future

    def _pool(self, slot: int) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        if slot not in self._pools:
            self._pools[slot] = ProcessPoolExecutor(max_workers=1, env={"OMP_NUM_THREADS": "1"})
        return self._pools[slot]

    def outcome(self, future: Future[Outcome]) -> Outcome:
        """The outcome; a broken pool is replaced."""
        slot = self._at.pop(future)
        self._free.append(slot)
        try:
            return future.result()
        except BrokenExecutor:
            self._pools.pop(slot).shutdown(kill_workers=True)
            return "died"

    def close(self) -> None:
        """Kill the workers."""
        for pool in self._pools.values():
            pool.shutdown(kill_workers=True)


class Dask:
    """Workers of a Dask cluster; its scheduler gets all jobs at once and may gain and lose workers at any time."""

    slots = sys.maxsize

    def __init__(self, scheduler: Any) -> None:
        if scheduler is None:
            raise UserError("expected the address of a Dask scheduler, such as tcp://host:8786: give --scheduler")
        try:
            from distributed import Client
        except ImportError as error:
            raise UserError("expected dask and distributed for engine dask: pip install 'rulelens[cluster]'") from error
        self._where = scheduler
        try:
            self._client = Client(scheduler, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"expected a Dask scheduler at {scheduler}, none answers: {error}") from error
        self._executor = self._client.get_executor(pure=False)

    def submit(self, function: Callable[..., Outcome], **task: Any) -> Future[Outcome]:
        """The outcome in some worker of the cluster."""
        return self._executor.submit(function, **task)

    def outcome(self, future: Future[Outcome]) -> Outcome:
        """The outcome; Dask gives a job up when several workers died of it."""
        from distributed import CancelledError as Cancelled
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            return "died"
        except (CancelledError, Cancelled, CommClosedError) as error:
            raise UserError(f"lost the Dask scheduler at {self._where}: the same command continues") from error

    def close(self) -> None:
        """Leave the cluster; jobs that have not begun are dropped, workers finish what they do."""
        self._client.close()


def workers_of(name: EngineName, n_jobs: int | None, scheduler: Any) -> Engine:
    """The workers of an engine.

    Raises:
        UserError: no such engine, or no scheduler for ``dask``.
    """
    match name:
        case "loky":
            return Loky(n_jobs)
        case "dask":
            return Dask(scheduler)
        case "here":
            return Here()
    raise UserError(f"expected an engine among loky, dask, here, got {name!r}")
