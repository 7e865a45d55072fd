"""Relabel one pair in a trained model, and see whether its mirror follows.

The model is trained on for a few hundred steps with one ordered pair, say (1,2), taught another answer, every other
pair rehearsed as it was, and the mirror (2,1) left out. A model that looks the unordered pair up (*symmetric*) moves
the mirror to the new answer, and so may one that adds up both anchors before it meets the key. One that composes single
anchors, or knows ordered pairs by heart, makes an exception of the pair, and its mirror does not follow. What is known
by heart may be ordered for one pair and not for another: see ``every_pair``. It needs no special training set: any
finished model can be asked.

What is not rehearsed may be forgotten, the mirror too. So the question is not whether it keeps its answer but whether
it takes the new one, which forgetting does not give.

Placebo: a pair that shares no anchor with the relabelled one, left out as the mirror is. If its answers shift as far as
the relabelled pair's, training on has done that, and a mirror that follows is no evidence.

Source of the question: the data counterfactual of Zhang et al. 2024 (arXiv 2405.05409), asked of a finished model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.result import Result
from interp.statistics import Interval, share
from interp.subject import Subject
from interp.thresholds import FITTED, PLACEBO, followed
from tasks.base import Examples, UserError
from tasks.families.anchor import AnchorComposition, Pair
from tasks.models.initialization import Initialization
from tasks.surroundings import ordinary_torch
from tasks.training.config import TrainingConfig
from tasks.training.run import Run, RunConfig, library_versions
from tasks.training.trainer import train

if TYPE_CHECKING:
    import plotly.graph_objects as go

STEPS = 400
N_NOISE = 2
SHIFT = 4
"""The new answer is this far from the old one where none is asked for: as far as in the published task."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RelabellingResult(Result):
    """What ``analyze`` finds: shares of answers on seen keys, at ``step``, and in ``by_step`` at every step.

    ``step`` is the last at which the pair is learnt, or the last of all. ``learnt`` is the share of the relabelled
    pair's answers that are the new one; ``mirror_moved`` and ``mirror_stayed`` those of the mirror that are the new
    and the old one; ``placebo_moved`` and ``placebo_stayed`` those of the placebo pair that are as far from the rule
    as the new answer is, and by the rule. ``before`` is the lowest accuracy on the three pairs before. A mirror that
    *follows* is that of a symmetric model; one that does not, of an inferential or a memorising one.
    """

    mirror_call: Literal["follows", "does not follow", "undetermined"]
    step: int
    pair: Pair
    mirror: Pair
    placebo_pair: Pair
    offset: int
    before: float
    learnt: float
    mirror_moved: float
    mirror_stayed: float
    placebo_moved: float
    placebo_stayed: float
    moved_interval: Interval
    stayed_interval: Interval
    by_step: dict[str, tuple[float, ...]]


@ordinary_torch()
def analyze(
    subject: Subject,
    *,
    pair: Pair | None = None,
    offset: int | None = None,
    training: TrainingConfig | None = None,
    sequences_per_pair: int = 1_000,
    seed: int = 0,
) -> RelabellingResult:
    """Train the model on with one pair relabelled; the subject itself stays as it is.

    Args:
        subject: a model of ``AnchorComposition``.
        pair: two different anchors whose both orders were taught by the rule; ``None``: the first such pair.
        offset: what the pair is taught to add to the key; ``None``: 4 more than by the rule.
        training: how; ``None``: 400 steps of 256 sequences, at a constant quarter of the rate that the model
            was trained with, where that is known, else at 3e-4.
        sequences_per_pair: of the rehearsal. seed: of the order of batches.

    Raises:
        UserError: another task, a pair or offset that cannot be relabelled, or no pair for the placebo.
    """
    task = _anchor_task(subject)
    pair = _relabelled(task, pair)
    mirror, placebo = (pair[1], pair[0]), _placebo_pair(task, pair)
    offset = _offset(task, pair) if offset is None else offset
    taught = replace(
        task,
        relabelled=(*task.relabelled, (*pair, offset)),
        held_out=(*task.held_out, mirror, placebo),
        sequences_per_pair=sequences_per_pair,
    )
    was = {p: task.grid(p, "seen", N_NOISE) for p in (pair, mirror, placebo)}
    shift = taught.grid(pair, "seen", N_NOISE).targets - was[pair].targets
    before = min(_share(subject, was[p]).value for p in was)
    rows: list[dict[str, Interval]] = []
    with _as_run(subject) as start:
        run = train(taught, subject.config, training=training or _training(subject), seeds=[seed], start=start)[0]
        for step in run.steps:
            model = Subject.load(run, step)
            rows.append(
                {
                    "learnt": _share(model, was[pair], shift),
                    "moved": _share(model, was[mirror], shift),
                    "stayed": _share(model, was[mirror]),
                    "placebo_moved": _share(model, was[placebo], shift),
                    "placebo_stayed": _share(model, was[placebo]),
                }
            )
        steps = run.steps
    at = max((i for i, row in enumerate(rows) if row["learnt"].value >= FITTED), default=len(rows) - 1)
    last = rows[at]
    return RelabellingResult(
        mirror_call=_call(before, last["learnt"].value, last["placebo_moved"].value, last["moved"]),
        step=steps[at],
        pair=pair,
        mirror=mirror,
        placebo_pair=placebo,
        offset=offset,
        before=before,
        learnt=last["learnt"].value,
        mirror_moved=last["moved"].value,
        mirror_stayed=last["stayed"].value,
        placebo_moved=last["placebo_moved"].value,
        placebo_stayed=last["placebo_stayed"].value,
        moved_interval=last["moved"],
        stayed_interval=last["stayed"],
        by_step={
            "step": tuple(map(float, steps)),
            **{name: tuple(row[name].value for row in rows) for name in last},
        },
    )


