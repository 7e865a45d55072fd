"""What counts as following a rule, in answers, in patched activations and in a model trained on: conventions of this
toolkit, fixed before the first shipped models were trained."""

from interp.statistics import Interval

FOLLOWS = 0.90
"""Share of answers that a rule must explain; the interval's lower end must reach ``FOLLOWS_LOW``."""
FOLLOWS_LOW = 0.80
PLACEBO = 0.05
"""Share of answers that a placebo may give by the same rule."""
FITTED = 0.99
"""Accuracy on what was trained below which nothing is concluded."""
RECITES = 0.50
"""Accuracy on unseen data at or below which a fitted model recites."""

NEITHER = 0.20
"""Share of a candidate rule up to which a reciting model does not follow it."""


def followed(share: Interval) -> bool:
    """Whether a rule explains enough of the answers, the interval's lower end included."""
    return share.value >= FOLLOWS and share.low >= FOLLOWS_LOW
