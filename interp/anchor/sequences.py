"""Sequences of anchor composition in pairs that differ in one thing: a base, and a source to take something from."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.anchor.roles import key_positions
from tasks.base import generator
from tasks.families.anchor import AnchorComposition, Pair


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences with the same key position: their tokens, and what they ask."""

    tokens: Int[np.ndarray, "example pos"]
    keys: Int[np.ndarray, " example"]
    pairs: list[Pair]
    at: int

    @property
    def inputs(self) -> Int[Tensor, "example pos"]:
        """The sequences as a tensor."""
        return torch.from_numpy(self.tokens)

    def holding(self, *, keys: Int[np.ndarray, " example"] | None = None, pairs: list[Pair] | None = None) -> "Batch":
        """The same sequences with other keys or pairs written into them."""
        keys, pairs = self.keys if keys is None else keys, self.pairs if pairs is None else pairs
        tokens = self.tokens.copy()
        tokens[:, self.at] = keys
        tokens[:, self.at + 1 : self.at + 3] = np.array(pairs)
        return Batch(tokens=tokens, keys=keys, pairs=pairs, at=self.at)

    def answers(self, task: AnchorComposition) -> Int[Tensor, " example"]:
        """What the rule answers."""
        return torch.tensor([task.composed(pair, int(x)) for pair, x in zip(self.pairs, self.keys, strict=True)])


def composed_pairs(task: AnchorComposition) -> list[Pair]:
    """Pairs taught by the rule, on which both candidate rules agree."""
    return [pair for pair in task.pairs if task.role(pair) == "composed" and not task.rules_differ(pair)]


def base_batches(task: AnchorComposition, n_sequences: int, seed: int) -> list[Batch]:
    """Base sequences with seen keys, one batch per key position."""
    places, pairs = key_positions(task), composed_pairs(task)
    batches = []
    for at in places:
        rng = generator(seed, "interchange", at)
        keys = rng.choice(_seen(task, at), size=max(n_sequences // len(places), 2))
        drawn = [pairs[index] for index in rng.integers(len(pairs), size=len(keys))]
        noise = rng.integers(task.key_low, task.key_high + 1, size=(len(keys), task.sequence_length))
        batches.append(Batch(tokens=noise, keys=keys, pairs=drawn, at=at).holding())
    return batches


def source_of(task: AnchorComposition, batch: Batch, changes: tuple[str, ...], seed: int) -> Batch:
    """The batch with other keys, anchors or pairs; every sequence changes in each of ``changes``."""
    rng = generator(seed, "source", batch.at, *changes)
    keys, pairs, seen, composed = batch.keys.copy(), list(batch.pairs), _seen(task, batch.at), composed_pairs(task)
    for index in range(len(keys)):
        if "key" in changes:
            keys[index] = rng.choice(seen[seen != keys[index]])
        if "pair" in changes:
            first, second = pairs[index]
            others = [(a, b) for a, b in composed if a != first and b != second and (a, b) != (second, first)]
        elif "first anchor" in changes:
            others = [pair for pair in composed if pair[1] == pairs[index][1] and pair != pairs[index]]
        elif "second anchor" in changes:
            others = [pair for pair in composed if pair[0] == pairs[index][0] and pair != pairs[index]]
        else:
            continue
        if others:
            pairs[index] = others[rng.integers(len(others))]
    return batch.holding(keys=keys, pairs=pairs)


def _seen(task: AnchorComposition, at: int) -> Int[np.ndarray, " key"]:
    combinations = task.combinations("seen")
    return combinations[combinations[:, 1] == at, 0]
