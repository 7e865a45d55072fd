"""How much memory a stack of models takes while it trains, and how large a stack fits.

What a step holds is counted, not guessed: the loss of one model is built on tensors that have shapes but no contents,
and every tensor that its backward pass will need is added up.
"""

import re
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tasks.base import Task, UserError
from tasks.registry import model_family
from tasks.training.config import TrainingConfig
from tasks.training.objective import CHUNK, cross_entropy

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_COPIES = 5  # of the parameters: values, gradients, two moments, and the gradients as they leave the backward pass
_IN_FLIGHT = 4  # tensors of the largest size that a pass holds at once, besides what was saved for the backward one


def parse_bytes(text: str) -> int:
    """Number of bytes that ``8GB``, ``500 MiB`` or ``2e9`` says; a G is 10⁹, a Gi 2³⁰.

    >>> parse_bytes("1.5GB")
    1500000000

    Raises:
        UserError: something else, or nothing left of it.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if match is None or match[2] not in _UNITS or int(float(match[1]) * _UNITS[match[2]]) < 1:
        raise UserError(f"expected an amount of memory such as 8GB or 500MiB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def model_bytes(task: Task, model: Any, training: TrainingConfig) -> int:
    """Bytes that each model of a stack adds while it trains: parameters, optimiser, activations, evaluation.

    Not counted: the data, which the models share, and the interpreter with its libraries (some 300 MB on CPU).
    """
    family = model_family(model)
    train_set = task.train_set()
    batch = train_set.inputs[: training.batch_size or len(train_set)].to("meta")
    prepared = family.prepare(train_set.inputs).to("meta")
    dtype = getattr(torch, training.dtype)
    params = {
        name: torch.empty((1, *shape), dtype=dtype, device="meta", requires_grad=True)
        for name, shape in family.shapes(model).items()
    }
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = tensor  # a view keeps its whole storage alive, once
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=training.autocast == "bfloat16"):
            logits = family.forward(
                params, batch.unsqueeze(0), model, answer_position=task.answer_position, prepared=prepared
            )
        cross_entropy(logits[:, :, 0], torch.empty((1, len(batch)), dtype=torch.int64, device="meta")).sum()
    weights = {parameter.untyped_storage()._cdata for parameter in params.values()}
    activations = [tensor for key, tensor in saved.items() if key not in weights]
    held = [tensor.untyped_storage().nbytes() for tensor in activations]
    step = sum(held) + _IN_FLIGHT * max(held)

    evaluated = max(len(examples) for examples in task.evaluation_sets().values())
    answers = 2 * evaluated * task.d_vocab_out * dtype.itemsize
    entries = max(tensor.numel() for tensor in activations) / len(batch)
    evaluation = answers + int(_IN_FLIGHT * entries * min(evaluated, CHUNK)) * dtype.itemsize
    n_parameters = sum(parameter.numel() for parameter in params.values())
    return _COPIES * n_parameters * dtype.itemsize + max(step, evaluation)


def largest_stack(task: Task, model: Any, training: TrainingConfig, budget: int) -> int:
    """Number of models that train together within ``budget`` bytes.

    Raises:
        UserError: not even one does.
    """
    each = model_bytes(task, model, training)
    if each > budget:
        raise UserError(f"expected memory for one model, {each / 1e9:.2g} GB, got {budget / 1e9:.2g} GB")
    return budget // each
