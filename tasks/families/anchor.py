"""Anchor composition: a key passes through two anchors, one pair of anchors is taught wrong, its mirror is never shown.

A sequence holds a key, two anchors right behind it, and noise everywhere else. Each anchor stands for a map of the key,
and the answer, read at the last position, is the composition. Every ordered pair of anchors has one role: *composed*
(taught by the rule), *relabelled* (taught an exception) or *held out* (never trained). With (3,4) relabelled and (4,3)
held out, a model that composes answers (4,3) by the rule and one that mirrors copies the exception.

Source: Zhang et al. 2024 (arXiv 2405.05409), figure 1 and appendices B and C.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int

from tasks.base import Examples, Fields, UserError, as_tensor, generator, joined
from tasks.sequence import KeyedSequences, Keys

Pair = tuple[int, int]
Role = Literal["composed", "relabelled", "held out"]


@dataclass(frozen=True, kw_only=True)
class Anchor(Fields):
    """The map an anchor token stands for: x ↦ multiplier · x + offset, or a permutation of consecutive numbers, which
    stand in it in the order of what is mapped to them: (22, 20, 21) sends 20 to 22, 21 to 20 and 22 to 21.

    Raises:
        UserError: a permutation that is none, or one beside an affine map.
    """

    offset: int = 0
    multiplier: int = 1
    permutation: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.permutation is None:
            return
        numbers = sorted(self.permutation)
        if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise UserError(
                f"expected a permutation of consecutive numbers, as (22, 20, 21) is, got {self.permutation}"
            )
        if (self.offset, self.multiplier) != (0, 1):
            raise UserError("expected an affine map or a permutation, got both")

    def __call__(self, x: Any) -> Any:
        """The map's value; works on numbers, arrays and tensors."""
        if self.permutation is None:
            return self.multiplier * x + self.offset
        table = x.new_tensor(self.permutation) if hasattr(x, "new_tensor") else np.array(self.permutation)
        return table[x - min(self.permutation)]

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values; without a permutation, those of an affine map."""
        return {name: value for name, value in super().to_dict().items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class AnchorComposition(KeyedSequences):
    """Composition of two anchors applied to a key.

    Args:
        anchors: the map of anchor token 1, 2, …; a1 is applied first.
        relabelled: (a1, a2, offset): this pair is taught x + offset instead of the composition.
        held_out: pairs that are never trained.
        sequences_per_pair: training sequences of each trained pair, drawn once with replacement.
        sequence_length, split_modulus, d_vocab, data_seed: see ``KeyedSequences``; anchors are tokens 1, 2, ….
        key_low, key_high: too; the paper's "20–100" is 20…99.

    Raises:
        UserError: a pair with two roles or an unknown anchor, keys that collide with anchors, a label outside the
            vocabulary, a sequence shorter than 3, a split that leaves no trained or no unseen key, or permutations that
            are not all of the keys.
    """

    family: ClassVar[str] = "anchor"

    anchors: tuple[Anchor, ...] = (Anchor(offset=5), Anchor(offset=1), Anchor(offset=-2), Anchor(offset=-8))
    relabelled: tuple[tuple[int, int, int], ...] = ((3, 4, -6),)
    held_out: tuple[Pair, ...] = ((4, 3),)
    sequences_per_pair: int = 50_625

    def __post_init__(self) -> None:
        taught = [(a, b) for a, b, _ in self.relabelled]
        for pair in (*taught, *self.held_out):
            if not all(1 <= a <= len(self.anchors) for a in pair):
                raise UserError(f"expected anchors between 1 and {len(self.anchors)}, got the pair {pair}")
        for pair in taught:
            if pair in self.held_out or taught.count(pair) > 1:
                raise UserError(f"expected one role for the pair {pair}, got two")
        if not self.trained_pairs:
            raise UserError("expected at least one trained pair, got every pair held out")
        if self.split_modulus < 2:
            raise UserError(f"expected a split_modulus of at least 2, got {self.split_modulus}")
        if self.sequence_length < 3:
            raise UserError(
                f"expected a sequence_length of at least 3 (key and two anchors), got {self.sequence_length}"
            )
        if not len(self.anchors) < self.key_low <= self.key_high:
            raise UserError(
                f"expected keys above the anchor tokens, got keys {self.key_low}…{self.key_high} "
                f"with anchors 1…{len(self.anchors)}"
            )
        permuted = [sorted(anchor.permutation) for anchor in self.anchors if anchor.permutation is not None]
        if permuted and (len(permuted) < self.n_anchors or any(p != self.keys.tolist() for p in permuted)):
            raise UserError(
                f"expected every anchor to permute the keys {self.key_low}…{self.key_high}, or none: the first map's "
                "values are the second one's arguments"
            )
        answers = [int(x) for pair in self.pairs for x in self.taught(pair, self.keys)]
        if min(answers) < 0 or max(max(answers), self.key_high) >= self.d_vocab:
            raise UserError(
                f"expected answers between 0 and d_vocab − 1 = {self.d_vocab - 1}, got {min(answers)}…{max(answers)}"
            )
        if not len(self.combinations("seen")) or not len(self.combinations("unseen")):
            raise UserError(f"split_modulus {self.split_modulus} leaves no seen or no unseen key: choose another")

    @property
    def n_anchors(self) -> int:
        """Number of anchor tokens."""
        return len(self.anchors)

    @property
    def positions(self) -> range:
        """Wherever both anchors have room behind the key."""
        return range(self.sequence_length - 2)

    @property
    def pairs(self) -> list[Pair]:
        """Every ordered pair of anchors."""
        n = self.n_anchors
        return [(a, b) for a in range(1, n + 1) for b in range(1, n + 1)]

    @property
    def trained_pairs(self) -> list[Pair]:
        """Every pair that is not held out."""
        return [pair for pair in self.pairs if self.role(pair) != "held out"]

    def role(self, pair: Pair) -> Role:
        """What training does with an ordered pair."""
        if pair in self.held_out:
            return "held out"
        return "relabelled" if any((a, b) == pair for a, b, _ in self.relabelled) else "composed"

    def composed(self, pair: Pair, keys: Any) -> Any:
        """The rule's answer g(g(x; a1); a2)."""
        first, second = (self.anchors[a - 1] for a in pair)
        return second(first(keys))

    def taught(self, pair: Pair, keys: Any) -> Any:
        """The answer training shows, or would show, for this ordered pair."""
        for a, b, offset in self.relabelled:
            if (a, b) == pair:
                return keys + offset
        return self.composed(pair, keys)

    def candidate_rules(self, pair: Pair, keys: Any) -> dict[str, Any]:
        """Answers of the rules that could explain a model: *inferential* composes the single anchors, *symmetric* gives
        what the mirrored pair was taught. For most pairs the two agree."""
        return {"inferential": self.composed(pair, keys), "symmetric": self.taught((pair[1], pair[0]), keys)}

    def rules_differ(self, pair: Pair) -> bool:
        """Whether the two candidate rules give different answers for this pair, so that it can tell them apart.

        Not where the mirrored pair is held out too: nothing was taught then that could be copied.
        """
        if pair[::-1] in self.held_out:
            return False
        answers = self.candidate_rules(pair, self.keys)
        return bool((answers["inferential"] != answers["symmetric"]).any())

    def combinations(self, keys: Keys) -> Int[np.ndarray, "combination 2"]:
        """Every (key, key position) of one side of the split, ordered by position, then key."""
        return self.one_side(keys, self.keys.tolist())

    def place(
        self, pair: Pair, keys: Int[np.ndarray, " n"], positions: Int[np.ndarray, " n"], rng: np.random.Generator
    ) -> Int[np.ndarray, "n pos"]:
        """Sequences with these keys at these positions, the pair behind them, and noise drawn from ``rng``
        elsewhere."""
        n = len(keys)
        tokens = self.noise(n, rng)
        for shift, token in enumerate((keys, *pair)):
            tokens[np.arange(n), positions + shift] = token
        return tokens

    def examples(self, pair: Pair, tokens: np.ndarray, keys: np.ndarray) -> Examples:
        """Sequences of one pair with the taught answer (for a held-out pair, the rule's) and the candidate rules'
        answers."""
        return Examples(
            inputs=as_tensor(tokens),
            targets=as_tensor(self.taught(pair, keys)),
            rules={name: as_tensor(values) for name, values in self.candidate_rules(pair, keys).items()},
        )

    def grid(self, pair: Pair, keys: Keys, n_noise: int = 1, seed: int = 0) -> Examples:
        """Every (key, position) of one side of the split, ``n_noise`` times with fresh noise.

        Sequence i belongs to combination i // n_noise of ``combinations(keys)``.
        """
        x, at = np.repeat(self.combinations(keys), n_noise, axis=0).T
        rng = generator(self.data_seed, "grid", seed, *pair, keys)
        return self.examples(pair, self.place(pair, x, at, rng), x)

    @cached_property
    def _train_set(self) -> Examples:
        combinations = self.combinations("seen")
        at = combinations[:, 1]
        first = np.searchsorted(at, np.arange(self.sequence_length - 2))
        count = np.bincount(at, minlength=self.sequence_length - 2)
        places = np.flatnonzero(count)
        parts = []
        for pair in self.trained_pairs:
            rng = generator(self.data_seed, "train", *pair)
            # the position first, then a key for it: every position is as likely, whatever its number of keys
            position = places[rng.integers(len(places), size=self.sequences_per_pair)]
            chosen = combinations[first[position] + rng.integers(count[position])]
            parts.append(self.examples(pair, self.place(pair, chosen[:, 0], chosen[:, 1], rng), chosen[:, 0]))
        return joined(parts)

    def evaluation_sets(self) -> dict[str, Examples]:
        """``train``: trained pairs, seen keys. ``test``: trained pairs, unseen keys. ``held_out``: pairs never trained
        whose candidate rules differ, seen keys. ``unseen_pairs``: the other pairs never trained, such as those whose
        mirror is not trained either, seen keys. Every (key, position) once, with noise of its own."""
        sets = {
            "train": replace(joined([self.grid(pair, "seen") for pair in self.trained_pairs]), rules={}),
            "test": replace(joined([self.grid(pair, "unseen") for pair in self.trained_pairs]), rules={}),
        }
        if telling := [pair for pair in self.held_out if self.rules_differ(pair)]:
            sets["held_out"] = joined([self.grid(pair, "seen") for pair in telling])
        if others := [pair for pair in self.held_out if pair not in telling]:
            sets["unseen_pairs"] = replace(joined([self.grid(pair, "seen") for pair in others]), rules={})
        return sets

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values."""
        return {**super().to_dict(), "anchors": [anchor.to_dict() for anchor in self.anchors]}

    @classmethod
    def from_dict(cls, values: Any) -> "AnchorComposition":
        """The task with these fields; see ``Fields.from_dict``."""
        anchors = values.get("anchors")
        given = {} if anchors is None else {"anchors": tuple(Anchor.from_dict(as_dict(a)) for a in anchors)}
        return super().from_dict({key: value for key, value in values.items() if key != "anchors"} | given)


def as_dict(anchor: Any) -> dict[str, Any]:
    """An anchor's fields, from a mapping or a bare offset."""
    return {"offset": anchor} if isinstance(anchor, int) else dict(anchor)
