"""Fourier analysis of a model of addition mod p: which frequencies it computes with, and how much of it they explain.

A network that generalises on a + b mod p can do so by turning numbers into angles: it holds cos ω_k a and sin ω_k a for
a few *key frequencies* k (ω_k = 2πk/p), combines them to cos ω_k(a+b) and sin ω_k(a+b), and reads the answer c off
Σ_k α_k cos ω_k(a+b−c) (Nanda et al. 2023).

The conventions of basis and tables are those of ``interp.waves``. a − b is addition with b relabelled −b, and is
analysed so; other operations have no such circle in the order of their numbers and are refused.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.modular.addition import AdditionTable, addition_table, control_table
from interp.result import Result
from interp.spread import gini
from interp.subject import Subject
from interp.waves import FrequencyBlocks, check_table, fourier_basis, frequency_blocks, power_spectrum
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

KEY_VARIANCE = 0.005
EXPLAINED = 0.85


def logit_variance(logits: Float[Tensor, "pairs d_vocab_out"], p: int) -> Float[Tensor, " frequency"]:
    """Share τ_k of the logits' variance over inputs that lies along cos ω_k(a+b) and sin ω_k(a+b).

    τ_k = (‖c_kᵀL̃‖² + ‖s_kᵀL̃‖²)/‖L̃‖², L̃ = L − mean over the p² inputs. Between 0 and 1, and Σ_k τ_k ≤ 1. The rest lies
    in a alone, b alone, a − b and mixed frequencies. NaN for constant logits.
    """
    return sum_variance(frequency_blocks(logits, p))


def sum_variance(blocks: FrequencyBlocks) -> Float[Tensor, " frequency"]:
    """``logit_variance`` of the table with these blocks, all its columns together."""
    share = blocks.trig.pow(2).sum((1, 2)) / blocks.variation.sum()
    return torch.full_like(share, torch.nan) if blocks.constant.all() else share


def key_frequencies(variance: Float[Tensor, " frequency"]) -> tuple[int, ...]:
    """The frequencies with τ_k > 0.005, from ``logit_variance``.

    Finds the published sets of all models whose weights are public. Harmonics (2k, 3k of a key) are counted where they
    pass. Misleads on a lookup table: correct answers on a share f of the table put f/⌊p/2⌋ into *every* frequency,
    above the threshold for f > 0.28 at p = 113, so a key set that holds nearly all frequencies speaks against a Fourier
    algorithm.

    >>> key_frequencies(torch.tensor([0.0, 0.6, 0.005, 0.3]))
    (2, 4)
    """
    return tuple((torch.nonzero(variance > KEY_VARIANCE).flatten() + 1).tolist())


class NeuronFrequencies(NamedTuple):
    """Per neuron the frequency that explains most of its activation, and the share it explains; see
    ``neuron_frequencies``."""

    frequency: Int[Tensor, " d_mlp"]
    explained: Float[Tensor, " d_mlp"]


def neuron_frequencies(activations: Float[Tensor, "pairs d_mlp"], p: int) -> NeuronFrequencies:
    """For each neuron the frequency k with the largest share of its centred activation's variance, and that share.

    The share of k is the power of Š[f,g] over f, g ∈ {const, cos k, sin k} without (const, const), divided by the power
    of all Š but (const, const): linear and quadratic terms of one frequency. Between 0 and 1. A constant neuron has
    frequency 0 and share NaN. A random neuron has a low share, though not 0: it takes the best of ⌊p/2⌋ blocks.
    """
    return strongest_frequencies(frequency_blocks(activations, p))


def strongest_frequencies(blocks: FrequencyBlocks) -> NeuronFrequencies:
    """``neuron_frequencies`` of the table with these blocks."""
    power, silent = blocks.coefficients.pow(2).flatten(1, 2), blocks.constant
    share, best = (power[:, 1:].sum(1) / blocks.variation).max(dim=0)
    return NeuronFrequencies(
        frequency=torch.where(silent, 0, best + 1), explained=torch.where(silent, torch.nan, share).clamp(max=1.0)
    )


class CosineFit(NamedTuple):
    """How much of the logits is cos ω_k(a+b−c); see ``cosine_fit``."""

    similarity: Float[Tensor, " frequency"]
    coefficient: Float[Tensor, " frequency"]

    def explained(self, frequencies: tuple[int, ...]) -> float:
        """Share of the logits' variance over answers that the cosines of these frequencies explain: Σ_k sim_k²."""
        return float(sum(self.similarity[k - 1].pow(2) for k in frequencies))


