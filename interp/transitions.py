"""When things happen in training: transition times and the phases of grokking.

Pure functions on curves. A curve has one value per logged step; NaN means not measured there. An event seen at one
logged step happened since the one before, so every time is an interval, a ``Transition``; what does not happen is no
large number but "not reached".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from interp.thresholds import FITTED
from tasks.base import UserError

Curve = Sequence[float | int]


@dataclass(frozen=True, kw_only=True)
class Transition:
    """An event later than step ``after`` and not later than step ``by``.

    ``after`` is None where it had happened at the first logged step, ``by`` where it does not happen; ``after`` is then
    the last logged step.
    """

    after: int | None
    by: int | None

    @property
    def reached(self) -> bool:
        """Whether it happens at all."""
        return self.by is not None

    def __str__(self) -> str:
        if self.by is None:
            return "not reached" if self.after is None else f"not by {self.after:,}"
        return f"by {self.by:,}" if self.after is None else f"{self.after:,}–{self.by:,}"


def first(steps: Sequence[int], happened: Sequence[bool | None]) -> Transition:
    """The first step at which something has happened; ``None`` where it was not measured.

    >>> first([0, 10, 20, 30], [False, None, True, False])
    Transition(after=0, by=20)

    Raises:
        UserError: not one value per step, or steps that do not ascend.
    """
    if len(happened) != len(steps):
        raise UserError(f"expected one value per step, got {len(happened)} for {len(steps)} steps")
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise UserError("expected steps in ascending order: each logged once")
    after = None
    for step, seen in zip(steps, happened, strict=True):
        if seen:
            return Transition(after=after, by=step)
        if seen is not None:
            after = step
    return Transition(after=after, by=None)


def fitted(steps: Sequence[int], accuracy: Curve) -> Transition:
    """When an accuracy is first at least .99: of train memorisation, of test generalisation. Later dips are ignored."""
    return first(steps, [None if math.isnan(value) else value >= FITTED for value in accuracy])


def cleanup_end(
    steps: Sequence[int],
    test_loss: Curve,
    restricted_loss: Curve,
    sum_of_squares: Curve,
    generalised: Transition,
) -> Transition:
    """When nothing is left to clean: the first step from generalisation on at which both hold.

    * The logarithms of restricted and test loss differ by less than 10 %: |lg r − lg t| < .1·|lg t|.
    * The sum of squared weights changed by less than 1 % per 1,000 steps since the step before.

    Not reached where generalisation is not.
    """
    settled: list[bool | None] = []
    for i, (step, test, restricted) in enumerate(zip(steps, test_loss, restricted_loss, strict=True)):
        if generalised.by is None or step < generalised.by or i == 0:
            settled.append(False)
            continue
        gap = abs(_log10(restricted) - _log10(test)) / abs(_log10(test) or math.nan)
        change = abs(sum_of_squares[i] / sum_of_squares[i - 1] - 1) / (step - steps[i - 1]) * 1000
        settled.append(None if math.isnan(gap) or math.isnan(change) else gap < 0.1 and change < 0.01)
    return first(steps, settled)


@dataclass(frozen=True, kw_only=True)
class Phases:
    """The ends of the three phases of grokking (Nanda et al. 2023); one that is not reached leaves the next ones so."""

    memorisation: Transition
    circuit_formation: Transition
    cleanup: Transition


def phases(
    steps: Sequence[int],
    train_loss: Curve,
    test_loss: Curve,
    excluded_loss: Curve,
    cleanup: Transition,
) -> Phases:
    """Memorisation, circuit formation and cleanup of a run, which its authors drew by eye, by a rule.

    * Memorisation ends where train loss is below .01 and excluded loss has risen to twice its minimum.
    * Circuit formation ends, not before that, where test loss after its maximum falls below half of it.
    * Cleanup ends at ``cleanup_end``, at once where that came before.

    Misleads where excluded loss is measured with keys that the final model does not use, and on a run that generalises
    at once: excluded loss may then have its minimum at the start.
    """
    memorised = first(steps, _rose(train_loss, excluded_loss))
    top = _place(test_loss, largest=True)
    fell: list[bool | None] = [
        None if math.isnan(value) else i > top and value < test_loss[top] / 2 and _from(memorised, steps[i])
        for i, value in enumerate(test_loss)
    ]
    formed = first(steps, fell)
    if formed.by is None:
        cleanup = Transition(after=formed.after, by=None)
    elif cleanup.by is not None and cleanup.by < formed.by:
        cleanup = formed
    return Phases(memorisation=memorised, circuit_formation=formed, cleanup=cleanup)


def _rose(train_loss: Curve, excluded_loss: Curve) -> list[bool | None]:
    """Where train loss is low and excluded loss has left its minimum behind."""
    bottom = _place(excluded_loss, largest=False)
    return [
        None
        if math.isnan(train) or math.isnan(excluded)
        else train < 0.01 and i > bottom and excluded >= 2 * excluded_loss[bottom]
        for i, (train, excluded) in enumerate(zip(train_loss, excluded_loss, strict=True))
    ]


def _place(curve: Curve, *, largest: bool) -> int:
    """Index of the first extreme value that was measured; past the end where none was."""
    measured = [(-value if largest else value, i) for i, value in enumerate(curve) if not math.isnan(value)]
    return min(measured)[1] if measured else len(curve)


def _from(event: Transition, step: int) -> bool:
    return event.by is not None and step >= event.by


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else math.nan
