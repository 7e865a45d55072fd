"""Training: ``TrainingConfig``, ``train``, ``Run``. Names load when they are used."""

from typing import TYPE_CHECKING, Any

from tasks.lazy import lazily

if TYPE_CHECKING:
    from tasks.training.config import TrainingConfig
    from tasks.training.run import Run
    from tasks.training.trainer import train

__all__ = ["Run", "TrainingConfig", "train"]


def __getattr__(name: str) -> Any:
    return lazily(
        __name__,
        name,
        {
            "TrainingConfig": "tasks.training.config:TrainingConfig",
            "Run": "tasks.training.run:Run",
            "train": "tasks.training.trainer:train",
        },
    )
