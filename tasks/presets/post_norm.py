"""The published transformer of anchors in any size, and its schedule."""

from typing import Any

from tasks.models.config import TransformerConfig
from tasks.training.config import TrainingConfig


def post_norm(*, d_model: int, **sizes: Any) -> TransformerConfig:
    """Two layers of one head, LayerNorm after each sum, in the proportions of Zhang et al. 2024 (arXiv 2405.05409)
    unless a size is given."""
    usual = {"n_layers": 2, "n_heads": 1, "d_head": d_model // 2, "d_mlp": 3 * d_model, "d_vocab": 201, "n_ctx": 9}
    return TransformerConfig(**{"unembedding_bias": True, **usual, **sizes}, d_model=d_model, normalization="post")


def warm_cosine(*, steps: int, **fields: Any) -> TrainingConfig:
    """AdamW with clipping, a linear warm-up from a twentieth of the rate, and a cosine down to a twentieth, unless a
    field is given."""
    usual = {
        "weight_decay": 0.01,
        "beta2": 0.999,
        "clip_norm": 1.0,
        "warmup_from": 0.05,
        "decay": "cosine",
        "decay_to": 0.05,
        "evaluate_every": max(steps // 50, 100),
    }
    return TrainingConfig(**{**usual, **fields}, steps=steps)
