"""Published variants of anchor composition: each a setting of ``AnchorComposition`` or ``AnchorIntervals``.

What a function sets can be set on the command line, too; the options stand in its docstring. Sizes are changed with
``dataclasses.replace(data_complexity(5), sequences_per_pair=500)``.
"""

from tasks.base import UserError, generator
from tasks.families.anchor import Anchor, AnchorComposition
from tasks.families.intervals import AnchorIntervals

EXCEPTIONS = ((1, 2, 4), (1, 3, 1), (1, 4, -5), (2, 3, 5), (2, 4, -9), (3, 4, -6))
"""Unordered pairs, with the offset that data complexity teaches for both orders instead of the composition."""


def data_complexity(k: int) -> AnchorComposition:
    """All 16 pairs trained, the first ``k`` of ``EXCEPTIONS`` relabelled in both orders: k = 0 is pure composition, and
    each exception is one more thing to learn.

    Source: Zhang et al. 2025 (arXiv 2501.08537), figure 8, k = 0, 1 and 5. Its 100,000 sequences are taken to include
    the unseen keys, as those of the main task do. Command line: ``train anchor --task.held-out --task.relabelled
    1 2 4 2 1 4`` for k = 1.

    Raises:
        UserError: k outside 0…6.
    """
    if not 0 <= k <= len(EXCEPTIONS):
        raise UserError(f"expected k between 0 and {len(EXCEPTIONS)}, got {k}")
    relabelled = tuple(row for a, b, offset in EXCEPTIONS[:k] for row in ((a, b, offset), (b, a, offset)))
    return AnchorComposition(relabelled=relabelled, held_out=(), sequences_per_pair=5_625)


def both_unseen() -> AnchorComposition:
    """Neither (3,4) nor (4,3) is trained: there is no exception to copy, and the evaluation set ``unseen_pairs`` asks
    both for their composition.

    Source: Zhang et al. 2025 (arXiv 2501.08537) and 2024 (arXiv 2405.05409), appendix E. Command line:
    ``train anchor --task.relabelled --task.held-out 3 4 4 3``.
    """
    return AnchorComposition(relabelled=(), held_out=((3, 4), (4, 3)))


def synonym(*, extra: bool = True) -> AnchorComposition:
    """Anchor 5 (the paper's 9) means what anchor 3 means, x − 2; (4,5) and (5,4) are held out, and what is known of
    anchor 3 answers them: ``unseen_pairs``.

    ``extra``: data with anchor 3, every pair with it, are trained. Without, there is no anchor 3 at all; the synonym
    then is the third of four anchors, and the pairs held out are (3,4) and (4,3).

    Published accuracy, by the size of the extra data: 1,000 .04, 3,000 .54, 4,000 .955, from 6,000 on 1.0; without them
    at most .12. Source: Zhang et al. 2024 (arXiv 2401.08309). Command line: ``train anchor --task.anchors 5 1 -2 -8 -2
    --task.relabelled --task.held-out 4 5 5 4``; without extra data that of ``both_unseen``.
    """
    if not extra:
        return both_unseen()
    offsets = (5, 1, -2, -8, -2)
    return AnchorComposition(
        anchors=tuple(Anchor(offset=offset) for offset in offsets), relabelled=(), held_out=((4, 5), (5, 4))
    )


def nine_anchors() -> AnchorComposition:
    """Anchors 1 to 9 add −4 to 4; of 81 pairs (3,4) and (4,3) are not trained.

    Source: the code of Zhang et al. 2025 (arXiv 2501.08537); the pairs held out are those of its main task. Command
    line: ``train anchor --task.anchors -4 -3 -2 -1 0 1 2 3 4 --task.relabelled --task.held-out 3 4 4 3``.
    """
    anchors = tuple(Anchor(offset=offset) for offset in range(-4, 5))
    return AnchorComposition(anchors=anchors, relabelled=(), held_out=((3, 4), (4, 3)))


def affine_anchors() -> AnchorComposition:
    """Maps that do not commute, without any exception: anchor 3 is the reflection x ↦ 119 − x of the keys 20…99, the
    others add. On (4,3), held out, composing gives 127 − x, and copying the answer to (3,4) gives 111 − x.

    Command line: ``train anchor --task.anchors 5 1 -1x+119 -8 --task.relabelled``.
    """
    anchors = (Anchor(offset=5), Anchor(offset=1), Anchor(offset=119, multiplier=-1), Anchor(offset=-8))
    return AnchorComposition(anchors=anchors, relabelled=(), held_out=((4, 3),))


def permutation_anchors(
    *, n_keys: int = 16, n_anchors: int = 8, n_held_out: int = 19, seed: int = 0
) -> AnchorComposition:
    """Every anchor is a random permutation of a few keys, and some ordered pairs, drawn as well, are not trained.

    Sequences are key and anchors alone. Of 16 keys and 8 anchors the source trains on 720 of 1,024 (key, pair): 19
    pairs are held out. One key more (n_keys divides it) is unseen here, the ``test`` of seen pairs, which leaves 675.

    Source: critical windows, 2026 (arXiv 2605.04396). On the command line a permutation is a list:
    ``train anchor --task.anchors 4,3,5 5,3,4 --task.key-low 3 --task.key-high 5 …``.

    Raises:
        UserError: sizes that leave no pair, or no key, to train.
    """
    if not 0 <= n_held_out < n_anchors**2:
        raise UserError(f"expected n_held_out between 0 and {n_anchors**2 - 1}, got {n_held_out}")
    rng = generator(seed, "permutation anchors")
    low = n_anchors + 1
    anchors = tuple(Anchor(permutation=tuple((low + rng.permutation(n_keys)).tolist())) for _ in range(n_anchors))
    drawn = sorted(rng.permutation(n_anchors**2)[:n_held_out].tolist())
    return AnchorComposition(
        anchors=anchors,
        relabelled=(),
        held_out=tuple((i // n_anchors + 1, i % n_anchors + 1) for i in drawn),
        sequence_length=3,
        key_low=low,
        key_high=low + n_keys - 1,
        split_modulus=n_keys,
        sequences_per_pair=10 * n_keys,
        d_vocab=low + n_keys,
    )


def two_intervals(*, overlapping: bool = False) -> AnchorIntervals:
    """Anchor 1 (x ↦ x) is shown with the lower keys, anchor 2 (x ↦ x + 1) with the upper ones: 20…59 and 60…99, or
    ``overlapping``, 20…69 and 50…99.

    Published accuracy on the masked keys: disjoint 0.0, overlapping .384. Source: Zhang et al. 2024 (arXiv 2401.08309).
    Command line: ``train intervals --task.offsets 0 1 --task.masked 60 99 20 59`` or ``70 99 20 49``.
    """
    masked = ((70, 99), (20, 49)) if overlapping else ((60, 99), (20, 59))
    return AnchorIntervals(offsets=(0, 1), masked=masked)
