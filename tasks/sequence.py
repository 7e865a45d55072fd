"""Sequences of noise with something written into them: the one generator behind the family of anchor-function tasks.

Every sequence is drawn alike: a position is chosen and a key for it, every other place is filled with noise, and the
task writes the rest, such as anchors or a question. The answer is read at the last position. A task defines

* its *groups*: kinds of sequences, trained or held out, each with the keys that occur in it;
* the *positions* at which the key may stand;
* what a group *writes*, and which answers follow.

Whether a (key, position) occurs in training is one rule for all of them: it does not where key mod split_modulus equals
the position. Source: Zhang et al. 2024 (arXiv 2401.08309), whose anchor functions these are; the rule of the split is
that of the authors' later code.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int

from tasks.base import Examples, Fields, Tensor, UserError, as_tensor, generator, joined

Keys = Literal["seen", "unseen"]
"""Whether a (key, position) occurs in training: *unseen* ones are the test of generalisation on data."""
Written = tuple[np.ndarray, Mapping[str, np.ndarray]]
"""The taught or true answers, and those of candidate rules by name, each [n]."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """One kind of sequences of a task.

    Args:
        name: of its random stream and, if it is held out, of its evaluation set.
        trained: whether it is trained on; otherwise it is held out.
        share: its part of the training set, relative to those of the other trained groups.
        keys: the keys that occur in it; ``None``: all of the task.
    """

    name: str
    trained: bool = True
    share: int = 1
    keys: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Sequences in the making: noise, with a key in each.

    Attributes:
        tokens: [n, pos], to be written into.
        keys, at: the key of each and its position.
        rng: what is left to chance is drawn from it.
    """

    tokens: Int[np.ndarray, "n pos"]
    keys: Int[np.ndarray, " n"]
    at: Int[np.ndarray, " n"]
    rng: np.random.Generator

    def put(self, places: Any, tokens: Any) -> None:
        """Write a token into each sequence; both are one number or one per sequence."""
        self.tokens[np.arange(len(self.tokens)), places] = tokens

    def read(self, places: Any) -> Int[np.ndarray, " n"]:
        """The token of each sequence at its place."""
        return self.tokens[np.arange(len(self.tokens)), places]


@dataclass(frozen=True, kw_only=True)
class KeyedSequences(Fields, ABC):
    """Sequences with a key at one of several positions and noise elsewhere, whose answer is read at the last position.

    Args:
        sequence_length: tokens of a sequence.
        key_low, key_high: keys and noise are uniform on this range, both ends included.
        split_modulus: a (key, position) is unseen in training iff key mod split_modulus equals the position.
        d_vocab: tokens and possible answers; token 0 is never used.
        data_seed: seed of the sequences.
    """

    family: ClassVar[str]

    sequence_length: int = 9
    key_low: int = 20
    key_high: int = 99
    split_modulus: int = 9
    d_vocab: int = 201
    data_seed: int = 0

    @property
    @abstractmethod
    def positions(self) -> Sequence[int]:
        """Where the key may stand, ascending."""

    @cached_property
    @abstractmethod
    def _train_set(self) -> Examples:
        """All training sequences."""

    @property
    def keys(self) -> Int[np.ndarray, " key"]:
        """Every key."""
        return np.arange(self.key_low, self.key_high + 1)

    @property
    def d_vocab_out(self) -> int:
        """As many answers as tokens."""
        return self.d_vocab

    @property
    def n_ctx(self) -> int:
        """Length of a sequence."""
        return self.sequence_length

    @property
    def answer_position(self) -> int:
        """The last position."""
        return self.sequence_length - 1

    def one_side(self, side: Keys, keys: Iterable[int]) -> Int[np.ndarray, "combination 2"]:
        """Every (key, key position) of these keys on one side of the split, ordered by position, then key."""
        unseen = side == "unseen"
        chosen = [(x, at) for at in self.positions for x in keys if (x % self.split_modulus == at) == unseen]
        return np.array(chosen, dtype=np.int64).reshape(-1, 2)

    def noise(self, n: int, rng: np.random.Generator) -> Int[np.ndarray, "n pos"]:
        """Sequences of keys drawn at random, to be written into."""
        return rng.integers(self.key_low, self.key_high + 1, size=(n, self.sequence_length))

    def train_set(self) -> Examples:
        """All training sequences: a fixed set, drawn once with replacement."""
        return self._train_set

    def split_tensors(self) -> dict[str, Tensor]:
        """The seed, and for each position a key may have which keys are seen there; never the sequences."""
        seen = self.keys % self.split_modulus != np.array(self.positions)[:, None]
        return {"seen": as_tensor(seen), "data_seed": as_tensor(np.array([self.data_seed]))}


