"""What a preset is: task, model, initialisation and training that belong together."""

from dataclasses import dataclass
from typing import Any

from tasks.models.initialization import Initialization
from tasks.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What ``train`` needs, under one name. The model takes vocabulary and length of the task."""

    task: Any
    model: Any
    init: Initialization
    training: TrainingConfig

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", self.model.for_task(self.task))