def every_pair(
    subject: Subject,
    *,
    training: TrainingConfig | None = None,
    sequences_per_pair: int = 1_000,
    seed: int = 0,
) -> tuple[RelabellingResult, ...]:
    """``analyze`` of the finished model for every pair that can be relabelled, one at a time.

    Pairs of one model differ: one whose answers follow no rule may take the new answer over for one mirror and not for
    another. Each pair is a training of its own; the two orders of a pair are two of them.

    Args:
        subject, training, sequences_per_pair, seed: as in ``analyze``.

    Raises:
        UserError: another task, or no pair that can be relabelled.
    """
    return tuple(
        analyze(subject, pair=pair, training=training, sequences_per_pair=sequences_per_pair, seed=seed)
        for pair in _usable(_anchor_task(subject))
    )


def figures(result: RelabellingResult) -> dict[str, "go.Figure"]:
    """``mirror``: answers to the relabelled pair, its mirror and the control while the model is trained on."""
    from interp import plots, theme

    pair, mirror, placebo = ("({},{})".format(*p) for p in (result.pair, result.mirror, result.placebo_pair))
    return {
        "mirror": plots.lines(
            result.by_step["step"],
            {
                f"{pair}, new": result.by_step["learnt"],
                f"{mirror}, new": result.by_step["moved"],
                f"{mirror}, old": result.by_step["stayed"],
                f"placebo {placebo}, old": result.by_step["placebo_stayed"],
            },
            colours={f"placebo {placebo}, old": theme.CONTROL},
            title=f"Relabelling {pair} in the trained model",
            x="further steps",
            y="share of answers",
            caption=f"New and old answers. {pair} is taught x {result.offset:+d}; {mirror} and {placebo} are not "
            f"rehearsed and may be forgotten. {mirror} takes the new answer in a symmetric model. {placebo} shares no "
            f"anchor; {result.placebo_moved:.0%} of its answers shift as far.",
        )
    }


def _call(
    before: float, learnt: float, placebo_moved: float, moved: Interval
) -> Literal["follows", "does not follow", "undetermined"]:
    if before < FITTED or learnt < FITTED:
        return "undetermined"
    if moved.value <= PLACEBO:
        return "does not follow"
    return "follows" if followed(moved) and placebo_moved <= PLACEBO else "undetermined"


def _anchor_task(subject: Subject) -> AnchorComposition:
    if not isinstance(subject.task, AnchorComposition):
        raise UserError(f"expected a model of AnchorComposition, got one of {type(subject.task).__name__}")
    return subject.task


def _usable(task: AnchorComposition) -> list[Pair]:
    """Pairs of which both orders are taught by the rule, and that leave a pair for the placebo."""
    usable = [
        p
        for p in task.pairs
        if p[0] != p[1] and task.role(p) == task.role((p[1], p[0])) == "composed" and _without(task, p)
    ]
    if not usable:
        raise UserError(
            "expected a pair taught by the rule in both orders, and one that shares no anchor: there is none"
        )
    return usable


def _relabelled(task: AnchorComposition, pair: Pair | None) -> Pair:
    """The pair, checked; or the first that can be relabelled."""
    usable = _usable(task)
    if pair is not None and pair not in usable:
        raise UserError(
            f"expected a pair of different anchors whose both orders were taught by the rule, with a trained pair that "
            f"shares no anchor, got {pair}: choose among {', '.join(map(str, usable))}"
        )
    return usable[0] if pair is None else pair


def _without(task: AnchorComposition, pair: Pair) -> list[Pair]:
    """Pairs taught by the rule that share no anchor with this one."""
    return [p for p in task.pairs if task.role(p) == "composed" and not set(p) & set(pair)]


def _placebo_pair(task: AnchorComposition, pair: Pair) -> Pair:
    """Two different anchors if there are any left, as in the mirror."""
    return max(_without(task, pair), key=lambda p: p[0] != p[1])


def _offset(task: AnchorComposition, pair: Pair) -> int:
    keys = task.keys
    offsets = set((task.composed(pair, keys) - keys).tolist())
    if len(offsets) > 1:
        raise UserError(f"expected an offset for the pair {pair}: its rule does not add the same to every key")
    return offsets.pop() + SHIFT


def _training(subject: Subject) -> TrainingConfig:
    own = TrainingConfig(learning_rate=1.2e-3, weight_decay=0.01, beta2=0.999, clip_norm=1.0)
    own = own if subject.run is None else subject.run.config.training
    return replace(
        own,
        steps=STEPS,
        batch_size=256,
        learning_rate=own.learning_rate / 4,
        warmup_steps=20,
        warmup_from=0.0,
        decay="constant",
        autocast="none",
        snapshot_dtype="same",
        evaluate_every=STEPS,
        snapshots=tuple(range(0, STEPS + 1, 25)),
        stop_below=None,
    )


@contextmanager
def _as_run(subject: Subject) -> Iterator[tuple[Run, int]]:
    """The subject as a run that training can start from."""
    with TemporaryDirectory(prefix="rulelens-") as folder:
        config = RunConfig(
            task=subject.task,
            model=subject.config,
            init=Initialization(),
            training=TrainingConfig(),
            seed=0,
            versions=library_versions(),
        )
        run = Run.create(Path(folder) / "start", config)
        run.write_snapshot(0, subject.params)
        yield run, 0


def _share(model: Subject, examples: Examples, shift: Int[Tensor, " example"] | int = 0) -> Interval:
    """Share of answers that lie so far from the rule; intervals resample (key, position)."""
    hits = model.answers(examples.inputs) == examples.targets + shift
    return share(hits, torch.arange(len(examples)) // N_NOISE)