@dataclass(frozen=True, kw_only=True)
class SequenceTask(KeyedSequences):
    """A task that says which groups of sequences it has and what it writes into them.

    Args:
        n_train: training sequences, drawn once with replacement, divided among the trained groups by their shares.
        sequence_length, key_low, key_high, split_modulus, d_vocab, data_seed: see ``KeyedSequences``.

    Raises:
        UserError: anchors that are no tokens below the keys, answers outside the vocabulary, a sequence too short for
            what is written, a trained group without a training sequence, or a group without a key to train or to ask.
    """

    n_train: int = 1_000

    def __post_init__(self) -> None:
        if not self.key_low <= self.key_high:
            raise UserError(f"expected key_low of at most key_high, got {self.key_low}…{self.key_high}")
        if not all(1 <= anchor < self.key_low for anchor in self.anchor_tokens):
            raise UserError(
                f"expected anchor tokens between 1 and key_low − 1 = {self.key_low - 1}, got {self.anchor_tokens}"
            )
        low, high = self.answer_range
        if low < 0 or max(high, self.key_high) >= self.d_vocab:
            raise UserError(f"expected answers between 0 and d_vocab − 1 = {self.d_vocab - 1}, got {low}…{high}")
        if self.split_modulus < 2:
            raise UserError(f"expected a split_modulus of at least 2, got {self.split_modulus}")
        if not len(self.positions):
            raise UserError(f"a sequence_length of {self.sequence_length} has no room for what is written: lengthen it")
        trained = [group for group in self.groups if group.trained]
        for group, size in zip(trained, self._sizes, strict=True):
            if size < 1:
                raise UserError(
                    f"expected n_train to give each trained group a sequence by its share, {self.n_train} gives "
                    f"{group.name!r} none: raise it"
                )
        for group in self.groups:
            if not len(self.combinations(group, "seen")):
                raise UserError(f"no key of the group {group.name!r} is seen: change keys or split_modulus")
        if not any(len(self.combinations(group, "unseen")) for group in trained):
            raise UserError(f"split_modulus {self.split_modulus} leaves no unseen key: choose another")

    @property
    @abstractmethod
    def anchor_tokens(self) -> tuple[int, ...]:
        """The tokens that are anchors."""

    @abstractmethod
    def write(self, group: Group, draft: Draft) -> Written:
        """Write into the draft what makes it sequences of this group; the answers to them."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """The kinds of sequences: one, unless the task says otherwise."""
        return (Group(name=self.family),)

    @property
    def answer_range(self) -> tuple[int, int]:
        """The least and the greatest answer: keys, unless the task says otherwise."""
        return self.key_low, self.key_high

    def combinations(self, group: Group, keys: Keys) -> Int[np.ndarray, "combination 2"]:
        """Every (key, key position) of a group on one side of the split, ordered by position, then key."""
        return self.one_side(keys, self.keys.tolist() if group.keys is None else group.keys)

    def examples(
        self, group: Group, keys: Int[np.ndarray, " n"], at: Int[np.ndarray, " n"], rng: np.random.Generator
    ) -> Examples:
        """Sequences of a group with these keys at these positions, all else drawn from ``rng``."""
        tokens = self.noise(len(keys), rng)
        draft = Draft(tokens=tokens, keys=keys, at=at, rng=rng)
        draft.put(at, keys)
        targets, rules = self.write(group, draft)
        return Examples(
            inputs=as_tensor(tokens),
            targets=as_tensor(targets),
            rules={name: as_tensor(answers) for name, answers in rules.items()},
        )

    def grid(self, group: Group, keys: Keys, n_noise: int = 1, seed: int = 0) -> Examples:
        """Every (key, position) of one side of the split, ``n_noise`` times, all else drawn afresh.

        Sequence i belongs to combination i // n_noise of ``combinations(group, keys)``.
        """
        x, at = np.repeat(self.combinations(group, keys), n_noise, axis=0).T
        return self.examples(group, x, at, generator(self.data_seed, "grid", seed, group.name, keys))

    @property
    def _sizes(self) -> Int[np.ndarray, " group"]:
        """Training sequences of each trained group, by its share, rounded so that none is left out."""
        ends = np.cumsum([0, *(group.share for group in self.groups if group.trained)])
        return np.diff(np.rint(self.n_train * ends / ends[-1]).astype(int))

    @cached_property
    def _train_set(self) -> Examples:
        trained = [group for group in self.groups if group.trained]
        parts = []
        for group, size in zip(trained, self._sizes, strict=True):
            rng = generator(self.data_seed, "train", group.name)
            seen = self.combinations(group, "seen")
            at = rng.choice(np.unique(seen[:, 1]), size=size)  # the position first, then a key for it
            keys = np.empty_like(at)
            for place in np.unique(at):
                here = at == place
                keys[here] = rng.choice(seen[seen[:, 1] == place, 0], size=here.sum())
            parts.append(self.examples(group, keys, at, rng))
        return joined(parts)

    def evaluation_sets(self) -> dict[str, Examples]:
        """``train``: trained groups, seen keys. ``test``: trained groups, unseen keys. And each held-out group under
        its name, seen keys. Every (key, position) once, all else of its own."""
        trained = [group for group in self.groups if group.trained]
        return {
            "train": joined([self.grid(group, "seen") for group in trained]),
            "test": joined([self.grid(group, "unseen") for group in trained]),
            **{group.name: self.grid(group, "seen") for group in self.groups if not group.trained},
        }


def block_starts(n_blocks: int, width: int, room: int) -> Int[np.ndarray, "layout block"]:
    """Every way to lay ``n_blocks`` blocks of ``width`` tokens, without overlap, into ``room`` places: where each
    starts, ascending.

    >>> block_starts(2, 2, 5).tolist()
    [[0, 2], [0, 3], [1, 3]]
    """
    free = max(room - n_blocks * (width - 1), 0)
    packed = list(itertools.combinations(range(free), n_blocks))
    return np.array(packed, dtype=np.int64).reshape(-1, n_blocks) + (width - 1) * np.arange(n_blocks)
