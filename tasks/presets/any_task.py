"""The preset of a family that has none of its own: its default task and a small network that can read it."""

from typing import Any

from tasks.base import EndlessTask
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.initialization import Initialization
from tasks.presets.base import Preset
from tasks.training.config import TrainingConfig

_TRANSFORMER = TransformerConfig(
    n_layers=1,
    d_model=64,
    n_heads=4,
    d_head=16,
    d_mlp=128,
    d_vocab=2,
    n_ctx=2,
    normalization="pre",
    mlp_bias=True,
)
_PERCEPTRON = MLPConfig(n_ctx=1, d_vocab_out=1, d_hidden=(64,), input="vector", constant_input=True)


def presets(task_class: type) -> dict[str, Preset]:
    """*tiny*: a transformer of one layer where inputs are sequences, a perceptron where they are a few numbers."""
    task: Any = task_class()
    sequence = task.d_vocab or getattr(task, "d_input", None)
    model = (_TRANSFORMER if sequence else _PERCEPTRON).for_task(task)
    batch_size = 64 if isinstance(task, EndlessTask) else None
    training = TrainingConfig(steps=1_000, batch_size=batch_size, learning_rate=3e-3, snapshots=(0,))
    return {"tiny": Preset(task=task, model=model, init=Initialization(gamma=0.5), training=training)}
