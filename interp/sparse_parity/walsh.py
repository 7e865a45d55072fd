"""Answers to bits as a Boolean function: which parities they follow, and which bits decide them.

Bits are 0 and 1, answers too; a parity of a subset S of bits answers 1 where an odd number of them is 1. Every function
of n bits is a sum of parities, (−1)^answer = Σ_S c_S Π_{i ∈ S} (−1)^x_i with Σ c_S² = 1 (O'Donnell 2014, *Analysis of
Boolean Functions*, chapters 1 and 2); c_S is the Fourier–Walsh coefficient of S.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tasks.base import generator

N_SAMPLES = 4096
_AT_ONCE = 512


def bit_strings(n_bits: int, n_samples: int = N_SAMPLES, seed: int = 0) -> Int[Tensor, "example {n_bits}"]:
    """Every input of n_bits where there are at most ``n_samples`` of them, otherwise so many drawn from all.

    >>> bit_strings(2).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    if 2**n_bits <= n_samples:
        return torch.arange(2**n_bits).unsqueeze(1) >> torch.arange(n_bits) & 1
    return torch.from_numpy(generator(seed, "bit strings").integers(0, 2, (n_samples, n_bits)))


def walsh_coefficient(
    answers: Int[Tensor, " example"], inputs: Int[Tensor, "example bit"], subset: Sequence[int]
) -> float:
    """c_S, the mean of (−1)^answer Π_{i ∈ S} (−1)^x_i: 1 where the answer is the parity of S, −1 where it never is.

    It is 2·accuracy − 1 of the rule "the parity of S". A sample of N inputs leaves about ±1/√N where it is 0.

    >>> walsh_coefficient(torch.tensor([0, 1, 1, 0]), bit_strings(2), (0, 1))
    1.0
    """
    agrees = answers == inputs[:, list(subset)].sum(1) % 2
    return float(2 * agrees.double().mean() - 1)


def largest_coefficient(
    answers: Int[Tensor, " example"],
    inputs: Int[Tensor, "example bit"],
    *,
    degree: int = 3,
    besides: Sequence[int] | None = None,
) -> tuple[tuple[int, ...], float]:
    """The subset of at most ``degree`` bits with the largest |c_S|, and its c_S.

    All subsets are looked at but ``besides``, also the empty one, whose coefficient is 1 where the answer is always 0.

    Misleads in a sample: of m coefficients that are 0 the largest of N inputs is about √(2 ln m/N), .06 for all subsets
    of up to three of 30 bits and N = 4096.
    """
    signs = (1.0 - 2.0 * inputs).T.contiguous()
    sign = 1.0 - 2.0 * answers
    found: tuple[tuple[int, ...], float] = ((), 0.0 if besides == () else float(sign.mean()))
    for size in range(1, min(degree, len(signs)) + 1):
        for subsets in torch.combinations(torch.arange(len(signs)), size).split(_AT_ONCE):
            coefficients = signs[subsets].prod(1) @ sign / len(sign)
            if besides is not None and len(besides) == size:
                coefficients[(subsets == torch.tensor(sorted(besides))).all(1)] = 0.0
            best = int(coefficients.abs().argmax())
            if abs(float(coefficients[best])) > abs(found[1]):
                found = tuple(subsets[best].tolist()), float(coefficients[best])
    return found


def influences(answer: Callable[[Tensor], Tensor], inputs: Int[Tensor, "example bit"]) -> Float[Tensor, " bit"]:
    """Share of inputs on which the answer changes with each bit.

    Their sum is the sensitivity Σ_S |S| c_S²: k for a parity of k bits, n/2 on average for answers drawn at random, 0
    for an answer that never changes.

    Args:
        answer: takes inputs and returns the answer to each.
        inputs: a sample, or all there are.
    """
    before, changed = answer(inputs), []
    for bit in range(inputs.shape[1]):
        flipped = inputs.clone()
        flipped[:, bit] = 1 - flipped[:, bit]
        changed.append((answer(flipped) != before).double().mean())
    return torch.stack(changed)
