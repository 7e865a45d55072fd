"""Task, model, initialisation and training that belong together, per task and size.

*tiny* takes seconds to a minute, *default* minutes on two cores, *paper* is the published setting; *fast* is the
published problem with whatever makes its solution appear soonest. Modular addition has two more: *explorable* and
*circle* are the perceptrons of the explorable "Do Machine Learning Models Memorize or Generalize?".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

from tasks.anchor import AnchorComposition
from tasks.base import Task, UserError
from tasks.groups import GroupComposition
from tasks.intervals import AnchorIntervals
from tasks.memory_reasoning import MemoryReasoning
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.initialization import Initialization
from tasks.modular import ModularArithmetic
from tasks.parity import SparseParity
from tasks.questions import ReadingComprehension, WorkingMemory
from tasks.recall import Classification, Identity, Recitation
from tasks.registry import joined_families
from tasks.regression import SineRegression
from tasks.sequence import SequenceTask
from tasks.training.config import TrainingConfig

Size = Literal["tiny", "default", "fast", "paper", "explorable", "circle"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What ``train`` needs, under one name."""

    task: Any
    model: Any
    init: Initialization
    training: TrainingConfig


def fitted(model: Any, task: Task) -> Any:
    """The architecture with the task's vocabulary, and its length; a transformer may be made for longer sequences."""
    n_ctx = max(model.n_ctx, task.n_ctx) if isinstance(model, TransformerConfig) else task.n_ctx
    return replace(model, d_vocab=task.d_vocab, d_vocab_out=task.d_vocab_out, n_ctx=n_ctx)


def modular(size: Size) -> Preset:
    """Modular addition. *paper*: the mainline run of Nanda et al. 2023 (arXiv 2301.05217). *fast*: its data and its
    model at three times its learning rate, until the test loss is below 1e-5. *tiny*: the setting under which most of
    seeds 100 to 107 end in a verdict, seven, of those tried. *explorable*, *circle*: see ``perceptron``."""
    if size in ("explorable", "circle"):
        return perceptron(size)
    if size == "tiny":
        task = ModularArithmetic(p=59, train_fraction=0.6)
        model = TransformerConfig(
            n_layers=1, d_model=64, n_heads=4, d_head=16, d_mlp=256, d_vocab=60, n_ctx=3, mlp_bias=True
        )
        training = TrainingConfig(steps=1_500, learning_rate=1e-2, decay="cosine", decay_to=0.0, snapshots=(0, 200))
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
            training = TrainingConfig(steps=6_000, learning_rate=3e-3, evaluate_every=50, stop_below=1e-5)
    return Preset(
        task=task, model=fitted(model, task), init=Initialization(scheme="progress_measures"), training=training
    )


def perceptron(size: Size) -> Preset:
    """Addition mod 67 of unordered pairs by one ReLU layer between tied embeddings, Pearce et al. 2023. *explorable*:
    24 neurons, all weights trained. *circle*: 5 neurons on the circle of frequency 1, 20 trained weights; of seeds 0 to
    7, 3, 4, 5 and 7 solve it, the others stop at 13 to 17 % with their angles unevenly spread.

    The published loss is the mean over answers too, cross entropy/67. AdamW divides a common factor of all gradients
    out, up to its ε: with 67 times theirs the steps are the same. Their linear layers are drawn from a normal
    distribution cut at two standard deviations, which leaves 0.88 of one; here they are Gaussian of that width.
    """
    small = size == "circle"
    task = ModularArithmetic(p=67, form="pair", unordered=True, train_fraction=0.3 if small else 0.4)
    model = MLPConfig(
        n_ctx=2,
        d_vocab=67,
        d_vocab_out=67,
        d_hidden=(5,) if small else (24,),
        input="embedding",
        d_embed=2 if small else 500,
        tied_unembedding=True,
    )
    training = TrainingConfig(steps=50_000, eps=67e-8, warmup_steps=0, dtype="float64", snapshots=_STORY)
    if small:
        init = Initialization(scheme="gain", mlp=0.88, circle=(1,))
        training = replace(training, steps=15_000, learning_rate=1e-2, weight_decay=1e-3, frozen=("embed.W_E",))
    else:
        # the table's fan-in is 67, its rows; ours is 500
        init = Initialization(scheme="gain", mlp=0.88, embedding=(2 / 67) ** 0.5 * 500**0.5)
    return Preset(task=task, model=model, init=init, training=training)


