"""What processor and allocator are asked for while models train. Neither changes a result that anyone could notice:
numbers below 1e-38 become 0."""

import ctypes
import ctypes.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of mallopt, and their defaults in glibc
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_MAX: 65536}


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
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """glibc returns large blocks to the system when they are freed, and every step pays for fresh pages again.

    Keeping them makes a step up to a fifth faster where activations are tens of megabytes. Elsewhere than on glibc, or
    where its environment variables already say what to do, nothing changes.
    """
    name = ctypes.util.find_library("c")
    libc = ctypes.CDLL(name) if name else None
    if (
        libc is None
        or not hasattr(libc, "gnu_get_libc_version")
        or any(key.startswith("MALLOC_") for key in os.environ)
    ):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)
