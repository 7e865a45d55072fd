"""Anchors that are each taught on a part of the keys only: does an anchor act on the keys it was never shown with?

Source: Zhang et al. 2024 (arXiv 2401.08309), its multi-anchor, multi-interval and two-interval tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import UserError
from tasks.sequence import Draft, Group, SequenceTask, Written


@dataclass(frozen=True, kw_only=True)
class AnchorIntervals(SequenceTask):
    """ "a x → x + offset of a": the anchor stands right before the key, and each anchor has an interval of keys that it
    is never shown with.

    The default is the paper's: anchors 1 to 10 add 1 to 10, and anchor a is never shown with the keys 20 + 8(a−1) to
    27 + 8(a−1). Published accuracy, 8 layers: shown ≥ .998; masked a = 1 .851, 2 .868, 3 to 9 ≥ .992, 10 .97.
    ``tasks.variants.two_intervals`` has two anchors.

    The held-out groups are ``masked_1``, ``masked_2``, …: an anchor with its masked keys. With two anchors, rule
    *anchor* answers by the anchor and *other_anchor* by the other one, the only one that was taught on these keys.

    Args:
        offsets: what anchor 1, 2, … adds to the key.
        masked: the lowest and the highest key of each anchor's interval.

    Raises:
        UserError: not one interval per anchor, an interval without a key or with all of them; what ``SequenceTask``
            raises.
    """

    family: ClassVar[str] = "intervals"

    n_train: int = 20_000
    offsets: tuple[int, ...] = tuple(range(1, 11))
    masked: tuple[tuple[int, int], ...] = tuple((low, low + 7) for low in range(20, 100, 8))

    def __post_init__(self) -> None:
        if not self.offsets or len(self.masked) != len(self.offsets):
            raise UserError(
                f"expected one masked interval per anchor, got {len(self.masked)} of {len(self.offsets)} anchors"
            )
        every = range(self.key_low, self.key_high + 1)
        for low, high in self.masked:
            if not 0 < sum(low <= x <= high for x in every) < len(every):
                raise UserError(
                    f"expected masked intervals with some of the keys {self.key_low}…{self.key_high} but not all, "
                    f"got {low}…{high}"
                )
        super().__post_init__()

    @property
    def anchor_tokens(self) -> tuple[int, ...]:
        """1, 2, …."""
        return tuple(range(1, len(self.offsets) + 1))

    @property
    def groups(self) -> tuple[Group, ...]:
        """Two for each anchor: the keys it is shown with, and those it is not."""
        every, found = range(self.key_low, self.key_high + 1), []
        for anchor, (low, high) in zip(self.anchor_tokens, self.masked, strict=True):
            shown = tuple(x for x in every if not low <= x <= high)
            masked = tuple(x for x in every if low <= x <= high)
            found += [
                Group(name=f"shown_{anchor}", keys=shown),
                Group(name=f"masked_{anchor}", keys=masked, trained=False),
            ]
        return tuple(found)

    @property
    def positions(self) -> Sequence[int]:
        """Everywhere but at the beginning."""
        return range(1, self.sequence_length)

    @property
    def answer_range(self) -> tuple[int, int]:
        """Keys and offsets, added."""
        return self.key_low + min(self.offsets), self.key_high + max(self.offsets)

    def write(self, group: Group, draft: Draft) -> Written:
        """The key and the anchor's offset; see ``SequenceTask.write``."""
        anchor = int(group.name.partition("_")[2])
        draft.put(draft.at - 1, anchor)
        answers = draft.keys + self.offsets[anchor - 1]
        if group.trained or len(self.offsets) != 2:
            return answers, {}
        return answers, {"anchor": answers, "other_anchor": draft.keys + self.offsets[2 - anchor]}
