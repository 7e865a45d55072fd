"""How much memory a stack of models takes while it trains, and how large a stack fits.

What a step saves for its backward pass is counted, not guessed: the loss of stacks of two sizes is built on tensors
that have shapes but no contents, and every tensor that is kept is added up. What is in flight besides is a measured
allowance.
"""

import math
import re
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tasks.base import EndlessTask, Task, UserError, answer_positions
from tasks.registry import model_family
from tasks.training.config import TrainingConfig
from tasks.training.objective import CHUNK, mean_loss
from tasks.training.optimizer import optimizer_class

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_KEPT = 2  # copies of the parameters: values and gradients; and what the optimiser keeps
_WRITING = 3  # copies more of each that the resume file holds, while it is written or read or a member leaves the stack
_IN_FLIGHT = 4  # tensors of the largest size that a pass holds at once, besides what it saved
_FEW = 32  # models, so many that what they share is not the largest


def parse_bytes(text: str) -> int:
    """Number of bytes that ``8GB``, ``500 MiB`` or ``2e9`` says; a G is 10⁹, a Gi 2³⁰.

    >>> parse_bytes("1.5GB")
    1500000000

    Raises:
        UserError: something else, or nothing left of it.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    amount = float(match[1]) * _UNITS.get(match[2], math.nan) if match else math.nan
    if not 1 <= amount < math.inf:
        raise UserError(f"expected an amount of memory such as 8GB or 500MiB, got {text!r}")
    return int(amount)


def model_bytes(task: Task, model: Any, training: TrainingConfig) -> int:
    """Bytes that each model of a stack adds: parameters, optimiser, activations, evaluation, resume file.

    Not counted: the data, which the models share, and the interpreter with its libraries (some 300 MB on CPU).
    """
    few, many = (_stack_bytes(task, model, training, n_models) for n_models in (_FEW, 2 * _FEW))
    return (many - few) // _FEW


def largest_stack(task: Task, model: Any, training: TrainingConfig, budget: int) -> int:
    """Number of models that train together within ``budget`` bytes.

    Raises:
        UserError: not even one does.
    """
    each = model_bytes(task, model, training)
    if each > budget:
        raise UserError(f"expected memory for one model, {each / 1e9:.2g} GB, got {budget / 1e9:.2g} GB")
    return budget // each


def _stack_bytes(task: Task, model: Any, training: TrainingConfig, n_models: int) -> int:
    """Bytes of a stack; some of them, such as what models take one after the other, it takes once."""
    family, dtype = model_family(model), getattr(torch, training.dtype)
    evaluated = max(task.evaluation_sets().values(), key=len)
    if isinstance(task, EndlessTask) and training.batch_size is not None:
        seen, prepared = task.batch(0, 0, training.batch_size), None
    else:
        seen = task.train_set()
        prepared = family.prepare(seen.inputs).to("meta")
    params = {
        name: torch.empty((n_models, *shape), dtype=dtype, device="meta", requires_grad=True)
        for name, shape in family.shapes(model).items()
    }
    parameters = sum(tensor.untyped_storage().nbytes() for tensor in params.values())
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:  # a view keeps its whole storage alive
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    def shared(values: Tensor) -> Tensor:
        return values.to("meta").expand(n_models, *values.shape)

    inputs, targets = (shared(values[: training.batch_size]) for values in (seen.inputs, seen.targets))
    drawn = 0
    if training.batch_size is not None:  # each model has a batch of its own
        inputs, targets = inputs.contiguous(), targets.contiguous()
        drawn = inputs.nbytes + targets.nbytes
    with saved_tensors_hooks(keep, lambda tensor: tensor), _Largest() as made:
        mean_loss(
            params,
            inputs,
            targets,
            family,
            model,
            answer_positions(task),
            prepared,
            training.autocast,
            training.objective,
            training.loss_dtype,
        )
    for tensor in params.values():
        saved.pop(tensor.untyped_storage()._cdata, None)
    backward = parameters + drawn + sum(saved.values()) + _IN_FLIGHT * made.bytes
    with torch.no_grad(), _Largest() as made:
        family.forward(
            params, shared(evaluated.inputs[:CHUNK]), model, answer_position=answer_positions(task), prepared=prepared
        )
    evaluation = _IN_FLIGHT * made.bytes
    answers = len(evaluated) * len(answer_positions(task))
    evaluation += 2 * n_models * answers * task.d_vocab_out * dtype.itemsize  # all of them, in chunks and joined
    moments = len(optimizer_class(training.optimizer).KEEPS)
    kept = _KEPT + moments + (training.grokfast > 0)  # the average of the gradients
    return kept * parameters + max(backward, evaluation, _WRITING * (1 + moments) * parameters)


class _Largest(TorchDispatchMode):
    """Bytes of the largest tensor that is made while this lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.is_meta:
                self.bytes = max(self.bytes, made.untyped_storage().nbytes())
        return result