def cosine_fit(logits: Float[Tensor, "pairs p"], p: int) -> CosineFit:
    """Similarity and coefficient of the logits to each cube u_k[a,b,c] = cos ω_k(a+b−c).

    With L′ = L − mean_c L: sim_k = ⟨L′,u_k⟩/(‖L′‖‖u_k‖) between −1 and 1, α_k = ⟨L′,u_k⟩/⟨u_k,u_k⟩. The cubes are
    orthogonal, so Σ_k sim_k² is the share of variance they explain, and Σ_k α_k u_k the best approximation of that
    form. The cubes are never built: ⟨L′,u_k⟩ only needs the sums of L′ over a + b − c = d. NaN for logits that do not
    vary over c.
    """
    check_table(logits, p)
    L = logits.double() - logits.double().mean(1, keepdim=True)
    a, b = torch.arange(p).view(p, 1), torch.arange(p).view(1, p)
    by_sum = torch.zeros(p, p, dtype=torch.float64).index_add_(0, ((a + b) % p).flatten(), L)
    difference = (a - b) % p  # of the sum (row) and the answer (column)
    by_difference = torch.zeros(p, dtype=torch.float64).index_add_(0, difference.flatten(), by_sum.flatten())
    cosines = fourier_basis(p)[1::2]  # unit norm over d; over the cube the norm is p times larger
    inner = cosines @ by_difference / p
    scale = cosines.amax(dim=1)  # the unit cosine is scale · cos ω_k d
    return CosineFit(similarity=inner / L.norm(), coefficient=inner * scale / p)


@dataclass(frozen=True, kw_only=True, eq=False)
class FourierResult(Result):
    """What ``analyze`` finds. Every ``control_…`` is the same number for random weights of the same shapes and scales.

    Tuples ``key_variance`` (τ_k), ``cos_similarity`` and ``cos_coefficient`` (α_k) are aligned with
    ``key_frequencies``; ``neurons_per_key`` counts the explained neurons of each. ``cos_variance`` is the share of the
    logits' variance over answers in cos ω_k(a+b−c) of the keys; its control takes all frequencies, since random weights
    have no keys. What concerns neurons is ``None`` for attention-only models.
    """

    p: int
    key_frequencies: tuple[int, ...]
    key_variance: tuple[float, ...]
    cos_similarity: tuple[float, ...]
    cos_coefficient: tuple[float, ...]
    cos_variance: float
    neurons_per_key: tuple[int, ...] | None
    neurons_explained_share: float | None
    gini_embedding: float
    gini_logits: float | None
    key_count: int
    control_key_count: int
    control_cos_variance: float
    control_neurons_explained_share: float | None
    control_gini_embedding: float
    control_gini_logits: float | None
    embedding_power: Float[Tensor, " frequency"]
    control_embedding_power: Float[Tensor, " frequency"]
    logit_variance: Float[Tensor, " frequency"]
    control_logit_variance: Float[Tensor, " frequency"]
    neuron_frequency: Int[Tensor, " d_mlp"] | None
    neuron_explained: Float[Tensor, " d_mlp"] | None
    control_neuron_explained: Float[Tensor, " d_mlp"] | None


