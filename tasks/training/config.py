"""How a model is trained, apart from what and which. It imports no torch, so that reading a command line needs none."""

from dataclasses import dataclass
from typing import Literal, get_args

from tasks.base import Fields, UserError

Dtype = Literal["float32", "float64"]
Decay = Literal["constant", "cosine"]
Decayed = Literal["all", "matrices"]
Autocast = Literal["none", "bfloat16"]
SnapshotDtype = Literal["same", "float16"]
Part = Literal["train", "test"]
OptimizerName = Literal["adamw", "muon"]
Objective = Literal["cross_entropy", "stablemax", "squared_error"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Fields):
    """An optimiser with a schedule. Its defaults are those of Nanda et al. 2023 (arXiv 2301.05217).

    Args:
        steps: optimiser steps.
        batch_size: examples per step, drawn from a reshuffled training set, the last partial batch dropped; ``None``:
            all.
        optimizer: ``adamw``; or ``muon``, which moves each weight matrix between the embedding and the unembedding by
            an orthogonal matrix, and all else as AdamW does (``tasks.training.muon``).
        learning_rate: the peak of the schedule.
        weight_decay: decoupled; each step takes learning_rate · weight_decay of a weight away.
        decayed: whether it covers all parameters or only the weight matrices (not biases and LayerNorm weights).
        l1_penalty: times the sum of absolute weights (those of ``decayed``), added to the loss.
        beta1, beta2, eps: of AdamW.
        momentum: of muon.
        clip_norm: largest gradient norm of one model; ``None``: no clipping.
        warmup_steps: linear rise from ``warmup_from`` · learning_rate to learning_rate.
        decay: what follows: ``constant``, or ``cosine`` down to ``decay_to`` · learning_rate at the last step.
        objective: what is minimised where targets are answers: ``cross_entropy``; ``stablemax``, cross entropy with
            s(x) = x + 1 for x ≥ 0 and 1/(1−x) below in place of the exponential (Prieto et al. 2025, arXiv
            2501.04697); ``squared_error`` to one-hot targets. Metrics report cross entropy whatever it is, and what is
            minimised beside it.
        loss_dtype: in which the minimised loss is computed. float32 softmax cannot tell losses below about 1e-7 from
            0, which is there to be studied; evaluations always use float64.
        grokfast: λ of Grokfast-EMA (Lee et al. 2024, arXiv 2405.20233): λ times a moving average of the gradients is
            added to each; 0: none. ``grokfast_alpha``: α of that average.
        perpendicular: only the part of a tensor's gradient perpendicular to the tensor is followed, at the gradient's
            own length (⊥Grad, Prieto et al. 2025).
        frozen: names of parameters that stay as they are.
        dtype: of the weights.
        autocast: ``bfloat16`` takes the matrix products of a training step in bfloat16, which processors with matrix
            units do many times faster; weights, sums and losses stay in ``dtype``, and evaluations are never rounded.
        evaluate_every: steps between lines of metrics.
        snapshots: number of log-spaced snapshots, the first step and the last among them, or the steps
            themselves, those after the last left out.
        snapshot_dtype: in which they are written: ``same`` as the weights, or ``float16``, half as large (of float64 a
            quarter), which keeps eleven bits of a weight, fewer below 6e-5. Metrics are of the weights before rounding.
        stop_below: end a model's training at the evaluation where its loss falls below this.
        stop_on: the loss that ``stop_below`` looks at: of the training set (fitted) or the test set (solved).

    Raises:
        UserError: a value outside its range.
    """

    steps: int = 25_000
    batch_size: int | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    decayed: Decayed = "all"
    l1_penalty: float = 0.0
    optimizer: OptimizerName = "adamw"
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    momentum: float = 0.95
    clip_norm: float | None = None
    warmup_steps: int = 10
    warmup_from: float = 0.0
    decay: Decay = "constant"
    decay_to: float = 0.0
    objective: Objective = "cross_entropy"
    loss_dtype: Dtype = "float64"
    grokfast: float = 0.0
    grokfast_alpha: float = 0.98
    perpendicular: bool = False
    frozen: tuple[str, ...] = ()
    dtype: Dtype = "float32"
    autocast: Autocast = "none"
    evaluate_every: int = 100
    snapshots: int | tuple[int, ...] = 10
    snapshot_dtype: SnapshotDtype = "same"
    stop_below: float | None = None
    stop_on: Part = "test"

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("evaluate_every", 1),
            ("warmup_steps", 0),
            ("weight_decay", 0),
            ("l1_penalty", 0),
            ("grokfast", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"expected {name} of at least {least}, got {value}")
        for name, choices in (
            ("optimizer", OptimizerName),
            ("decayed", Decayed),
            ("decay", Decay),
            ("objective", Objective),
            ("loss_dtype", Dtype),
            ("dtype", Dtype),
            ("autocast", Autocast),
            ("snapshot_dtype", SnapshotDtype),
            ("stop_on", Part),
        ):
            if getattr(self, name) not in get_args(choices):
                raise UserError(f"expected {name} among {', '.join(get_args(choices))}, got {getattr(self, name)!r}")
        for name in ("beta1", "beta2", "momentum", "grokfast_alpha"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"expected {name} in [0, 1), got {getattr(self, name)}")
        for name in ("eps", "clip_norm"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UserError(f"expected {name} above 0, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise UserError(f"expected a learning_rate above 0, got {self.learning_rate}")
        if isinstance(self.snapshots, tuple) and any(step < 0 for step in self.snapshots):
            raise UserError(f"expected snapshot steps of at least 0, got {self.snapshots}")
