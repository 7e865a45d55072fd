"""The processor that numbers are computed on, and the setting under which stacked models have the bits of each alone.

MKL, with which torch multiplies matrices on x86, picks a kernel by shape: for a batch of small products another one
than for each of them alone, and the two round differently. With ``MKL_CBWR`` set, MKL keeps to one order of sums. MKL
reads the variable at its first product, so it is enough to set it before that, even where torch is loaded already.
Importing ``tasks`` sets it, unless it is set already (to nothing, it stays off); ``interp``, both command lines and
the workers of sweeps all import ``tasks``.
"""

import os
import platform
import warnings
from functools import cache
from pathlib import Path
from typing import Any

SETTING = "MKL_CBWR"
VALUE = "AUTO"  # the fastest kernels of this processor, in one order of sums
_ODD_SHAPES = ((87, 31, 21), (200, 35, 14), (21, 87, 31), (1_000, 31, 16))
"""Rows, sums and columns of products at which MKL's kernels are known to differ, or might."""


class BitsNotKept(UserWarning):
    """A member of a stack will not have the bits of the model trained alone."""


def ask_for_one_order_of_sums() -> None:
    """Set ``MKL_CBWR`` for this process and those that it starts, where nobody has."""
    os.environ.setdefault(SETTING, VALUE)


@cache
def stack_equals_alone() -> bool:
    """Whether batched products have the bits of single ones here, on one thread, tried on shapes that tell."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return all(
            _batched_equals_single(*shape, dtype) for shape in _ODD_SHAPES for dtype in (torch.float32, torch.float64)
        )
    finally:
        torch.set_num_threads(threads)


def _batched_equals_single(rows: int, sums: int, columns: int, dtype: Any) -> bool:
    """Whether three products of this shape have the same bits taken at once and one by one."""
    import torch

    # sines have no short binary form: any other order of sums shows
    left = torch.arange(1.0, 3 * rows * sums + 1, dtype=dtype, device="cpu").sin().view(3, rows, sums)
    right = torch.arange(1.0, 3 * sums * columns + 1, dtype=dtype, device="cpu").cos().view(3, sums, columns)
    alone = [torch.bmm(left[model : model + 1], right[model : model + 1]) for model in range(3)]
    return torch.equal(torch.bmm(left, right), torch.cat(alone))


def warn_where_bits_differ() -> None:
    """Say in one line that stacks round differently in this process, and what to do."""
    if not stack_equals_alone():
        warnings.warn(
            "on this processor a stack of models rounds differently from each model alone: import tasks before torch "
            f"multiplies its first matrices, or set {SETTING}={VALUE}",
            BitsNotKept,
            stacklevel=3,
        )


def describe() -> dict[str, str | bool | None]:
    """What ``config.json`` records: processor, instructions, setting, and whether stacked models equal lone ones."""
    import torch

    return {
        "processor": _processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        SETTING.lower(): os.environ.get(SETTING),
        "stack_equals_alone": stack_equals_alone(),
    }


@cache
def _processor_name() -> str:
    """The model name that Linux gives, elsewhere what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