_STORY = (0, 200, 500, 1_000, 2_000, 4_000, 7_000, *range(10_000, 50_000, 5_000))


def group(size: Size) -> Preset:
    """Composition in a finite group. *paper*: S_5 with the transformer of Chughtai et al. 2023 (arXiv 2302.03025),
    which is that of modular addition, for 50,000 steps. *tiny*: S_4, by an MLP."""
    if size == "tiny":
        task = GroupComposition(group="S_4", form="pair", train_fraction=0.8)
        model = MLPConfig(n_ctx=2, d_vocab=24, d_vocab_out=24, d_hidden=(64,), input="concatenated", d_embed=32)
        init = Initialization(gamma=0.5)
        training = TrainingConfig(steps=3_000, learning_rate=3e-3, snapshots=(0, 200))
    else:
        task = GroupComposition(split="torch_randperm")
        model, init = modular("paper").model, Initialization(scheme="progress_measures")
        training = TrainingConfig(steps=50_000)
    return Preset(task=task, model=fitted(model, task), init=init, training=training)


def anchor(size: Size) -> Preset:
    """Anchor composition. *paper*: the two-layer model of Zhang et al. 2024 (arXiv 2405.05409) as its logged runs had
    it (warm-up × 20); γ is the init scale: 0.5 large, 0.8 small, at d_model 400. *default*: a small model, half of the
    keys and short sequences, trained until fitted; γ 0.2 is very large, 0.8 large, 2.1 small. *tiny*: fits
    the taught pairs from γ = 0.5; twelve of sixteen seeds end symmetric."""
    if size == "tiny":
        task = AnchorComposition(sequence_length=4, sequences_per_pair=2_000, d_vocab=110)
        model = replace(_post_ln(d_model=32, n_ctx=4), d_mlp=64)
        training = _warm_cosine(steps=1_500, batch_size=256, learning_rate=3e-3, warmup_steps=100, snapshots=(0,))
    elif size == "default":
        task = AnchorComposition(sequence_length=4, key_high=59, sequences_per_pair=5_000, d_vocab=80)
        model = _post_ln(d_model=64, n_ctx=4)
        story = (0, 500, 1_000, 2_000)
        training = replace(
            _warm_cosine(steps=10_000, batch_size=512, learning_rate=2e-3, warmup_steps=1_500, snapshots=story),
            warmup_from=0.0,
            decay_to=0.0,
            weight_decay=0.1,
            evaluate_every=250,
            stop_below=1e-3,
            stop_on="train",
        )
    else:
        task = AnchorComposition()
        model = _post_ln(d_model=400, n_ctx=20)
        training = _warm_cosine(steps=77_700, batch_size=2_048, learning_rate=2e-4, warmup_steps=3_700, snapshots=12)
    init = Initialization(gamma=0.8 if size == "default" else 0.5)
    return Preset(task=task, model=fitted(model, task), init=init, training=training)


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


_SMALL: dict[str, Any] = {"key_low": 10, "key_high": 29, "split_modulus": 7, "d_vocab": 40, "sequence_length": 6}
_BENCHMARK: dict[str, tuple[type[SequenceTask], dict[str, Any], int]] = {
    "classification": (Classification, _SMALL | {"n_train": 2_000}, 400),
    "identity": (Identity, _SMALL, 400),
    "intervals": (
        AnchorIntervals,
        _SMALL | {"n_train": 4_000, "offsets": (1, 2, 3, 4), "masked": ((10, 14), (15, 19), (20, 24), (25, 29))},
        1_000,
    ),
    "reading": (ReadingComprehension, _SMALL | {"n_train": 4_000, "n_anchors": 2}, 1_000),
    "recitation": (Recitation, _SMALL, 1_000),
    "working_memory": (
        WorkingMemory,
        _SMALL | {"n_train": 8_000, "sequence_length": 10, "split_modulus": 10},
        1_500,
    ),
}
"""Task family → its class, the fields of its tiny task (those of the paper's are the defaults), and the tiny steps."""


