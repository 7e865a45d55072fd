"""Memory and reasoning in one model: some pairs of anchors stand for a table without a rule, others for a sum.

Source: Yao et al. 2025 (arXiv 2502.04375), which finds that with a large initialisation the table and the sums fall in
training together and held-out sums are never right, while with a small one sums, held-out ones too, come well before
the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from tasks.base import Examples, UserError, generator
from tasks.sequence import Draft, Group, SequenceTask, Written

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class MemoryReasoning(SequenceTask):
    """ "z a1 a2 → …": two adjacent anchors right behind a key. Two *memory* anchors, 1 to n_memory, stand for a random
    key, drawn once for every (z, a1, a2); two *reasoning* anchors, the n_reasoning tokens above, for z + a1 + a2.

    Pairs never mix the two kinds. Each trained pair is as likely as any other, and so is each position of the key;
    the key is then uniform on those seen there. On keys at unseen positions, ``test`` asks for sums, and for entries of
    the table that were shown at other positions. The evaluation sets ``memory`` and ``reasoning`` are the two halves of
    ``train``, and ``held_out`` the pairs that are not trained; their targets are the sums.

    Args:
        n_memory, n_reasoning: numbers of anchors.
        held_out: ordered pairs of reasoning anchors that are never trained.
        memory_labels: the least and the greatest label of the table; ``None``: of the keys. The paper's control uses
            (30, 29 + 20i).

    Raises:
        UserError: a held-out pair that is not of two reasoning anchors, no trained one, an empty range of labels; what
            ``SequenceTask`` raises.
    """

    family: ClassVar[str] = "memory_reasoning"

    key_low: int = 21
    key_high: int = 120
    n_train: int = 200_000
    n_memory: int = 10
    n_reasoning: int = 10
    held_out: tuple[Pair, ...] = ((11, 13), (13, 11))
    memory_labels: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("n_memory", "n_reasoning"):
            if getattr(self, name) < 1:
                raise UserError(f"expected {name} of at least 1, got {getattr(self, name)}")
        every = self.pairs["reasoning"] + self.pairs["held_out"]
        for pair in self.held_out:
            if pair not in every:
                low, high = self.n_memory + 1, self.n_memory + self.n_reasoning
                raise UserError(f"expected held-out pairs of reasoning anchors {low}…{high}, got {pair}")
        if not self.pairs["reasoning"]:
            raise UserError("expected at least one trained reasoning pair, got every pair held out")
        low, high = self.label_range
        if low > high:
            raise UserError(f"expected memory_labels from low to high, got {low}…{high}")
        super().__post_init__()

    @property
    def anchor_tokens(self) -> tuple[int, ...]:
        """1 to n_memory + n_reasoning."""
        return tuple(range(1, self.n_memory + self.n_reasoning + 1))

    @cached_property
    def pairs(self) -> dict[str, list[Pair]]:
        """Ordered pairs of anchors by what they are for: ``memory``, ``reasoning``, ``held_out``."""
        memory, reasoning = self.anchor_tokens[: self.n_memory], self.anchor_tokens[self.n_memory :]
        sums = [(a, b) for a in reasoning for b in reasoning]
        return {
            "memory": [(a, b) for a in memory for b in memory],
            "reasoning": [pair for pair in sums if pair not in self.held_out],
            "held_out": [pair for pair in sums if pair in self.held_out],
        }

    @property
    def groups(self) -> tuple[Group, ...]:
        """Memory, reasoning, and what is held out, if anything is."""
        return tuple(
            Group(name=name, trained=name != "held_out", share=len(pairs))
            for name, pairs in self.pairs.items()
            if pairs
        )

    @property
    def positions(self) -> Sequence[int]:
        """Wherever both anchors have room behind the key."""
        return range(self.sequence_length - 2)

    @property
    def label_range(self) -> tuple[int, int]:
        """The least and the greatest label of the table."""
        return (self.key_low, self.key_high) if self.memory_labels is None else self.memory_labels

    @property
    def answer_range(self) -> tuple[int, int]:
        """Labels and sums."""
        low, high = self.label_range
        anchors = self.anchor_tokens
        return min(low, self.key_low + 2 * anchors[self.n_memory]), max(high, self.key_high + 2 * anchors[-1])

    @cached_property
    def table(self) -> Int[np.ndarray, "anchor anchor key"]:
        """The label of each pair of memory anchors and key, counted from 0."""
        low, high = self.label_range
        size = (self.n_memory, self.n_memory, self.key_high - self.key_low + 1)
        return generator(self.data_seed, "memory").integers(low, high + 1, size=size)

    def write(self, group: Group, draft: Draft) -> Written:
        """The table's label or the sum; see ``SequenceTask.write``."""
        pairs = np.array(self.pairs[group.name])
        first, second = pairs[draft.rng.integers(len(pairs), size=len(draft.keys))].T
        draft.put(draft.at + 1, first)
        draft.put(draft.at + 2, second)
        if group.name == "memory":
            return self.table[first - 1, second - 1, draft.keys - self.key_low], {}
        return draft.keys + first + second, {}

    def evaluation_sets(self) -> dict[str, Examples]:
        """``train``, ``test``, ``held_out`` as in ``SequenceTask``, and ``memory`` and ``reasoning``: trained groups,
        seen keys. Each (key, position) comes once in a group, with a pair drawn for it."""
        halves = {group.name: self.grid(group, "seen") for group in self.groups if group.trained}
        return super().evaluation_sets() | halves
