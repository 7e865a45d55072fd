"""MLPs with one hidden layer that add modulo p, written down in closed form: known answers beside
``tasks.models.constructed``.

* ``gromov`` adds with squares of waves of random phase, one frequency per neuron (Gromov 2023, arXiv 2301.02679);
* ``circle_network`` doubles an angle on one circle with N neurons (Pearce et al. 2023, "constructed solution").

Weights are float64: the identities hold to 1e-13, and where two answers nearly tie nothing is lost to rounding.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.base import UserError, generator
from tasks.families.modular import ModularArithmetic
from tasks.models.config import MLPConfig
from tasks.models.mlp import shapes


class ConstructedMLP(NamedTuple):
    """An MLP written down by hand: its configuration and its parameters, without a model axis."""

    config: MLPConfig
    params: dict[str, Float[Tensor, "..."]]


def gromov(task: ModularArithmetic, width: int, *, seed: int = 0) -> ConstructedMLP:
    """Addition mod p by f(a, b) = W (U e_a + V e_b)², squares elementwise.

    U_ka = A cos(2πka/p + φ_k), V_kb = A cos(2πkb/p + ψ_k), W_ck = A cos(−2πkc/p − φ_k − ψ_k) for neurons k = 1 … width,
    with random phases φ, ψ. The square holds A² cos(2πk(a+b)/p + φ_k + ψ_k), which is in phase with W: over k these add
    up at c = a + b, while all else has random phases and cancels as the width grows. At p = 97 that is 99.7 % of
    answers with 97 neurons, all from 150 on. A = (2/width)^⅓ keeps logits of order 1 and decides nothing.

    ``layers.0.W_in`` holds U, V (and 0 for "=") as rows of tokens, ``unembed.W_U`` is W transposed.

    Args:
        task: addition mod p.
        width: number of neurons; neuron k has frequency k mod p.
        seed: of the phases.

    Raises:
        UserError: another operation, or no neuron.
    """
    _check(task, width)
    phases = 2 * torch.pi * torch.from_numpy(generator(seed, "phases of the quadratic network").random((2, width)))
    config = MLPConfig(
        n_ctx=task.n_ctx,
        d_vocab=task.d_vocab,
        d_vocab_out=task.d_vocab_out,
        d_hidden=(width,),
        input="one_hot",
        act_fn="square",
    )
    params = _zeros(config)
    amplitude, angle = (2 / width) ** (1 / 3), _angles(task.p, torch.arange(1, width + 1))
    for position, phase in enumerate(phases):
        first = position * (task.d_vocab + task.diff_vocab * task.p)
        params["layers.0.W_in"][first : first + task.p] = amplitude * (angle + phase).cos()
    params["unembed.W_U"][:] = amplitude * (angle + phases.sum(0)).cos().T
    return ConstructedMLP(config, params)


def circle_network(
    task: ModularArithmetic, n_neurons: int, activation: Literal["square", "relu"] = "square"
) -> ConstructedMLP:
    """Addition mod p on the circle E_a = (cos ωa, sin ωa), ω = 2π/p, by doubling the angle of E_a + E_b.

    W_in,i = (cos iθ, sin iθ), W_out,i = (cos 2iθ, sin 2iθ), θ = 2π/N; the result is read along the circle again. With
    squares the logits are N cos²(ω(a−b)/2) cos ω(a+b−c) exactly, for N = 3 and N ≥ 5; N = 4 aliases. With ReLUs the
    angle is right up to harmonics, which fall as N grows, more slowly for even N: mod 67 all answers are right for
    N = 5 and 7, 64 % for N = 8. Where a − b is half of an even p, E_a + E_b = 0 and the answer is lost.

    Args:
        task: addition mod p.
        n_neurons: N.
        activation: of the neurons.

    Raises:
        UserError: another operation, or no neuron.
    """
    _check(task, n_neurons)
    config = MLPConfig(
        n_ctx=task.n_ctx,
        d_vocab=task.d_vocab,
        d_vocab_out=task.d_vocab_out,
        d_hidden=(n_neurons,),
        input="embedding",
        d_embed=2,
        act_fn=activation,
        tied_unembedding=True,
    )
    params = _zeros(config)
    circle = _circle(_angles(task.p, torch.ones(1, dtype=torch.int64)).flatten())
    for table in range(1 + task.diff_vocab):
        params["embed.W_E"][table * task.p : (table + 1) * task.p] = circle
    theta = 2 * torch.pi / n_neurons * torch.arange(n_neurons, dtype=torch.float64)
    params["layers.0.W_in"][:] = _circle(theta).T
    params["unembed.W_out"][:] = _circle(2 * theta)
    return ConstructedMLP(config, params)


def _check(task: ModularArithmetic, n_neurons: int) -> None:
    if task.operation != "add":
        raise UserError(f"expected addition mod p, got {task.operation}")
    if n_neurons < 1:
        raise UserError(f"expected at least one neuron, got {n_neurons}")


def _zeros(config: MLPConfig) -> dict[str, Tensor]:
    return {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes(config).items()}


def _angles(p: int, frequencies: Tensor) -> Float[Tensor, "p frequency"]:
    """2πkx/p for x = 0 … p − 1; products are reduced as integers, so that the angle is exact to rounding."""
    turns = (torch.outer(torch.arange(p), frequencies) % p).double()
    return 2 * torch.pi / p * turns


def _circle(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    return torch.stack([angle.cos(), angle.sin()], dim=1)
