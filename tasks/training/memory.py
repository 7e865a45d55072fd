"""How much memory a stack of models takes while it trains, and how large a stack fits.

What a step saves for its backward pass is counted, not guessed: the loss of one model is built on tensors that have
shapes but no contents, and every tensor that is kept is added up. What is in flight besides is a measured allowance.
"""

import math
import re
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tasks.base import Examples, Task, UserError
from tasks.registry import model_family
from tasks.training.config import TrainingConfig
from tasks.training.objective import CHUNK, losses

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_KEPT = 4  # copies of the parameters: values, gradients and two moments
_WRITING = 9  # copies more while the resume file is written or read, or a member leaves the stack
_IN_FLIGHT = 4  # tensors of the largest size that a pass holds at once, besides what it saved


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
    train_set = task.train_set()
    evaluated = max(task.evaluation_sets().values(), key=len)
    itemsize = getattr(torch, training.dtype).itemsize
    shapes = model_family(model).shapes(model)
    parameters = sum(math.prod(shape) for shape in shapes.values()) * itemsize

    step = _saved(task, model, training, train_set, training.batch_size)
    backward = parameters + sum(tensor.untyped_storage().nbytes() for tensor in step)
    backward += _IN_FLIGHT * max(tensor.untyped_storage().nbytes() for tensor in step)
    chunk = _saved(task, model, training, evaluated, CHUNK)
    evaluation = (_IN_FLIGHT * max(tensor.numel() for tensor in chunk)) * itemsize
    evaluation += 2 * len(evaluated) * task.d_vocab_out * itemsize  # all answers, in chunks and joined
    kept = _KEPT + (training.grokfast > 0)  # the average of the gradients
    return kept * parameters + max(backward, evaluation, _WRITING * parameters)


def largest_stack(task: Task, model: Any, training: TrainingConfig, budget: int) -> int:
    """Number of models that train together within ``budget`` bytes.

    Raises:
        UserError: not even one does.
    """
    each = model_bytes(task, model, training)
    if each > budget:
        raise UserError(f"expected memory for one model, {each / 1e9:.2g} GB, got {budget / 1e9:.2g} GB")
    return budget // each


def _saved(task: Task, model: Any, training: TrainingConfig, examples: Examples, size: int | None) -> list[Tensor]:
    """What the loss of one model on a batch of that size saves for its backward pass, each storage once, without the
    parameters."""
    family = model_family(model)
    inputs, targets = examples.inputs[:size], examples.targets[:size]
    dtype = getattr(torch, training.dtype)
    params = {
        name: torch.empty((1, *shape), dtype=dtype, device="meta", requires_grad=True)
        for name, shape in family.shapes(model).items()
    }
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor  # a view keeps its whole storage alive
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=training.autocast == "bfloat16"):
            logits = family.forward(
                params,
                inputs.to("meta").unsqueeze(0),
                model,
                answer_position=task.answer_position,
                prepared=family.prepare(inputs).to("meta"),
            )
        losses(logits[:, :, 0], targets.to("meta").unsqueeze(0), training.objective, training.loss_dtype).sum()
    weights = {parameter.untyped_storage()._cdata for parameter in params.values()}
    return [tensor for key, tensor in saved.items() if key not in weights]
