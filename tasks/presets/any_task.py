"""The preset of a family that has none of its own: its default task and a small network that can read it."""

from typing import Any

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
    """*tiny*: a transformer of one layer where the task has tokens, a perceptron of one where it has numbers."""
    task: Any = task_class()
    model = _TRANSFORMER if task.d_vocab else _PERCEPTRON
    training = TrainingConfig(steps=1_000, learning_rate=3e-3, snapshots=(0,))
    return {"tiny": Preset(task=task, model=model, init=Initialization(gamma=0.5), training=training)}