def benchmark(family: str, size: Size) -> Preset:
    """A task of the anchor-function benchmark, Zhang et al. 2024 (arXiv 2401.08309). *paper*: its model, 4 layers of 4
    heads (8 of 6 for intervals), in the usual initialisation (normal here, uniform there, of equal variance), for
    4,000 epochs, or as many steps as 4,000 epochs of 4,000 sequences have. *tiny*: fewer keys, two layers of one
    head; it solves every task but intervals, whose masked keys it gets wrong."""
    task_class, fields, steps = _BENCHMARK[family]
    if size == "tiny":
        task = task_class(**fields)
        model = replace(_post_ln(d_model=32, n_ctx=task.n_ctx), d_head=32, d_mlp=64)
        init = Initialization(gamma=0.5)
        training = _warm_cosine(steps=steps, batch_size=64, learning_rate=3e-3, warmup_steps=100, snapshots=(0,))
    else:
        task = task_class()
        large = family == "intervals"
        model = TransformerConfig(
            n_layers=8 if large else 4,
            d_model=400,
            n_heads=6 if large else 4,
            d_head=64,
            d_mlp=1_200,
            d_vocab=task.d_vocab,
            n_ctx=task.n_ctx,
            normalization="post",
        )
        init = Initialization(scheme="gain", gain=3**-0.5, embedding=1_200**0.5)  # torch's own: ±1/√fan_in, N(0, 1)
        steps = 4_000 * min(task.n_train, 4_000) // 100
        rate = 1e-4 if large else 2e-4
        training = _warm_cosine(steps=steps, batch_size=100, learning_rate=rate, warmup_steps=steps // 10, snapshots=12)
        training = replace(training, warmup_from=0.1, decay_to=0.1)
    return Preset(task=task, model=fitted(model, task), init=init, training=training)


def memory_reasoning(size: Size) -> Preset:
    """Memory and reasoning anchors. *paper*: the task of Yao et al. 2025 (arXiv 2502.04375), with the model and the
    schedule of the anchor composition (it publishes neither) until fitted; γ 0.3 is large, 0.8 small."""
    if size == "tiny":
        task = MemoryReasoning(
            key_low=10,
            key_high=29,
            sequence_length=4,
            split_modulus=7,
            n_train=8_000,
            d_vocab=50,
            n_memory=3,
            n_reasoning=4,
            held_out=((4, 6), (6, 4)),
        )
        model = replace(_post_ln(d_model=32, n_ctx=4), d_head=32, d_mlp=64)
        training = _warm_cosine(steps=2_000, batch_size=128, learning_rate=3e-3, warmup_steps=100, snapshots=(0,))
    else:
        task = MemoryReasoning()
        model = _post_ln(d_model=400, n_ctx=20)
        training = _warm_cosine(steps=20_000, batch_size=2_048, learning_rate=2e-4, warmup_steps=970, snapshots=12)
        training = replace(training, stop_below=1e-3, stop_on="train")
    init = Initialization(gamma=0.5 if size == "tiny" else 0.8)
    return Preset(task=task, model=fitted(model, task), init=init, training=training)


def parity(size: Size) -> Preset:
    """Sparse parity. *paper*: a cell of the sweep of Pearce et al. 2023 (the explorable "Do Machine Learning Models
    Memorize or Generalize?") that groks; other cells are other hidden widths (16 to 258), weight decays (0.01 to 1) and
    training sets (750 to 1,750). *explorable*: the model of its first figure, 1,200 sequences under an L1 penalty. It
    publishes neither width, rate nor penalty; these are the sweep's, and the smallest of 1e-5, 3e-5, …, 1e-3 under
    which seeds 100 to 102 took more than twice as long to generalise as to memorise."""
    if size == "explorable":
        task, width, steps, decay = SparseParity(n_train=1_200), 64, 5_000, 0.0
    elif size == "tiny":
        task, width, steps, decay = SparseParity(n_bits=20, k=2, n_train=400, n_test=1_000), 32, 1_000, 0.3
    else:
        task, width, steps, decay = SparseParity(n_train=1_000), 64, 20_000, 0.1
    model = MLPConfig(
        n_ctx=task.n_ctx, d_vocab=2, d_vocab_out=2, d_hidden=(width,), constant_input=True, one_logit=True
    )
    training = TrainingConfig(steps=steps, learning_rate=3e-3, weight_decay=decay, warmup_steps=0)
    if size == "paper":
        training = replace(training, beta1=0.99)
    if size == "explorable":
        story = (0, *range(100, 1_000, 100), 1_200, 1_500, 2_000, 3_000)
        training = replace(training, l1_penalty=1e-5, evaluate_every=50, snapshots=story)
    return Preset(task=task, model=model, init=Initialization(scheme="gain"), training=training)


def regression(_: Size) -> Preset:
    """Initial condensation of a two-layer network, Zhou et al. 2022 (arXiv 2105.11686): 100 steps of Adam from weights
    of standard deviation 0.005. tanh is trained at 1e-3; sigmoid at 8e-4, softplus at 2.5e-4."""
    task = SineRegression()
    model = MLPConfig(
        n_ctx=task.n_ctx, d_vocab_out=1, d_hidden=(50,), input="vector", constant_input=True, act_fn="tanh"
    )
    training = TrainingConfig(
        steps=100, weight_decay=0.0, beta2=0.999, warmup_steps=0, evaluate_every=10, snapshots=(0, 10, 20, 50)
    )
    return Preset(task=task, model=fitted(model, task), init=Initialization(gamma=0.0, gain=0.005), training=training)


PRESETS: dict[str, Callable[[Size], Preset]] = {
    "anchor": anchor,
    **{family: partial(benchmark, family) for family in _BENCHMARK},
    "group": group,
    "memory_reasoning": memory_reasoning,
    "modular": modular,
    "parity": parity,
    "regression": regression,
}
SIZES: dict[str, tuple[Size, ...]] = {
    **dict.fromkeys(PRESETS, ("tiny", "paper")),
    "anchor": ("tiny", "default", "paper"),
    "modular": ("tiny", "default", "fast", "paper", "explorable", "circle"),
    "parity": ("tiny", "paper", "explorable"),
    "regression": ("paper",),
}


def families() -> tuple[str, ...]:
    """Names of all task families, those of other packages last."""
    return *PRESETS, *joined_families()


def known(family: str) -> bool:
    """Whether there is such a family. Other packages are asked only where it is none of ours."""
    return family in PRESETS or family in joined_families()


def sizes(family: str) -> tuple[str, ...]:
    """Names of a family's presets, the smallest first."""
    return SIZES[family] if family in SIZES else tuple(joined_families()[family].presets)


def usual_size(family: str) -> str:
    """What ``train`` takes where no preset is named: *default*, or the first there is."""
    return "default" if "default" in sizes(family) else sizes(family)[0]


def preset(family: str, size: str) -> Preset:
    """The preset of a task family.

    Raises:
        UserError: no such family, or it has no such size.
    """
    if not known(family):
        raise UserError(f"expected a task among {', '.join(families())}, got {family!r}")
    if size not in sizes(family):
        raise UserError(f"expected a preset among {', '.join(sizes(family))} for {family}, got {size!r}")
    if family in PRESETS:
        return PRESETS[family](cast(Size, size))
    return joined_families()[family].presets[size]
