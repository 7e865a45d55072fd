"""What processor, allocator and compiler are asked for while models train. Without a compiler no result changes, but
that numbers below 1e-38 become 0."""

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tasks.base import UserError

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # parameters of glibc's mallopt
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


@contextmanager
def tuned_for_training() -> Iterator[None]:
    """Denormals count as 0, and freed memory is kept, for as long as the block runs."""
    with _denormals_as_zero(), _freed_memory_kept():
        yield


@contextmanager
def _denormals_as_zero() -> Iterator[None]:
    """Numbers below 1e-38 count as 0: on a memorised training set most gradients are, and processors take them slowly.

    A step of the published modular-addition model, once it has memorised, takes about a third of the time with it.
    """
    before = float(torch.tensor(1e-30) * torch.tensor(1e-10)) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """glibc returns large blocks to the system when they are freed, and every step pays for fresh pages again.

    Keeping them makes a step up to a fifth faster where activations are tens of megabytes. glibc adapts its thresholds
    until the first call of mallopt and never again; afterwards they are set to the largest that it adapts to. Elsewhere
    than on glibc, or where the environment already says what to do, nothing changes.
    """
    chosen = "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in _CHOSEN)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if chosen or libc is None or not hasattr(libc, "gnu_get_libc_version"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.mallopt(_MMAP_MAX, 65536)
        libc.malloc_trim(0)


def check_compiler() -> None:
    """Refuse, before anything is written, what ``torch.compile`` would fail at on its first step.

    Raises:
        UserError: no C++ compiler, where ``torch.compile`` looks for one.
    """
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise UserError(f"expected the C++ compiler {name} for a compiled training, found none: do without, or set CXX")
