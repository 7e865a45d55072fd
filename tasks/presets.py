"""Task, model, initialisation and training that belong together, per task and size.

*tiny* takes seconds, *default* minutes on two cores, *paper* is the published setting; *fast* is the published problem
with whatever makes its solution appear soonest.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from tasks.anchor import AnchorComposition
from tasks.base import Task, UserError
from tasks.models.config import TransformerConfig
from tasks.models.initialization import Initialization
from tasks.modular import ModularArithmetic
from tasks.training.config import TrainingConfig

Size = Literal["tiny", "default", "fast", "paper"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What ``train`` needs, under one name."""

    task: Any
    model: TransformerConfig
    init: Initialization
    training: TrainingConfig


def fitted(model: TransformerConfig, task: Task) -> TransformerConfig:
    """The architecture with the task's vocabulary, and at least its length."""
    return replace(model, d_vocab=task.d_vocab, d_vocab_out=task.d_vocab_out, n_ctx=max(model.n_ctx, task.n_ctx))


def modular(size: Size) -> Preset:
    """Modular addition. *paper*: the mainline run of Nanda et al. 2023 (arXiv 2301.05217). *fast*: its data and its
    model at three times its learning rate, until the test loss is below 1e-3; that is grokking, before the cleanup."""
    if size == "tiny":
        task = ModularArithmetic(p=23, train_fraction=0.7)
        model = TransformerConfig(
            n_layers=1, d_model=32, n_heads=2, d_head=16, d_mlp=64, d_vocab=24, n_ctx=3, mlp_bias=True
        )
        training = TrainingConfig(steps=2_500, learning_rate=3e-3, snapshots=(0, 200))
    elif size == "default":
        task = ModularArithmetic(p=59, train_fraction=0.4)
        model = TransformerConfig(
            n_layers=1, d_model=128, n_heads=4, d_head=32, d_mlp=256, d_vocab=60, n_ctx=3, mlp_bias=True
        )
        training = TrainingConfig(steps=3_000, learning_rate=3e-3)
    else:
        task = ModularArithmetic(p=113, train_fraction=0.3, split="python_shuffle")
        model = TransformerConfig(
            n_layers=1, d_model=128, n_heads=4, d_head=32, d_mlp=512, d_vocab=114, n_ctx=3, mlp_bias=True
        )
        story = (200, 1_000, 2_000, 4_000, 6_000, 8_000, 10_000, 12_000, 16_000)
        training = TrainingConfig(steps=40_000, snapshots=story)
        if size == "fast":
            training = TrainingConfig(steps=6_000, learning_rate=3e-3, evaluate_every=50, stop_below=1e-3)
    return Preset(
        task=task, model=fitted(model, task), init=Initialization(scheme="progress_measures"), training=training
    )


def anchor(size: Size) -> Preset:
    """Anchor composition. *paper*: the two-layer model of Zhang et al. 2024 (arXiv 2405.05409) as its logged runs had
    it (warm-up × 20); γ is the init scale: 0.5 large, 0.8 small, at d_model 400. *default*: a smaller model and shorter
    sequences, trained until fitted; γ 0.5 is large, 1.05 small. *tiny*: symmetric at any scale."""
    if size == "tiny":
        task = AnchorComposition(sequence_length=4, sequences_per_pair=2_000, d_vocab=110)
        model = replace(_post_ln(d_model=32, n_ctx=4), d_mlp=64)
        training = _warm_cosine(steps=1_500, batch_size=256, learning_rate=3e-3, warmup_steps=100, snapshots=(0,))
    elif size == "default":
        task = AnchorComposition(sequence_length=4)
        model = _post_ln(d_model=256, n_ctx=4)
        training = replace(
            _warm_cosine(steps=12_000, batch_size=1_024, learning_rate=4e-4, warmup_steps=2_500, snapshots=(0,)),
            warmup_from=0.0,
            decay_to=0.0,
            evaluate_every=500,
            stop_below=1e-3,
            stop_on="train",
        )
    else:
        task = AnchorComposition()
        model = _post_ln(d_model=400, n_ctx=20)
        training = _warm_cosine(steps=77_700, batch_size=2_048, learning_rate=2e-4, warmup_steps=3_700, snapshots=12)
    return Preset(task=task, model=fitted(model, task), init=Initialization(gamma=0.5), training=training)


def _post_ln(d_model: int, n_ctx: int) -> TransformerConfig:
    return TransformerConfig(
        n_layers=2,
        d_model=d_model,
        n_heads=1,
        d_head=d_model // 2,
        d_mlp=3 * d_model,
        d_vocab=201,
        n_ctx=n_ctx,
        normalization="post",
        unembedding_bias=True,
    )


def _warm_cosine(
    *, steps: int, batch_size: int, learning_rate: float, warmup_steps: int, snapshots: int | tuple[int, ...]
) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=0.01,
        beta2=0.999,
        clip_norm=1.0,
        warmup_steps=warmup_steps,
        warmup_from=0.05,
        decay="cosine",
        decay_to=0.05,
        evaluate_every=max(steps // 50, 100),
        snapshots=snapshots,
    )


PRESETS = {"anchor": anchor, "modular": modular}
SIZES: dict[str, tuple[Size, ...]] = {
    "anchor": ("tiny", "default", "paper"),
    "modular": ("tiny", "default", "fast", "paper"),
}


def preset(family: str, size: str) -> Preset:
    """The preset of a task family.

    Raises:
        UserError: no such family, or it has no such size.
    """
    if family not in PRESETS:
        raise UserError(f"expected a task among {', '.join(PRESETS)}, got {family!r}")
    if size not in SIZES[family]:
        raise UserError(f"expected a preset among {', '.join(SIZES[family])} for {family}, got {size!r}")
    return PRESETS[family](cast(Size, size))
