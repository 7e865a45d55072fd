"""What every family computes with: products, look-ups and activation functions of a stack of models.

Design:

* Every tensor has a leading ``model`` axis. A member of a stack is computed bit by bit as if it were alone: products
  are explicit ``bmm`` in one operand layout, look-ups scatter their gradients in a fixed order.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tasks.models.family import Tap, untapped

_WORTH_A_CALL = 1 << 15  # elements per model
ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "identity": lambda x: x,
    "square": torch.square,
    "tanh": torch.tanh,
    # torch's own sigmoid and softplus round differently at the end of a tensor, where a member of a stack may lie
    "sigmoid": lambda x: F.logsigmoid(x).exp(),
    "softplus": lambda x: -F.logsigmoid(-x),
    "x_tanh": lambda x: x * torch.tanh(x),
    "x2_tanh": lambda x: x * x * torch.tanh(x),
}


def gather(
    table: Float[Tensor, "model row d"], index: Int[Tensor, "model batch pos"]
) -> Float[Tensor, "model batch pos d"]:
    """Row index[m, b, s] of table m. One embedding look-up: its backward pass is a scatter in a fixed order."""
    n_models, n_rows, d = table.shape
    offset = torch.arange(n_models, device=index.device).view(-1, 1, 1) * n_rows
    return F.embedding(index + offset, table.reshape(n_models * n_rows, d))


def linear(
    x: Float[Tensor, "model *rest d_in"],
    W: Float[Tensor, "model d_in d_out"],
    b: Float[Tensor, "model d_out"] | None = None,
) -> Float[Tensor, "model *rest d_out"]:
    """x W + b for each model, with the rows of x flattened."""
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    return product(flat, W, b).reshape(*x.shape[:-1], W.shape[-1])


def product(
    x: Float[Tensor, "model row d_in"], W: Float[Tensor, "model d_in d_out"], b: Float[Tensor, "model d_out"] | None
) -> Float[Tensor, "model row d_out"]:
    """x W + b for each model: one bmm, whose result may be overwritten (it is no view, but of width one)."""
    # a product of width one takes another path, and its bits depend on the stack: widen it
    if W.shape[1] == 1:
        return product(F.pad(x, (0, 1)), F.pad(W, (0, 0, 0, 1)), b)
    if W.shape[2] == 1:
        return product(x, F.pad(W, (0, 1)), None if b is None else F.pad(b, (0, 1)))[..., :1]
    return torch.bmm(x, W) if b is None else torch.baddbmm(b.unsqueeze(1), x, W)


def activation(pre: Tensor, name: str, tap: Tap) -> Tensor:
    """The activation function of that name. Untapped, ReLU overwrites ``pre``, which must then be no view."""
    return torch.relu_(pre) if name == "relu" and tap is untapped else ACTIVATIONS[name](pre)


def worth_a_call(n_elements: int, device: torch.device) -> bool:
    """Whether models with so many activations are better computed one by one than in passes over the whole stack.

    On a CPU, large ones then stay in its cache; on other devices the stack is what keeps them busy.
    """
    return device.type in ("cpu", "meta") and n_elements >= _WORTH_A_CALL  # meta stands for a CPU
