"""The caller's torch is his own: what he switched on or off changes no number here, and stays as he left it.

Notebooks of this field begin with ``torch.set_grad_enabled(False)``, ``torch.inference_mode()`` or a default of
float64. ``ordinary_torch`` puts all of them to torch's own defaults for as long as a block, or a decorated function,
runs. What remains after it: tensors that were made in inference mode cannot take part in a gradient, until ``ordinary``
copies them.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor


@contextmanager
def ordinary_torch() -> Iterator[None]:
    """Gradients on, no inference mode, no autocast, new tensors float32 on the CPU; afterwards as before."""
    dtype = torch.get_default_dtype()
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        if torch.is_autocast_enabled("cpu"):
            settings.enter_context(torch.autocast("cpu", enabled=False))
        if torch.get_default_device().type != "cpu":  # only then: it makes every call of torch slower
            settings.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        settings.callback(torch.set_default_dtype, dtype)
        yield


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor, copied where it was made in inference mode."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()
