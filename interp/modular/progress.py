"""Progress measures of a model of a ± b mod p: how far has the circuit formed that adds on circles?

Loss and accuracy say when a model generalises, not how far it is on the way. These measures split the model by its key
frequencies (``interp.modular.fourier``) and follow each part (Nanda et al. 2023; Chughtai et al. 2023):

* losses of the key frequencies alone and of all else (``interp.modular.restricted``);
* the read-out from neurons to logits: its rank, its waves, its neurons' polynomials (``interp.modular.readout``);
* attention as waves of a and b, whether a + b = b + a, norms of the weights;
* what becomes of the loss when keys, neurons (``interp.modular.ablation``) or paths (``interp.modular.paths``) are cut.

Everything but these cuts is computed from one forward pass over all p² pairs in float64. Controls: random weights of
the same shapes, measured with the model's key set; random frequency and neuron sets of equal size; shuffled labels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.modular import fourier
from interp.modular.ablation import (
    Ablation,
    NeuronAblation,
    PartAblation,
    ablations,
    neuron_ablations,
    shuffled_labels,
)
from interp.modular.addition import AdditionTable, addition_table, control_table
from interp.modular.paths import path_ablations
from interp.modular.readout import NeuronLosses, Readout, neuron_losses, read_out
from interp.modular.restricted import FrequencyLosses, frequency_losses, placebo_keys, restricted_and_excluded
from interp.result import Result
from interp.spread import gini
from interp.statistics import Interval, mean
from interp.subject import Subject
from interp.waves import fourier_basis, frequency_blocks
from tasks.surroundings import ordinary_torch
from tasks.training.objective import cross_entropy

if TYPE_CHECKING:
    import plotly.graph_objects as go

N_PLACEBOS = 10


class AttentionFits(NamedTuple):
    """Per head the frequency of the wave that fits it best, and the share of variance explained."""

    frequency: Int[Tensor, " head"]
    explained: Float[Tensor, " head"]


def attention_fits(attention: Float[Tensor, "pairs head"], p: int) -> AttentionFits:
    """How far each head's attention to a is m + α(cos ω_k a − cos ω_k b) + β(sin ω_k a − sin ω_k b), for its best k.

    Of a model whose answer position ignores itself the mean m is ½. The share is of the variance around the mean over
    pairs. NaN, with frequency 0, for constant attention.
    """
    blocks = frequency_blocks(attention, p)
    difference = (blocks.coefficients[:, 1:, 0] - blocks.coefficients[:, 0, 1:]) / 2**0.5
    share, best = (difference.pow(2).sum(1) / blocks.variation).max(0)
    return AttentionFits(torch.where(blocks.constant, 0, best + 1), torch.where(blocks.constant, torch.nan, share))


def commutativity_gap(logits: Float[Tensor, "pairs p"]) -> float:
    """Mean over a, b, c of |L(a,b)_c − L(b,a)_c|: 0 for a model to which a + b is b + a.

    In units of logits: compare their spread. On trained pairs alone, a table learned by heart has a gap, too.
    """
    p = logits.shape[1]
    table, number = logits.double(), torch.arange(p)
    swapped = (number * p + number.unsqueeze(1)).flatten()
    return float((table - table[swapped]).abs_().mean())


def sums_of_squares(params: Mapping[str, Float[Tensor, "..."]]) -> dict[str, float]:
    """Σw² of every parameter, biases and the rows and columns of "=" included."""
    return {name: float(value.double().pow(2).sum()) for name, value in params.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class ProgressResult(Result):
    """What ``analyze`` finds. Every ``control_…`` is the same for random weights, with the same ``key_frequencies``.

    ``placebo_restricted`` (test) and ``placebo_excluded`` (train) are the losses for random frequency sets of equal
    size without a key: mean over ten, with its interval. ``attention_to_a`` and ``attention_to_last`` are means over
    pairs per head of the first layer. ``commutativity_gap`` is in units of logits, whose standard deviation is
    ``logit_spread``. ``ablations`` are by place, ``neuron_ablations`` by key, ``paths`` by path and head;
    ``shuffled_labels`` is the loss against other pairs' labels, the ceiling of what is resampled.
    """

    p: int
    key_frequencies: tuple[int, ...]
    losses: FrequencyLosses
    control_losses: FrequencyLosses
    placebo_restricted: Interval
    placebo_excluded: Interval
    gini_embedding: float
    control_gini_embedding: float
    readout: Readout | None
    control_readout: Readout | None
    attention_frequency: tuple[int, ...]
    attention_explained: tuple[float, ...]
    control_attention_explained: tuple[float, ...]
    attention_to_a: tuple[float, ...]
    attention_to_last: tuple[float, ...]
    commutativity_gap: float
    logit_spread: float
    ablations: dict[str, Ablation]
    neuron_ablations: dict[int, NeuronAblation] | None
    paths: dict[str, PartAblation]
    control_paths: dict[str, PartAblation]
    shuffled_labels: Interval
    neurons: NeuronLosses | None
    sum_of_squares: float
    sums_of_squares: dict[str, float]


@ordinary_torch()
def analyze(subject: Subject, *, keys: Sequence[int] | None = None, control_seed: int = 0) -> ProgressResult:
    """Every progress measure of one model of a ± b mod p.

    Args:
        subject: a transformer at one step.
        keys: the key frequencies; ``None``: those of its own logits. Of a run, take those of the last step
            (``interp.modular.grokking`` does).
        control_seed: of random weights and random frequencies.

    Raises:
        UserError: the task is not addition or subtraction mod p, or the model is no transformer.
    """
    table = addition_table(subject)
    chosen = fourier.key_frequencies(fourier.sum_variance(table.logit_blocks)) if keys is None else tuple(keys)
    squares = sums_of_squares(subject.params)
    fits = attention_fits(table.attention[:, :, 0], table.p)
    return ProgressResult(
        p=table.p,
        key_frequencies=chosen,
        losses=frequency_losses(table, chosen),
        gini_embedding=gini_embedding(table.embedding),
        readout=read_out(table, chosen),
        attention_frequency=tuple(fits.frequency.tolist()),
        attention_explained=tuple(fits.explained.tolist()),
        attention_to_a=tuple(table.attention[:, :, 0].mean(0).tolist()),
        attention_to_last=tuple(table.attention[:, :, -1].mean(0).tolist()),
        commutativity_gap=commutativity_gap(table.logits),
        logit_spread=float(table.logits.std()),
        ablations=ablations(subject, table, chosen, seed=control_seed),
        neuron_ablations=neuron_ablations(table, chosen, seed=control_seed),
        paths=path_ablations(subject, table, seed=control_seed),
        neurons=neuron_losses(table, chosen),
        sum_of_squares=sum(squares.values()),
        sums_of_squares=squares,
        **_controls(subject, table, chosen, control_seed),
    )


def _controls(subject: Subject, table: AdditionTable, keys: Sequence[int], seed: int) -> dict[str, Any]:
    """Random weights with the same keys, random frequencies, and shuffled labels."""
    control = control_table(subject, seed)
    return {
        "control_losses": frequency_losses(control, keys),
        "control_gini_embedding": gini_embedding(control.embedding),
        "control_readout": read_out(control, keys),
        "control_attention_explained": tuple(attention_fits(control.attention[:, :, 0], table.p).explained.tolist()),
        "control_paths": path_ablations(subject.randomized(seed), control, seed=seed),
        "shuffled_labels": shuffled_labels(table, seed=seed),
        **_placebos(table, keys, seed),
    }


def gini_embedding(embedding: Float[Tensor, "p d_model"]) -> float:
    """Gini coefficient of the p norms of the rows of F W_E, the constant included."""
    return gini((fourier_basis(len(embedding)) @ embedding.double()).norm(dim=1))


def _placebos(table: AdditionTable, keys: Sequence[int], seed: int) -> dict[str, Interval]:
    """Restricted and excluded loss of random frequency sets of equal size."""
    train, losses = table.train, []
    for draw in range(N_PLACEBOS):
        kept, left = restricted_and_excluded(table.logits, placebo_keys(table.p, keys, seed + draw))
        on_test = cross_entropy(kept[~train], table.targets[~train]).mean()
        losses.append((on_test, cross_entropy(left[train], table.targets[train]).mean()))
    kept, left = torch.tensor(losses, dtype=torch.float64).T
    return {"placebo_restricted": mean(kept, seed=seed), "placebo_excluded": mean(left, seed=seed)}


def figures(result: ProgressResult) -> dict[str, "go.Figure"]:
    """``losses``: of the keys alone and of all else; ``keys``: excluded loss per key; ``attention``: the wave in each
    head; ``ablations``: keys taken out at three places; ``paths``: heads, MLP and what goes past them cut; and with
    neurons ``neurons``: those of one key ablated, ``readout``: singular values of W_L, and ``waves``: how pure a wave
    the neurons carry per key."""
    from interp import plots

    keys = ", ".join(map(str, result.key_frequencies)) or "none"
    found, names = result.losses, list(map(str, result.key_frequencies))
    parts = {"full": found.full, "restricted": found.restricted, "excluded": found.excluded}
    placebo = {"restricted": result.placebo_restricted, "excluded": result.placebo_excluded}
    made = {
        "losses": plots.bars(
            list(parts),
            {
                "train": [part.train for part in parts.values()],
                "test": [part.test for part in parts.values()],
                "control: random frequencies": [placebo[name].value if name in placebo else math.nan for name in parts],
            },
            title="Loss of the key frequencies and of all else",
            x="logits",
            y="loss",
            caption=f"Restricted: only cos, sin ω(a+b) of the keys ({keys}) and the mean; excluded: all but these. "
            "Control: as many random frequencies (restricted: test, excluded: train).",
            log_y=True,
        ),
        "keys": plots.bars(
            names,
            {"trig directions": found.excluded_per_key, "cosine cube": found.cosine_excluded_per_key},
            title="Excluded loss, one key at a time",
            x="key frequency",
            y="train loss without it",
            caption="Loss on the trained pairs with one key's part of the logits taken away. Dotted: the full model's.",
            threshold=found.full.train,
            log_y=True,
        ),
        "attention": plots.bars(
            [f"head {head}, k = {k}" for head, k in enumerate(result.attention_frequency)],
            {"model": result.attention_explained, "random weights": result.control_attention_explained},
            title="Attention to a as one wave",
            x="head and its best frequency",
            y="share of variance explained",
            caption="Variance over pairs of the attention to a that cos ωa − cos ωb and sin ωa − sin ωb explain.",
        ),
        "ablations": plots.bars(
            list(result.ablations),
            {
                "without keys": [at.without for at in result.ablations.values()],
                "keys resampled": [at.resampled.value for at in result.ablations.values()],
                "only keys": [at.only for at in result.ablations.values()],
                "control without": [at.control_without for at in result.ablations.values()],
                "control resampled": [at.control_resampled.value for at in result.ablations.values()],
                "control only": [at.control_only for at in result.ablations.values()],
            },
            title="Keys ablated",
            x="where",
            y="loss over all pairs",
            caption=f"Keys {keys} taken out, taken from other pairs, kept alone; the full model has "
            f"{found.full.all:.2g}. Controls: random frequencies.",
            log_y=True,
        ),
        "paths": plots.bars(
            list(result.paths),
            {
                "zero": [path.zero for path in result.paths.values()],
                "mean": [path.mean for path in result.paths.values()],
                "of other pairs": [path.resampled.value for path in result.paths.values()],
                "random weights": [path.resampled.value for path in result.control_paths.values()],
            },
            title="Paths through the last layer, cut",
            x="path",
            y="loss over all pairs",
            caption=f"Dotted: the full model; against other pairs' labels it has {result.shuffled_labels.value:.3g}. "
            "Random weights, which cannot lose what they do not know: of other pairs.",
            threshold=found.full.all,
            log_y=True,
        ),
    }
    if result.neuron_ablations:
        made["neurons"] = plots.bars(
            [f"{k} ({at.n_neurons})" for k, at in result.neuron_ablations.items()],
            {
                "zero": [at.zero for at in result.neuron_ablations.values()],
                "mean": [at.mean for at in result.neuron_ablations.values()],
                "of other pairs": [at.resampled.value for at in result.neuron_ablations.values()],
                "control: mean": [at.control_mean.value for at in result.neuron_ablations.values()],
                "control: of other pairs": [at.control_resampled.value for at in result.neuron_ablations.values()],
            },
            title="Neurons of one key, ablated together",
            x="key frequency (number of its neurons)",
            y="loss over all pairs",
            caption="Neurons of which the key explains over 85 %. Dotted: the full model. Controls: as many random "
            "neurons that are not of the key, at their mean and from other pairs.",
            threshold=found.full.all,
            log_y=True,
        )
    if result.readout is not None and result.control_readout is not None:
        singular = result.readout.singular_values.tolist()
        made["readout"] = plots.lines(
            list(range(1, len(singular) + 1)),
            {"model": singular, "random weights": result.control_readout.singular_values.tolist()},
            title="Singular values of W_L, from neurons to logits",
            x="index",
            y="singular value",
            caption=f"The output waves of {len(names)} keys are {2 * len(names)} directions; "
            f"{result.readout.residual:.2%} of the squared norm lies outside them.",
            log_x=True,
        )
        made["waves"] = plots.bars(
            names,
            {
                "cosine": result.readout.cosine_fits,
                "sine": result.readout.sine_fits,
                "random weights": [
                    max(pair)
                    for pair in zip(result.control_readout.cosine_fits, result.control_readout.sine_fits, strict=True)
                ],
            },
            title="Waves of the sum in the neurons",
            x="key frequency",
            y="share of variance explained",
            caption="Neurons along the two directions that W_L reads for a key, explained by cos or sin ω(a+b) alone. "
            "Random weights: the larger of the two.",
        )
    return made
