"""Which phase a run is in: rules, each written once as data, with its source.

A set of rules is read from the top; the first whose conditions all hold names the run. What they compare are columns
of a sweep's table; those of the learning curve, which a table lacks, are added by ``with_transitions``. A comparison
with a missing number is false.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp.result import Result
from interp.sweeps.cells import succeeded
from interp.thresholds import FITTED, FOLLOWS, NEITHER, RECITES
from tasks.base import UserError
from tasks.training.run import Run

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas loads where a table is made

Comparison = Literal["≥", "≤", "<", ">"]
_COMPARE = {"≥": operator.ge, "≤": operator.le, "<": operator.lt, ">": operator.gt}
SEEN = 0.90
"""Accuracy on seen pairs below which Zhang et al. hatch their phase diagram."""
REACHED = 0.90
"""Accuracy at which Liu et al. call a set learnt."""
LOSS_FLOOR = 2.0**-23
"""What Pearce et al. add to every loss; it bounds the ratio of two."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A label, and the conditions (column, comparison, bound) that must all hold for it."""

    label: str
    where: tuple[tuple[str, Comparison, float | int], ...]

    def holds(self, run: Mapping[str, Any]) -> bool:
        """Whether every condition holds for the run's numbers."""
        return all(_COMPARE[comparison](run[column], bound) for column, comparison, bound in self.where)

    def __str__(self) -> str:
        return f"{self.label}: " + " and ".join(f"{column} {sign} {bound:g}" for column, sign, bound in self.where)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rules(Result):
    """Rules in the order in which they are tried, their source, and the label where none holds."""

    name: str
    source: str
    rules: tuple[Rule, ...]
    otherwise: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label there is."""
        return (*(rule.label for rule in self.rules), self.otherwise)

    def label(self, run: Mapping[str, Any]) -> str:
        """The label of a run with these numbers.

        >>> LIU.label({"train_reached": 200, "test_reached": 5200, "delay": 5000})
        'grokking'
        """
        return next((rule.label for rule in self.rules if rule.holds(run)), self.otherwise)

    def __str__(self) -> str:
        return "; ".join([*map(str, self.rules), f"otherwise {self.otherwise}"])


ANCHOR = Rules(
    name="solution",
    source="the thresholds of interp.verdict, without placebo and intervals, which a table does not hold",
    rules=(
        Rule(label="unfitted", where=(("train_accuracy", "<", FITTED),)),
        Rule(label="inferential", where=(("held_out_inferential", "≥", FOLLOWS),)),
        Rule(label="symmetric", where=(("held_out_symmetric", "≥", FOLLOWS),)),
        Rule(
            label="memorising",
            where=(
                ("test_accuracy", "≤", RECITES),
                ("held_out_inferential", "≤", NEITHER),
                ("held_out_symmetric", "≤", NEITHER),
            ),
        ),
    ),
    otherwise="undetermined",
)
COMPLEXITY = Rules(
    name="regime",
    source="Zhang et al. 2025 (arXiv 2501.08537): reasoning, or high or low accuracy on seen pairs without it; the "
    "bounds are ours",
    rules=(
        Rule(label="reasoning", where=(("held_out_inferential", "≥", FOLLOWS),)),
        Rule(label="seen pairs only", where=(("test_accuracy", "≥", SEEN),)),
    ),
    otherwise="neither",
)
LIU = Rules(
    name="learning phase",
    source=f"Liu et al. 2022 (arXiv 2205.10343): first steps with accuracy of at least {REACHED}, 1000 steps apart; "
    "their budget was 1e5 steps, here it is the run's own",
    rules=(
        Rule(label="comprehension", where=(("test_reached", "<", math.inf), ("delay", "<", 1000))),
        Rule(label="grokking", where=(("test_reached", "<", math.inf), ("delay", "≥", 1000))),
        Rule(label="memorisation", where=(("train_reached", "<", math.inf), ("test_reached", "≥", math.inf))),
        Rule(label="confusion", where=(("train_reached", "≥", math.inf), ("test_reached", "≥", math.inf))),
    ),
    otherwise="undetermined",
)


def pearce(low_loss: float = 1e-5, ratio: float | int = 5e4) -> Rules:
    """The classes of Pearce et al. 2023, with thresholds of one's own as their page's sliders have them.

    Args:
        low_loss: what the lowest train loss, and the lowest test loss, must reach.
        ratio: the largest test/train loss from which a run groks.

    >>> pearce(ratio=100.0).label({"min_train_loss": 1e-7, "min_test_loss": 1e-7, "max_loss_ratio": 500.0})
    'grokking'
    """
    return Rules(
        name="class",
        source="Pearce et al. 2023, Do Machine Learning Models Memorize or Generalize?: "
        f"losses of {low_loss:g}, a ratio of {ratio:,.0f}",
        rules=(
            Rule(label="high train", where=(("min_train_loss", ">", low_loss),)),
            Rule(label="high test", where=(("min_test_loss", ">", low_loss),)),
            Rule(label="train and test drop together", where=(("max_loss_ratio", "<", ratio),)),
            Rule(label="grokking", where=(("max_loss_ratio", "≥", ratio),)),
        ),
        otherwise="undetermined",
    )


PEARCE = pearce()


def transitions(metrics: Sequence[Mapping[str, Any]], reached: float = REACHED) -> dict[str, float]:
    """What the rules of Liu and Pearce ask of a learning curve.

    ``train_reached`` and ``test_reached``: first logged step with this accuracy, infinite where it never was;
    ``delay``: the second less the first, without a value unless both were. ``min_train_loss``, ``min_test_loss``, and
    ``max_loss_ratio``, the largest test/train loss over the steps, 2⁻²³ added to both. NaN: nothing was logged.

    The true step lies up to one evaluation earlier: a run evaluated every 1000 steps or more tells no delay.
    """
    steps = {part: _first(metrics, f"{part}_accuracy", reached) for part in ("train", "test")}
    both = all(map(math.isfinite, steps.values()))
    losses = {part: _numbers(metrics, f"{part}_loss") for part in ("train", "test")}
    ratios = [
        (test + LOSS_FLOOR) / (train + LOSS_FLOOR)
        for row in metrics
        if (train := row.get("train_loss")) is not None and (test := row.get("test_loss")) is not None
    ]
    return {
        "train_reached": steps["train"],
        "test_reached": steps["test"],
        "delay": steps["test"] - steps["train"] if both else math.nan,
        "min_train_loss": min(losses["train"], default=math.nan),
        "min_test_loss": min(losses["test"], default=math.nan),
        "max_loss_ratio": max(ratios, default=math.nan),
    }


def with_transitions(table: DataFrame, out: str | Path, reached: float = REACHED) -> DataFrame:
    """The table with the columns of ``transitions``, read from the metrics of each run; NaN where a cell failed."""
    found = [
        transitions(Run.load(Path(out) / path).metrics if fine else [], reached)
        for path, fine in zip(table["path"], succeeded(table), strict=True)
    ]
    return table.assign(**{name: [row[name] for row in found] for name in transitions([])})


def labels(table: DataFrame, rules: Rules) -> list[str | None]:
    """The label of each row, ``None`` where the run failed.

    Raises:
        UserError: the table lacks a column that the rules compare.
    """
    needed = {column for rule in rules.rules for column, *_ in rule.where}
    if missing := sorted(needed.difference(table.columns)):
        raise UserError(
            f"expected the columns {', '.join(missing)} for the rules of {rules.name}: add them by with_transitions, "
            "or choose other rules"
        )
    columns = {name: table[name].astype(float).tolist() for name in needed}
    return [
        rules.label({name: values[at] for name, values in columns.items()}) if fine else None
        for at, fine in enumerate(succeeded(table))
    ]


def rules_for(table: DataFrame) -> Rules | None:
    """The rules whose columns the table holds: of anchors, or of learning curves; ``None``: neither's."""
    for rules in (ANCHOR, LIU):
        if all(column in table for rule in rules.rules for column, *_ in rule.where):
            return rules
    return None


def _numbers(metrics: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [row[name] for row in metrics if row.get(name) is not None]


def _first(metrics: Sequence[Mapping[str, Any]], name: str, reached: float) -> float:
    """The first step at which a metric is at least ``reached``: infinite for never, NaN where it was never logged."""
    if not _numbers(metrics, name):
        return math.nan
    hits = (float(row["step"]) for row in metrics if row.get(name) is not None and row[name] >= reached)
    return next(hits, math.inf)
