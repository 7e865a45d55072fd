"""Tasks of answering a question about a text: anchors mark keys, and the last token asks for one of them.

Source: Zhang et al. 2024 (arXiv 2401.08309), which gives results of reading comprehension and working memory and no
definition: the definitions are this toolkit's. Keys, noise and split: ``tasks.sequence``.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from tasks.base import UserError
from tasks.sequence import Draft, Group, SequenceTask, Written, block_starts


@dataclass(frozen=True, kw_only=True)
class _Question(SequenceTask):
    """Anchors, each with a key behind it, stand in a text; the last token is an anchor and asks for a key."""

    @property
    @abstractmethod
    def _asked(self) -> range:
        """Which of the marked keys, counted in the order of the text, may be the answer; the last is the last."""

    @abstractmethod
    def _anchors(self, n: int, rng: np.random.Generator) -> Int[np.ndarray, "n block"]:
        """The anchors of each text, in order."""

    @cached_property
    def _starts(self) -> Int[np.ndarray, "layout block"]:
        return block_starts(self._asked.stop, 2, self.sequence_length - 1)

    @property
    def positions(self) -> Sequence[int]:
        """Wherever a key stands that may be asked for, in some layout."""
        return np.unique(self._starts[:, self._asked.start :] + 1).tolist()

    def write(self, group: Group, draft: Draft) -> Written:
        """The key; *earliest* answers the key behind the first occurrence of the asked anchor, *last_key* the last
        marked key of the text, whatever is asked; see ``SequenceTask.write``."""
        chosen = np.empty((len(draft.at), 2), dtype=np.int64)  # a layout with a key at this place, and which one it is
        for place in np.unique(draft.at):
            options = np.argwhere(self._starts + 1 == place)
            options = options[options[:, 1] >= self._asked.start]
            share = 1 / np.bincount(options[:, 1])[options[:, 1]]  # first, second, … key: each as often where it can be
            here = draft.at == place
            chosen[here] = draft.rng.choice(options, size=here.sum(), p=share / share.sum())
        layout, asked = chosen.T
        starts, anchors = self._starts[layout], self._anchors(len(layout), draft.rng)
        for block in range(anchors.shape[1]):
            draft.put(starts[:, block], anchors[:, block])
        rows = np.arange(len(layout))
        draft.put(-1, anchors[rows, asked])
        earliest = (anchors == anchors[rows, asked][:, None]).argmax(1)
        return draft.keys, {
            "earliest": draft.read(starts[rows, earliest] + 1),
            "last_key": draft.read(starts[:, -1] + 1),
        }


@dataclass(frozen=True, kw_only=True)
class ReadingComprehension(_Question):
    """Anchors 1 to ``n_anchors``, in any order, each with a key behind it; the last token repeats one of them, and the
    answer is the key that followed it.

    Published accuracy 1.0, of a task whose definition is not.

    Raises:
        UserError: no anchor; what ``SequenceTask`` raises.
    """

    family: ClassVar[str] = "reading"

    n_train: int = 40_000
    n_anchors: int = 3

    def __post_init__(self) -> None:
        if self.n_anchors < 1:
            raise UserError(f"expected n_anchors of at least 1, got {self.n_anchors}")
        super().__post_init__()

    @property
    def anchor_tokens(self) -> tuple[int, ...]:
        """1 to n_anchors."""
        return tuple(range(1, self.n_anchors + 1))

    @property
    def _asked(self) -> range:
        return range(self.n_anchors)

    def _anchors(self, n: int, rng: np.random.Generator) -> Int[np.ndarray, "n block"]:
        return rng.permuted(np.tile(self.anchor_tokens, (n, 1)), axis=1)


@dataclass(frozen=True, kw_only=True)
class WorkingMemory(_Question):
    """Anchors 1 and 2 mark keys in turn, ``n_marks`` each; the last token is one of them, and the answer is the key
    that its *latest* occurrence marked.

    Either anchor may come first. Published accuracy 1.0 at length 20 and n_train 40,000, of a task whose definition is
    not. ``split_modulus`` is 20, so that some key is unseen at every position.

    Raises:
        UserError: fewer than one mark; what ``SequenceTask`` raises.
    """

    family: ClassVar[str] = "working_memory"

    sequence_length: int = 20
    split_modulus: int = 20
    n_train: int = 40_000
    n_marks: int = 2

    def __post_init__(self) -> None:
        if self.n_marks < 1:
            raise UserError(f"expected n_marks of at least 1, got {self.n_marks}")
        super().__post_init__()

    @property
    def anchor_tokens(self) -> tuple[int, ...]:
        """1 and 2."""
        return (1, 2)

    @property
    def _asked(self) -> range:
        return range(2 * self.n_marks - 2, 2 * self.n_marks)

    def _anchors(self, n: int, rng: np.random.Generator) -> Int[np.ndarray, "n block"]:
        begins = rng.integers(2, size=(n, 1))
        return 1 + (begins + np.arange(2 * self.n_marks)) % 2
