"""Anchor composition. *paper*: the two-layer model of Zhang et al. 2024 (arXiv 2405.05409) as its logged runs had it
(warm-up × 20); γ is the init scale: 0.5 large, 0.8 small, at d_model 400. *default*: a small model, half of the keys
and short sequences, trained until fitted; γ 0.2 is very large, 0.8 large, 2.1 small. *tiny*: fits the taught pairs
from γ = 0.5; twelve of sixteen seeds end symmetric."""

from tasks.families.anchor import AnchorComposition
from tasks.models.initialization import Initialization
from tasks.presets.base import Preset
from tasks.presets.post_norm import post_norm, warm_cosine

PRESETS = {
    "tiny": Preset(
        task=AnchorComposition(sequence_length=4, sequences_per_pair=2_000, d_vocab=110),
        model=post_norm(d_model=32, d_mlp=64, n_ctx=4),
        init=Initialization(gamma=0.5),
        training=warm_cosine(steps=1_500, batch_size=256, learning_rate=3e-3, warmup_steps=100, snapshots=(0,)),
    ),
    "default": Preset(
        task=AnchorComposition(sequence_length=4, key_high=59, sequences_per_pair=5_000, d_vocab=80),
        model=post_norm(d_model=64, n_ctx=4),
        init=Initialization(gamma=0.8),
        training=warm_cosine(
            steps=10_000,
            batch_size=512,
            learning_rate=2e-3,
            weight_decay=0.1,
            warmup_steps=1_500,
            warmup_from=0.0,
            decay_to=0.0,
            evaluate_every=250,
            snapshots=(0, 500, 1_000, 2_000),
            stop_below=1e-3,
            stop_on="train",
        ),
    ),
    "paper": Preset(
        task=AnchorComposition(),
        model=post_norm(d_model=400, n_ctx=20),
        init=Initialization(gamma=0.5),
        training=warm_cosine(steps=77_700, batch_size=2_048, learning_rate=2e-4, warmup_steps=3_700, snapshots=12),
    ),
}
