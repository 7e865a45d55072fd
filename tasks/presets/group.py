"""Composition in a finite group. *paper*: S_5 with the transformer of Chughtai et al. 2023 (arXiv 2302.03025), which is
that of modular addition, for 50,000 steps. *tiny*: S_4, by an MLP."""

from tasks.families.group import GroupComposition
from tasks.models.config import MLPConfig
from tasks.models.initialization import Initialization
from tasks.presets.base import Preset
from tasks.presets.modular import MAINLINE
from tasks.training.config import TrainingConfig

PRESETS = {
    "tiny": Preset(
        task=GroupComposition(group="S_4", form="pair", train_fraction=0.8),
        model=MLPConfig(n_ctx=2, d_vocab=24, d_vocab_out=24, d_hidden=(64,), input="concatenated", d_embed=32),
        init=Initialization(gamma=0.5),
        training=TrainingConfig(steps=3_000, learning_rate=3e-3, snapshots=(0, 200)),
    ),
    "paper": Preset(
        task=GroupComposition(split="torch_randperm"),
        model=MAINLINE,
        init=Initialization(scheme="progress_measures"),
        training=TrainingConfig(steps=50_000),
    ),
}
