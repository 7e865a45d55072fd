"""Two networks built by hand for sparse parity: one knows the rule, one knows the training set by heart.

Nothing here is trained. Both have one hidden ReLU layer that reads the bits and a constant 1, and one logit.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.base import UserError
from tasks.families.parity import SparseParity
from tasks.models.config import MLPConfig


def parity_network(
    task: SparseParity, d_hidden: int | None = None
) -> tuple[MLPConfig, dict[str, Float[Tensor, "d_in d_out"]]]:
    """A network of k + 1 neurons that answers the parity of the k relevant bits, with a logit of ±1.

    All neurons read the sum z of these bits: the logit −2 relu(½ − z) + relu(z) − 3 relu(z − 1) + 4 relu(z − 2) −
    4 relu(z − 3) + … is −1, 1, −1, … at z = 0, 1, 2, …. The norms of what they read from bits are k + 1, k, …, 1 in
    this order, and every proper beginning of the sum is wrong at the first z that it lacks: the smallest set of
    neurons of largest norm that answers as rightly as the network is the whole of it.

    Args:
        task: which bits.
        d_hidden: width; neurons beyond k + 1 have weights 0. ``None``: k + 1.

    Raises:
        UserError: a width below k + 1.
    """
    k, width = task.k, task.k + 1 if d_hidden is None else d_hidden
    if width <= k:
        raise UserError(f"expected d_hidden of at least k + 1 = {k + 1}, got {d_hidden}")
    config = _config(task, width)
    W_in, W_U = torch.zeros(config.d_model, width), torch.zeros(width, 1)
    W_in[:k, 0], W_in[-1, 0] = -1.0, 0.5
    W_in[:k, 1 : k + 1], W_in[-1, 1 : k + 1] = 1.0, -torch.arange(k).float()
    W_U[: k + 1, 0] = torch.tensor([-2.0, 1.0, *(-3.0 if j == 1 else 4.0 * (-1) ** j for j in range(1, k))])
    scale = torch.arange(k + 1, 0, -1) / math.sqrt(k)
    W_in[:, : k + 1] *= scale
    W_U[: k + 1] /= scale.unsqueeze(1)
    return config, {"layers.0.W_in": W_in, "unembed.W_U": W_U}


def parity_table(task: SparseParity) -> tuple[MLPConfig, dict[str, Float[Tensor, "d_in d_out"]]]:
    """A network that knows the training set by heart: a neuron per example fires on it alone and writes its answer.

    On any other input no neuron fires and the logit is 0, which is the answer 0: right as often as parity is even.
    """
    examples = task.train_set()
    inputs = examples.inputs.float()
    config = _config(task, len(inputs))
    W_in = torch.cat([2 * inputs.T - 1, 1 - inputs.sum(1).unsqueeze(0)])  # agreeing bits − disagreeing − ones + 1
    W_U = (2.0 * examples.targets - 1).unsqueeze(1)
    return config, {"layers.0.W_in": W_in, "unembed.W_U": W_U}


def _config(task: SparseParity, width: int) -> MLPConfig:
    return MLPConfig(n_ctx=task.n_ctx, d_vocab=2, d_vocab_out=2, d_hidden=(width,), constant_input=True, one_logit=True)
