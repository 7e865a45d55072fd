"""Fourier analysis of a model of addition mod p: which frequencies it computes with, and how much of it they explain.

A network that generalises on a + b mod p can do so by turning numbers into angles: it holds cos ω_k a and sin ω_k a for
a few *key frequencies* k (ω_k = 2πk/p), combines them to cos ω_k(a+b) and sin ω_k(a+b), and reads the answer c off
Σ_k α_k cos ω_k(a+b−c) (Nanda et al. 2023).

Conventions:

* k and p − k give the same cosine; frequencies are 1 … ⌊p/2⌋, (p−1)/2 included. An array over frequencies has k in
  place k − 1.
* ``fourier_basis`` orders const, cos 1, sin 1, cos 2, …, orthonormal rows. Other code bases put the sine first: never
  exchange indices with them.
* Tables over inputs have p² rows in the order a·p + b. All transforms are float64.
* a − b is addition with b relabelled −b, and is analysed so. Other operations have no such circle in the order of their
  numbers and are refused.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.addition import one_embedding_per_number
from interp.result import Result, Takes
from interp.subject import Subject
from tasks.base import UserError
from tasks.modular import ModularArithmetic

if TYPE_CHECKING:
    import plotly.graph_objects as go

TAKES: Takes = "subject"
KEY_VARIANCE = 0.005
EXPLAINED = 0.85


def fourier_basis(p: int) -> Float[Tensor, "p p"]:
    """The real Fourier basis of functions on 0 … p − 1, one orthonormal function per row.

    F[0] = 1/√p, F[2k−1] = √(2/p) cos ω_k x, F[2k] = √(2/p) sin ω_k x for k = 1 … ⌊(p−1)/2⌋; for even p the last row is
    cos πx/√p, without a sine. Coefficients of W [p, d] (rows are inputs) are F @ W, of W [d, p] (columns are outputs)
    W @ F.T.

    Raises:
        UserError: p < 2.
    """
    if p < 2:
        raise UserError(f"expected a modulus p of at least 2, got {p}")
    x = torch.arange(p, dtype=torch.float64)
    k = torch.arange(1, p // 2 + 1, dtype=torch.float64)
    angle = 2 * torch.pi / p * (torch.outer(k, x) % p)  # products stay integers, so the angle is exact to rounding
    waves = torch.stack([angle.cos(), angle.sin()], dim=1).flatten(0, 1)[: p - 1]
    rows = torch.cat([torch.ones(1, p, dtype=torch.float64), waves])
    return rows / rows.norm(dim=1, keepdim=True)


def power_spectrum(W: Float[Tensor, "p d"]) -> Float[Tensor, " frequency"]:
    """Share of each frequency in the variation of the rows of W: e_k = ‖F_{2k−1}W‖² + ‖F_{2k}W‖², divided by Σ_k e_k.

    Rows are inputs 0 … p − 1: pass ``W_E[:p]``, without the row of "=". The constant is left out, so the shares sum to
    1 (NaN where all rows are equal). Flat, 2/(p−1) each, for random rows. A frequency in W_E need not be used: compare
    ``logit_variance``.

    Raises:
        UserError: W is no matrix with at least two rows.
    """
    if W.ndim != 2 or W.shape[0] < 2:
        raise UserError(f"expected a matrix [p, d] with one row per number, got shape {tuple(W.shape)}: pass W_E[:p]")
    power = (fourier_basis(W.shape[0]) @ W.double()).pow(2).sum(1)
    folded = _fold(power)[1:]
    return folded / folded.sum()


def spectrum_2d(T: Float[Tensor, "pairs ..."], p: int) -> Float[Tensor, "p p ..."]:
    """Two-dimensional Fourier coefficients of a table over all pairs: Ť[f,g,…] = Σ_{a,b} F[f,a] F[g,b] T[a·p+b,…].

    Sums of squares are kept. Index 0 is the constant, 2k−1 the cosine and 2k the sine of frequency k, along both axes.

    Raises:
        UserError: T does not have p² rows.
    """
    _check_table(T, p)
    F = fourier_basis(p)
    rows = F @ T.double().reshape(p, -1)
    return torch.matmul(F, rows.reshape(p, p, -1)).reshape(p, p, *T.shape[1:])


def trig_directions(p: int) -> Float[Tensor, "frequency 2 pairs"]:
    """Unit vectors c_k ∝ cos ω_k(a+b) and s_k ∝ sin ω_k(a+b) over all pairs, for k = 1 … ⌊p/2⌋.

    c_k = (F_{2k−1}⊗F_{2k−1} − F_{2k}⊗F_{2k})/√2, s_k = (F_{2k}⊗F_{2k−1} + F_{2k−1}⊗F_{2k})/√2; for even p and k = p/2,
    c_k = F_{p−1}⊗F_{p−1} and s_k = 0. Takes p³ numbers: where only coefficients are wanted use ``trig_coefficients``.
    """
    F = fourier_basis(p)
    out = torch.zeros(p // 2, 2, p, p, dtype=torch.float64)
    for k in range(1, p // 2 + 1):
        cos = F[2 * k - 1]
        if 2 * k == p:
            out[k - 1, 0] = torch.outer(cos, cos)
            continue
        sin = F[2 * k]
        out[k - 1, 0] = (torch.outer(cos, cos) - torch.outer(sin, sin)) / 2**0.5
        out[k - 1, 1] = (torch.outer(sin, cos) + torch.outer(cos, sin)) / 2**0.5
    return out.flatten(2)


def trig_coefficients(spectrum: Float[Tensor, "p p ..."]) -> Float[Tensor, "frequency 2 ..."]:
    """Components along c_k and s_k of a table, from its ``spectrum_2d``; equal to ``trig_directions(p) @ T``."""
    p = spectrum.shape[0]
    k = torch.arange(1, (p - 1) // 2 + 1)
    cos, sin = 2 * k - 1, 2 * k
    c = (spectrum[cos, cos] - spectrum[sin, sin]) / 2**0.5
    s = (spectrum[sin, cos] + spectrum[cos, sin]) / 2**0.5
    out = torch.stack([c, s], dim=1)
    if p % 2:
        return out
    last = torch.stack([spectrum[p - 1, p - 1], torch.zeros_like(spectrum[0, 0])])
    return torch.cat([out, last.unsqueeze(0)])


def logit_variance(logits: Float[Tensor, "pairs d_vocab_out"], p: int) -> Float[Tensor, " frequency"]:
    """Share τ_k of the logits' variance over inputs that lies along cos ω_k(a+b) and sin ω_k(a+b).

    τ_k = (‖c_kᵀL̃‖² + ‖s_kᵀL̃‖²)/‖L̃‖², L̃ = L − mean over the p² inputs. Between 0 and 1, and Σ_k τ_k ≤ 1. The rest lies
    in a alone, b alone, a − b and mixed frequencies. NaN for constant logits.
    """
    spectrum = spectrum_2d(logits, p)
    total = spectrum.pow(2).sum() - spectrum[0, 0].pow(2).sum()
    return trig_coefficients(spectrum).pow(2).sum(dim=(1, 2)) / total


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
    power = spectrum_2d(activations, p).pow(2)
    constant = power[0, 0].clone()
    power[0, 0] = 0
    total = power.sum(dim=(0, 1))
    folded = _fold(_fold(power).transpose(0, 1))
    k = torch.arange(1, p // 2 + 1)
    block = folded[k, 0] + folded[0, k] + folded[k, k]
    # what the transform of a constant leaves by rounding is no variation
    silent = total <= 1e-20 * (total + constant)
    share, best = (block / total).max(dim=0)
    return NeuronFrequencies(
        frequency=torch.where(silent, 0, best + 1), explained=torch.where(silent, torch.nan, share).clamp(max=1.0)
    )


def gini(x: Float[Tensor, " n"]) -> float:
    """Gini coefficient Σ_i (2i − n − 1) x_(i)/(n Σ x) of non-negative numbers, x_(i) ascending.

    0 where all are equal, (n−1)/n where one holds everything. Of Fourier norms: high means few frequencies. NaN if all
    are 0.

    >>> gini(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    0.75
    """
    ordered = x.double().sort().values
    n = len(ordered)
    rank = torch.arange(1, n + 1, dtype=torch.float64)
    return float(((2 * rank - n - 1) * ordered).sum() / (n * ordered.sum()))


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
    _check_table(logits, p)
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


def analyze(subject: Subject, *, control_seed: int = 0) -> FourierResult:
    """Key frequencies of a model of a ± b mod p, what they explain, and the same for random weights.

    Neurons are those of the last MLP at the answer position; ``gini_logits`` is that of W_out W_U of that MLP, which
    for models with LayerNorm or several layers is only the direct path.

    Raises:
        UserError: the task is not addition or subtraction mod p, b has tokens of its own, or the model is no
            transformer.
    """
    task = one_embedding_per_number(subject)
    found = _measure(subject, task)
    control = _measure(subject.randomized(control_seed), task)
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
        p=task.p,
        key_frequencies=keys,
        key_variance=tuple(found["logit_variance"][at].tolist()),
        cos_similarity=tuple(fit.similarity[at].tolist()),
        cos_coefficient=tuple(fit.coefficient[at].tolist()),
        cos_variance=fit.explained(keys),
        control_cos_variance=control["cos_fit"].explained(tuple(range(1, task.p // 2 + 1))),
        neurons_per_key=per_key,
        key_count=len(keys),
        control_key_count=len(key_frequencies(control["logit_variance"])),
        **found,
        **{f"control_{name}": control[name] for name in beside},
    )


def _measure(subject: Subject, task: ModularArithmetic) -> dict[str, Any]:
    """Every number of one set of weights that has no need of the key set."""
    p, params = task.p, subject.params
    W_E, F = params["embed.W_E"][:p], fourier_basis(p)
    mlp = f"blocks.{subject.config.n_layers - 1}.mlp"
    has_neurons = subject.config.d_mlp is not None
    wanted = [f"{mlp}.hook_post"] if has_neurons else []
    logits, activations = subject.activations(task.all_inputs(), wanted)
    logits = _as_addition(logits[:, :p], task)
    values: dict[str, Any] = {
        "embedding_power": power_spectrum(W_E),
        "logit_variance": logit_variance(logits, p),
        "cos_fit": cosine_fit(logits, p),
        "gini_embedding": gini((F @ W_E.double()).norm(dim=1)),
        "gini_logits": None,
        "neurons_explained_share": None,
        "neuron_frequency": None,
        "neuron_explained": None,
    }
    if has_neurons:
        W_U = params["unembed.W_U"] if "unembed.W_U" in params else params["embed.W_E"].T
        W_L = params[f"{mlp}.W_out"].double() @ W_U[:, :p].double()
        neurons = neuron_frequencies(_as_addition(activations[wanted[0]][:, task.answer_position], task), p)
        values |= {
            "gini_logits": gini((W_L @ F.T).norm(dim=0)),
            "neurons_explained_share": float((neurons.explained > EXPLAINED).double().mean()),
            "neuron_frequency": neurons.frequency,
            "neuron_explained": neurons.explained,
        }
    return values


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


def _fold(power: Float[Tensor, "p ..."]) -> Float[Tensor, "frequency_and_constant ..."]:
    """Cosine and sine power of each frequency added; the constant stays in place 0."""
    p = power.shape[0]
    frequency = (torch.arange(p) + 1) // 2
    return torch.zeros(p // 2 + 1, *power.shape[1:], dtype=power.dtype).index_add_(0, frequency, power)


def _check_table(T: Tensor, p: int) -> None:
    if T.shape[0] != p * p:
        raise UserError(f"expected all p² = {p * p} inputs, got {T.shape[0]}: pass task.all_inputs()")


def _as_addition(T: Float[Tensor, "pairs d"], task: ModularArithmetic) -> Float[Tensor, "pairs d"]:
    """The table with b relabelled −b where the task subtracts, so that its rule reads a + b."""
    if task.operation == "add":
        return T
    negative = -torch.arange(task.p) % task.p
    return T.unflatten(0, (task.p, task.p))[:, negative].flatten(0, 1)
