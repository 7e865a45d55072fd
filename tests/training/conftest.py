"""Small tasks and models that train in a blink, and the contents of a folder to compare."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.families.anchor import AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.config import TransformerConfig
from tasks.models.initialization import Initialization
from tasks.training.config import TrainingConfig


@pytest.fixture
def modular() -> SimpleNamespace:
    """Addition mod 7, full batch, 24 steps."""
    return SimpleNamespace(
        task=ModularArithmetic(p=7, train_fraction=0.6),
        model=TransformerConfig(
            n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=20, n_ctx=3, d_vocab=8, d_vocab_out=7, mlp_bias=True
        ),
        init=Initialization(),
        training=TrainingConfig(steps=24, learning_rate=1e-2, evaluate_every=6, snapshots=4),
    )


@pytest.fixture
def anchor() -> SimpleNamespace:
    """Sixteen keys in sequences of four tokens, post-LN, batches of 16, 20 steps with clipping and a cosine."""
    task = AnchorComposition(
        sequence_length=4, key_low=20, key_high=35, split_modulus=5, sequences_per_pair=7, d_vocab=50
    )
    return SimpleNamespace(
        task=task,
        model=TransformerConfig(
            n_layers=2,
            d_model=16,
            n_heads=1,
            d_head=8,
            d_mlp=24,
            n_ctx=4,
            d_vocab=50,
            d_vocab_out=50,
            normalization="post",
            unembedding_bias=True,
        ),
        init=Initialization(),
        training=TrainingConfig(
            steps=20,
            batch_size=16,
            learning_rate=3e-3,
            weight_decay=0.1,
            clip_norm=1.0,
            warmup_steps=3,
            decay="cosine",
            evaluate_every=10,
            snapshots=3,
        ),
    )


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Digest of every file under a folder, by its path there."""
    return lambda folder: {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
