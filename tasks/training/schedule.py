"""The learning rate as a function of the step, and the steps at which snapshots are taken."""

import math

import numpy as np

from tasks.training.config import TrainingConfig


def learning_rate_factor(config: TrainingConfig, step: int) -> float:
    """Share of the peak learning rate that the update number ``step`` (from 0) uses.

    Linear from ``warmup_from`` at step 0 to 1 at ``warmup_steps``; then 1, or 1 → ``decay_to`` along half a cosine that
    would end at step ``steps``.

    >>> learning_rate_factor(TrainingConfig(warmup_steps=10), 5)
    0.5
    """
    if step < config.warmup_steps:
        return config.warmup_from + (1 - config.warmup_from) * step / config.warmup_steps
    if config.decay == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.decay_to + (1 - config.decay_to) * (1 + math.cos(math.pi * done)) / 2


def snapshot_steps(config: TrainingConfig) -> list[int]:
    """The steps at which weights are kept, ascending; always 0 and the last.

    >>> snapshot_steps(TrainingConfig(steps=1000, snapshots=5))
    [0, 1, 10, 100, 1000]
    """
    if isinstance(config.snapshots, tuple):
        return sorted({0, config.steps, *(step for step in config.snapshots if step < config.steps)})
    spaced = np.geomspace(1, config.steps, config.snapshots - 1) if config.snapshots > 2 else ()
    return sorted({0, config.steps, *(round(step) for step in spaced)})
