"""How a model solves its task, in one sentence with the numbers that carry it; and the verdict that any task can have.

Each domain writes its solutions and their rules down once, in its own ``verdict.py``: ``NEEDS`` names the analyses that
decide, ``SOLUTIONS`` what may be said, ``RULE`` how it is decided, and ``verdict(subject, results)`` concludes. A model
that meets no rule is *undetermined*, and the sentence says which condition failed. Thresholds are conventions of this
toolkit, fixed before the shipped models were trained; those that rooms share are in ``interp.thresholds``.

A task family without a verdict of its own gets the one of this file, from its answers alone: it can say whether a model
generalises, and says that how was not asked.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from interp.result import Result
from interp.subject import Subject
from interp.thresholds import FITTED, RECITES
from tasks.base import Examples

NEEDS: tuple[str, ...] = ()
SOLUTIONS = ("does not fit", "generalises", "recites", "neither")
RULE = (
    f"a score is the accuracy, or in a regression the explained variance; it does not fit: train score < {FITTED}; "
    f"generalises: test score ≥ {FITTED}; recites: test score at most half-way from the best constant answer's to 1, "
    "and neither: in between; how it generalises is not asked"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict(Result):
    """``solution``, the ``sentence`` that states it with its evidence, and the ``rule`` it was decided by."""

    solution: str
    sentence: str
    rule: str


def verdict(subject: Subject, results: Mapping[str, Any]) -> Verdict:
    """What the answers alone say: the model fits or does not, and knows what it was not shown or does not."""
    sets = subject.task.evaluation_sets()
    control = subject.randomized(0)
    scores = {name: score(subject.performance, examples, name) for name, examples in sets.items()}
    chance = {name: score(control.performance, examples, name) for name, examples in sets.items()}
    constant = {name: constant_score(examples) for name, examples in sets.items()}
    solution = "does not fit"
    if scores["train"] >= FITTED:
        solution = _on_the_rest(scores.get("test", math.nan), constant.get("test", math.nan))
    told = "; ".join(
        f"{name.replace('_', ' ')} {scores[name]:.1%} (random weights {chance[name]:.1%}, best constant answer "
        f"{constant[name]:.1%})"
        for name in scores
    )
    measured = "explained variance" if subject.task.d_vocab_out == 1 else "accuracy"
    how = f"How was not asked: no verdict of its own is written for the family {subject.task.family}."
    return Verdict(solution=solution, sentence=f"{solution}: {measured} on {told}. {how}", rule=RULE)


def _on_the_rest(test: float, constant: float) -> str:
    """What a model that fits does on inputs it was not shown."""
    if test >= FITTED:
        return "generalises"
    return "recites" if test <= constant + (1 - constant) * RECITES else "neither"


def score(performance: Mapping[str, float], examples: Examples, name: str) -> float:
    """Accuracy on an evaluation set; in a regression the explained variance, 1 − mean squared error/variance."""
    if f"{name}_accuracy" in performance:
        return performance[f"{name}_accuracy"]
    return 1 - performance[f"{name}_loss"] / float(examples.targets.double().var(correction=0))


def constant_score(examples: Examples) -> float:
    """The score of the best answer that does not look at the input: the share of the most frequent target, or 0."""
    if examples.targets.is_floating_point():
        return 0.0
    return float(torch.bincount(examples.targets).max() / len(examples.targets))
