"""Tasks of finding a key again: the one an anchor points at, its class, the other end of what an anchor joins.

Source: Zhang et al. 2024 (arXiv 2401.08309), whose accuracies the docstrings quote; of classification it gives a result
and no definition, so the definition is this toolkit's. Keys, noise and split: ``tasks.sequence``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from tasks.base import UserError
from tasks.sequence import Draft, Group, SequenceTask, Written

Direction = Literal["forward", "backward"]


@dataclass(frozen=True, kw_only=True)
class Identity(SequenceTask):
    """ "3x → x": the answer is the key that stands ``distance`` places behind the anchor.

    Published accuracy on unseen keys, 4 layers, best of 10 seeds, by n_train: 300 .25, 400 .78, 500 .96, from 800 on
    1.0; at n_train = 1,000 two layers reach 1.0 and one layer .09.

    Args:
        anchor: the anchor token.
        distance: places from anchor to key; 1 is "3x", −1 is "x3".
        wrap: a key may stand beyond the end: its place is counted on from the beginning.

    Raises:
        UserError: a distance of 0, or of as many places as the sequence has; what ``SequenceTask`` raises.
    """

    family: ClassVar[str] = "identity"

    anchor: int = 3
    distance: int = 1
    wrap: bool = False

    def __post_init__(self) -> None:
        if not 0 < abs(self.distance) < self.sequence_length:
            raise UserError(
                f"expected a distance between 1 and sequence_length − 1 = {self.sequence_length - 1}, forward or "
                f"backward, got {self.distance}"
            )
        super().__post_init__()

    @property
    def anchor_tokens(self) -> tuple[int, ...]:
        """The anchor."""
        return (self.anchor,)

    @property
    def positions(self) -> Sequence[int]:
        """Wherever the anchor has room, too."""
        if self.wrap:
            return range(self.sequence_length)
        return range(max(self.distance, 0), self.sequence_length + min(self.distance, 0))

    def write(self, group: Group, draft: Draft) -> Written:
        """The key; see ``SequenceTask.write``."""
        draft.put((draft.at - self.distance) % self.sequence_length, self.anchor)
        return draft.keys, {}


@dataclass(frozen=True, kw_only=True)
class Classification(SequenceTask):
    """ "3x → class of x": the range of keys is cut into ``n_classes`` intervals of equal width, and the answer is the
    token of the one that the key behind the anchor lies in.

    Class tokens follow the greatest key: 100, 101, 102 and 103 stand for 20…39, 40…59, 60…79 and 80…99. Published
    accuracy .994, of a task whose definition is not.

    Raises:
        UserError: keys that cannot be cut so; what ``SequenceTask`` raises.
    """

    family: ClassVar[str] = "classification"

    n_train: int = 40_000
    anchor: int = 3
    n_classes: int = 4

    def __post_init__(self) -> None:
        n_keys = self.key_high - self.key_low + 1
        if self.n_classes < 1 or n_keys % self.n_classes:
            raise UserError(f"expected n_classes that divides the {n_keys} keys, got {self.n_classes}")
        super().__post_init__()

    @property
    def anchor_tokens(self) -> tuple[int, ...]:
        """The anchor."""
        return (self.anchor,)

    @property
    def positions(self) -> Sequence[int]:
        """Everywhere but at the beginning."""
        return range(1, self.sequence_length)

    @property
    def answer_range(self) -> tuple[int, int]:
        """The class tokens."""
        return self.key_high + 1, self.key_high + self.n_classes

    def write(self, group: Group, draft: Draft) -> Written:
        """The class token of the key; see ``SequenceTask.write``."""
        draft.put(draft.at - 1, self.anchor)
        width = (self.key_high - self.key_low + 1) // self.n_classes
        return self.key_high + 1 + (draft.keys - self.key_low) // width, {}


@dataclass(frozen=True, kw_only=True)
class Recitation(SequenceTask):
    """ "a 3 b" stands somewhere before the last place, and the last token asks for its other end: after a the answer is
    b (*forward*), after b it is a (*backward*).

    The key of the split is the answer. Published accuracy, forward and backward, by n_train: 1,000 .77 and .37,
    2,000 .83 and .44, 4,000 .99 and .94.

    Args:
        anchor: the tokens between the two; the paper's are (3,), (3, 4) and (3, 4, 5).
        direction: ``forward`` or ``backward``.

    Raises:
        UserError: no anchor, an unknown direction; what ``SequenceTask`` raises.
    """

    family: ClassVar[str] = "recitation"

    n_train: int = 4_000
    anchor: tuple[int, ...] = (3,)
    direction: Direction = "forward"

    def __post_init__(self) -> None:
        if not self.anchor:
            raise UserError("expected at least one anchor token, got none")
        if self.direction not in get_args(Direction):
            raise UserError(f"expected a direction forward or backward, got {self.direction!r}")
        super().__post_init__()

    @property
    def anchor_tokens(self) -> tuple[int, ...]:
        """The tokens between the two."""
        return self.anchor

    @property
    def positions(self) -> Sequence[int]:
        """Wherever "a 3 b" leaves the last place to the question: of b forward, of a backward."""
        span = len(self.anchor) + 1
        if self.direction == "forward":
            return range(span, self.sequence_length - 1)
        return range(self.sequence_length - 1 - span)

    def write(self, group: Group, draft: Draft) -> Written:
        """The key: b forward, a backward. The other end stays noise, and is asked; see ``SequenceTask.write``."""
        span = len(self.anchor) + 1
        first = draft.at - span if self.direction == "forward" else draft.at
        for shift, token in enumerate(self.anchor, start=1):
            draft.put(first + shift, token)
        draft.put(-1, draft.read(first if self.direction == "forward" else first + span))
        return draft.keys, {}