@ordinary_torch()
def analyze(subject: Subject, *, control_seed: int = 0) -> FourierResult:
    """Key frequencies of a model of a ± b mod p, what they explain, and the same for random weights.

    Neurons are those of the last MLP at the answer position; ``gini_logits`` is that of W_out W_U of that MLP, which
    for models with LayerNorm or several layers is only the direct path.

    Raises:
        UserError: the task is not addition or subtraction mod p, b has tokens of its own, or the model is no
            transformer.
    """
    table = addition_table(subject)
    found, control = _measure(table), _control(subject, control_seed)
    keys = key_frequencies(found["logit_variance"])
    at = torch.tensor(keys, dtype=torch.int64) - 1
    fit: CosineFit = found.pop("cos_fit")
    frequency, explained = found["neuron_frequency"], found["neuron_explained"]
    per_key = (
        None if explained is None else tuple(int(((frequency == k) & (explained > EXPLAINED)).sum()) for k in keys)
    )
    beside = (
        "neurons_explained_share",
        "gini_embedding",
        "gini_logits",
        "embedding_power",
        "logit_variance",
        "neuron_explained",
    )
    return FourierResult(
        p=table.p,
        key_frequencies=keys,
        key_variance=tuple(found["logit_variance"][at].tolist()),
        cos_similarity=tuple(fit.similarity[at].tolist()),
        cos_coefficient=tuple(fit.coefficient[at].tolist()),
        cos_variance=fit.explained(keys),
        control_cos_variance=control["cos_fit"].explained(tuple(range(1, table.p // 2 + 1))),
        neurons_per_key=per_key,
        key_count=len(keys),
        control_key_count=len(key_frequencies(control["logit_variance"])),
        **found,
        **{f"control_{name}": control[name] for name in beside},
    )


def _control(subject: Subject, seed: int) -> dict[str, Any]:
    """The same for random weights."""
    return _measure(control_table(subject, seed))


def _measure(table: AdditionTable) -> dict[str, Any]:
    """Every number of one set of weights that has no need of the key set."""
    F, neurons = fourier_basis(table.p), table.neuron_blocks
    found = None if neurons is None else strongest_frequencies(neurons)
    return {
        "embedding_power": power_spectrum(table.embedding),
        "logit_variance": sum_variance(table.logit_blocks),
        "cos_fit": cosine_fit(table.logits, table.p),
        "gini_embedding": gini((F @ table.embedding).norm(dim=1)),
        "gini_logits": None if table.direct is None else gini((table.direct @ F.T).norm(dim=0)),
        "neurons_explained_share": found and float((found.explained > EXPLAINED).double().mean()),
        "neuron_frequency": found and found.frequency,
        "neuron_explained": found and found.explained,
    }


def figures(result: FourierResult) -> dict[str, "go.Figure"]:
    """``logits``: variance of the logits per frequency; ``embedding``: power of the embedding per frequency;
    ``neurons``: share of its activation that each neuron's best frequency explains. Each beside random weights."""
    from interp import plots

    keys = ", ".join(map(str, result.key_frequencies)) or "none"
    frequency = list(range(1, result.p // 2 + 1))
    made = {
        "logits": plots.bars(
            frequency,
            {"model": result.logit_variance.tolist(), "random weights": result.control_logit_variance.tolist()},
            title="Frequencies in the logits",
            x="frequency k",
            y="share τ of logit variance",
            caption=f"Logit variance along cos, sin of ω(a+b). Key frequencies (τ > {KEY_VARIANCE}): {keys}.",
            threshold=KEY_VARIANCE,
        ),
        "embedding": plots.bars(
            frequency,
            {"model": result.embedding_power.tolist(), "random weights": result.control_embedding_power.tolist()},
            title="Frequencies in the embedding",
            x="frequency k",
            y="share of power",
            caption="Variation of the embedding over the numbers. A frequency found here need not be used.",
        ),
    }
    if result.neuron_explained is not None and result.control_neuron_explained is not None:
        made["neurons"] = plots.lines(
            list(range(1, len(result.neuron_explained) + 1)),
            {
                "model": result.neuron_explained.nan_to_num(0).sort(descending=True).values.tolist(),
                "random weights": result.control_neuron_explained.nan_to_num(0).sort(descending=True).values.tolist(),
            },
            title="Neurons explained by one frequency",
            x="neuron, sorted",
            y="share of variance explained",
            caption=f"{result.neurons_explained_share:.1%} of neurons have over {EXPLAINED:.0%} in one frequency.",
            threshold=EXPLAINED,
        )
    return made
