"""Clock or pizza: does a model that adds mod p on circles multiply the two angles, or average the two points?

* *Clock*: cos ω(a+b−c), from products of a's and b's coordinates. What one operand contributes depends on the other.
* *Pizza*: |cos(ω(a−b)/2)| cos ω(a+b−c), from E_a + E_b. Only the sum of the two embeddings counts, and logits fade as
  a − b nears half a turn (Zhong et al. 2023, arXiv 2306.17844).

Three numbers tell them apart. *Gradient symmetricity* s_g: whether a logit answers alike to a change of E_a and of E_b
(near 1 in a pizza). *Distance irrelevance* q: whether the correct logit ignores a − b (near 1 in a clock).
*Circularity* c: whether the embedding consists of circles at all. An untrained model has s_g and q near 1 and says
nothing, so accuracy and c stand beside them. Last, the logits of one circle alone are compared with both forms.

An MLP that adds embeddings up before anything else (input "embedding") has s_g = 1 whatever it computes.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.modular.addition import pair_logits
from interp.modular.fourier import key_frequencies, logit_variance
from interp.modular.operands import (
    ExactSymmetricity,
    addition_task,
    directions,
    exact_symmetricity,
    gradient_similarity,
    isolated_logits,
    operand_gradients,
    operand_tables,
    seeded_triples,
)
from interp.result import Result
from interp.spread import finite
from interp.statistics import Interval, mean
from interp.subject import Subject
from interp.thresholds import FITTED
from interp.waves import fourier_basis
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

Algorithm = Literal["clock", "pizza", "neither", "undetermined"]

CIRCULAR, SYMMETRIC, DEPENDENT = 0.995, 0.98, 0.6
"""Thresholds of c, s_g and q of Zhong et al. (2023)."""
FEW = 0.25
"""Largest number of key frequencies, as a share of p: a table known by heart has power at all of them."""
N_COMPONENTS = 4
MOST_CIRCLES = 6
_TIE = 1e-5
RULE = (
    f"of a model with accuracy ≥ {FITTED} on all pairs, circularity ≥ {CIRCULAR} and at most {FEW} p key frequencies: "
    f"pizza if gradient symmetricity along the embedding > {SYMMETRIC} and distance irrelevance < {DEPENDENT}, clock "
    f"if both are on the other side, neither if one is; undetermined if the interval of the first holds {SYMMETRIC}"
)


def correct_logits(logits: Float[Tensor, "pairs p"]) -> Float[Tensor, "difference b"]:
    """M[d, b]: the logit of the right answer for a = b + d mod p. Within a row a + b takes each value once (odd p)."""
    p = logits.shape[1]
    d, b = torch.arange(p).unsqueeze(1), torch.arange(p)
    a = (b + d) % p
    return logits.double()[a * p + b, (a + b) % p]


def distance_irrelevance(logits: Float[Tensor, "pairs p"]) -> float:
    """q = mean over d = a − b of the spread of the correct logit at that d, divided by its spread over all pairs.

    Population standard deviations. 0 where the correct logit depends on a − b alone, near 1 where it does not depend on
    it. An ideal clock's correct logit is constant and q is 0/0 (NaN): the noise around it decides. The logger of the
    published training code uses the largest wrong logit instead; its numbers are others.
    """
    M = correct_logits(logits)
    spread = M.std(correction=0)
    return float(M.std(dim=1, correction=0).mean() / spread) if spread > 1e-12 * M.abs().max() else math.nan


class Circularity(NamedTuple):
    """Of each of the first principal components the frequency that carries most of it, and how much; see
    ``circularity``."""

    score: Float[Tensor, " component"]
    frequency: Int[Tensor, " component"]

    @property
    def mean(self) -> float:
        """c, the mean score."""
        return float(self.score.mean()) if len(self.score) else 0.0


def circularity(embedding: Float[Tensor, "p d"]) -> Circularity:
    """How purely each of the first four principal components of the embedding is a wave over the numbers.

    score = max_k 2 |Σ_t v_t e^{2πikt/p}|²/p of a unit component v (Zhong et al. 2023): 1 for a circle, about .15 for
    random rows at p = 59. Frequency p/2 of an even p counts once, so that no score exceeds 1. Components without
    variance are left out. Circles of equal size have no principal components of their own, only their common space: a
    weight of 1 + 10⁻⁵ k on frequency k keeps them apart. Misleads at both ends: in trained models circles of nearly
    equal size mix and lower the score, and one-hot rows, all circles at once, have the score 1.
    """
    p = len(embedding)
    k = torch.arange(2, p + 1) // 2  # of the basis without its constant
    waves = (fourier_basis(p)[1:] @ embedding.double()) * (1 + _TIE * k).unsqueeze(1)
    U, S, _ = torch.linalg.svd(finite(waves), full_matrices=False)
    components = U[:, :N_COMPONENTS][:, S[:N_COMPONENTS] > 1e-6 * S[0]]
    power = torch.zeros(p // 2, components.shape[1], dtype=torch.float64).index_add_(0, k - 1, components.pow(2))
    score, best = power.max(0)
    return Circularity(score, best + 1)


class LogitForms(NamedTuple):
    """Shares of the logits' variance over answers that the two forms explain; see ``logit_forms``."""

    clock: float
    pizza: float


def logit_forms(logits: Float[Tensor, "pairs p"], k: int) -> LogitForms:
    """How much of the logits of one circle is cos ω_k(a+b−c), and |cos(ω_k(a−b)/2)| cos ω_k(a+b−c).

    r² of each form with L − mean_c L, 0 where r is negative. The forms are alike: of an ideal pizza the clock form
    explains 8/π² = 81 %, and the reverse. Zhong et al. standardise both sides first, which makes 2r − 1 of it; their
    75.4 % and 99.2 % are r² of 77 % and 99.2 %. NaN for logits that do not vary over answers.
    """
    p = logits.shape[1]
    L, x = logits.double() - logits.double().mean(1, keepdim=True), torch.arange(p)
    turn = 2 * torch.pi / p * (k * x % p).double()
    waves = torch.stack([turn.cos(), turn.sin()])
    # cos ω_k(s−c) = cos ω_k s cos ω_k c + sin ω_k s sin ω_k c: nothing of size p³ is needed
    along = (L @ waves.T * waves.T[(x.unsqueeze(1) + x).flatten() % p]).sum(1).view(p, p)
    fading = (torch.pi / p * (k * (x.unsqueeze(1) - x) % (2 * p)).double()).cos().abs()
    norm = waves[0].norm() * L.norm()  # of cos ω_k(s−c) over c, the same for every s
    found = ((weight * along).sum() / (weight.norm() * norm) for weight in (torch.ones_like(fading), fading))
    return LogitForms(*(float(r.clamp(min=0).pow(2)) for r in found))


def published_label(symmetricity: float, irrelevance: float, circular: float) -> Literal["clock", "pizza", "no circle"]:
    """The label of Zhong et al.: pizza if s_g > .98 and q < .6, every other circular model (c ≥ .995) a clock."""
    if circular < CIRCULAR:
        return "no circle"
    return "pizza" if symmetricity > SYMMETRIC and irrelevance < DEPENDENT else "clock"


@dataclass(frozen=True, kw_only=True, eq=False)
class ClockPizzaResult(Result):
    """What ``analyze`` finds. Every ``control_…`` is the same for random weights of the same shapes and scales.

    ``verdict`` follows ``RULE``, ``reason`` says how; ``margins`` are distances from the thresholds, positive where the
    model is circular and on the pizza's side. ``label`` is the published one. ``gradient_symmetricity`` is s_g as
    published; ``…_in_span``, along the directions in which the embeddings differ, decides. Intervals resample the 100
    triples; ``exact_…`` is over all inputs, where asked for. ``accuracy`` is that on all p² pairs. ``circles`` are the
    key frequencies of the logits, at most the six strongest; ``clock_explained`` and ``pizza_explained`` what each form
    explains when the embedding is reduced to that circle. ``correct_logits`` has a − b as rows, b as columns.
    """

    p: int
    verdict: Algorithm
    reason: str
    label: Literal["clock", "pizza", "no circle"]
    margins: dict[str, float]
    accuracy: float
    control_accuracy: float
    gradient_symmetricity: float
    control_gradient_symmetricity: float
    gradient_symmetricity_interval: Interval
    gradient_symmetricity_in_span: float
    control_gradient_symmetricity_in_span: float
    gradient_symmetricity_in_span_interval: Interval
    exact_gradient_symmetricity: float | None
    exact_gradient_symmetricity_in_span: float | None
    distance_irrelevance: float
    control_distance_irrelevance: float
    circularity: float
    control_circularity: float
    component_circularity: tuple[float, ...]
    control_component_circularity: tuple[float, ...]
    component_frequencies: tuple[int, ...]
    circles: tuple[int, ...]
    clock_explained: tuple[float, ...]
    pizza_explained: tuple[float, ...]
    control_clock_explained: tuple[float, ...]
    control_pizza_explained: tuple[float, ...]
    correct_logits: Float[Tensor, "difference b"]


@ordinary_torch()
def analyze(subject: Subject, *, exact: bool = False, control_seed: int = 0) -> ClockPizzaResult:
    """Which of the two algorithms a model of a + b mod p uses, and the same numbers for random weights.

    Takes transformers, in both forms of the task, and MLPs with token embeddings. Where a and b have tables of their
    own, c is the smaller of the two.

    Args:
        subject: one model of a + b mod p.
        exact: also take s_g over all inputs and classes: p backward passes over all pairs.
        control_seed: of the random weights.

    Raises:
        UserError: the task is not addition mod p, or the model embeds no tokens.
    """
    task = addition_task(subject)
    p, inputs = task.p, task.all_inputs()
    logits = pair_logits(subject, inputs)[:, :p]
    tau = logit_variance(logits, p)
    keys = key_frequencies(tau)
    circles = tuple(sorted(keys, key=lambda k: -float(tau[k - 1]))[:MOST_CIRCLES])
    found = _measure(subject, logits, circles)
    control = _control(subject, circles, control_seed)
    everywhere = exact_symmetricity(subject) if exact else ExactSymmetricity(math.nan, math.nan)
    verdict, reason = _conclude(subject, found, len(keys), everywhere.in_span)
    decisive = everywhere.in_span if exact else found["gradient_symmetricity_in_span"]
    names = "accuracy gradient_symmetricity gradient_symmetricity_in_span distance_irrelevance circularity "
    names += "component_circularity clock_explained pizza_explained"
    return ClockPizzaResult(
        p=p,
        verdict=verdict,
        reason=reason,
        label=published_label(found["gradient_symmetricity"], found["distance_irrelevance"], found["circularity"]),
        margins={
            "circularity": found["circularity"] - CIRCULAR,
            "gradient_symmetricity_in_span": decisive - SYMMETRIC,
            "distance_irrelevance": DEPENDENT - found["distance_irrelevance"],
        },
        exact_gradient_symmetricity=everywhere.whole if exact else None,
        exact_gradient_symmetricity_in_span=everywhere.in_span if exact else None,
        circles=circles,
        correct_logits=correct_logits(logits),
        **found,
        **{f"control_{name}": control[name] for name in names.split()},
    )


def _control(subject: Subject, circles: tuple[int, ...], seed: int) -> dict[str, Any]:
    """The same for random weights."""
    random, task = subject.randomized(seed), addition_task(subject)
    return _measure(random, pair_logits(random, task.all_inputs())[:, : task.p], circles)


def _measure(subject: Subject, logits: Float[Tensor, "pairs p"], circles: tuple[int, ...]) -> dict[str, Any]:
    """Every number that the model and its control have alike."""
    task, tables = addition_task(subject), operand_tables(subject)
    gradients = operand_gradients(subject, seeded_triples(task.p))
    whole, in_span = (_mean(gradient_similarity(*gradients, span)) for span in (None, directions(*tables)))
    least = min((circularity(table) for table in tables), key=lambda found: found.mean)
    forms = [logit_forms(isolated_logits(subject, k), k) for k in circles]
    return {
        "accuracy": float((logits.argmax(1) == task.all_targets()).double().mean()),
        "gradient_symmetricity": whole.value,
        "gradient_symmetricity_interval": whole,
        "gradient_symmetricity_in_span": in_span.value,
        "gradient_symmetricity_in_span_interval": in_span,
        "distance_irrelevance": distance_irrelevance(logits),
        "circularity": least.mean,
        "component_circularity": tuple(least.score.tolist()),
        "component_frequencies": tuple(least.frequency.tolist()),
        "clock_explained": tuple(form.clock for form in forms),
        "pizza_explained": tuple(form.pizza for form in forms),
    }


def _mean(similarity: Float[Tensor, " triple"]) -> Interval:
    """The mean over triples where both gradients are there; NaN where there is none."""
    defined = similarity[~similarity.isnan()]
    return mean(defined if len(defined) else similarity[:1])


def _conclude(subject: Subject, found: dict[str, Any], n_keys: int, exact: float) -> tuple[Algorithm, str]:
    """The verdict by ``RULE``, and why."""
    s, q, c = (found[name] for name in ("gradient_symmetricity_in_span", "distance_irrelevance", "circularity"))
    low, high = found["gradient_symmetricity_in_span_interval"].ends
    if not math.isnan(exact):
        s = low = high = exact
    numbers = f"gradient symmetricity {s:.3f} [{low:.3f}, {high:.3f}], distance irrelevance {q:.3f}"
    if found["accuracy"] < FITTED:
        return "undetermined", f"accuracy on all pairs is {found['accuracy']:.3f}, below {FITTED}; {numbers}"
    if subject.config.reads == "concatenated":
        return "undetermined", f"a and b are embedded in spaces of their own, which share no directions; {numbers}"
    if c < CIRCULAR:
        return "undetermined", f"circularity is {c:.3f}, below {CIRCULAR}: not one circle per component; {numbers}"
    if n_keys > FEW * addition_task(subject).p:
        return (
            "undetermined",
            f"the logits hold {n_keys} frequencies, as a table's do, not those of a few circles; {numbers}",
        )
    if math.isnan(s) or math.isnan(q) or low <= SYMMETRIC < high:
        return "undetermined", f"gradient symmetricity or distance irrelevance decides nothing; {numbers}"
    pizza = (s > SYMMETRIC, q < DEPENDENT)
    return "pizza" if all(pizza) else "neither" if any(pizza) else "clock", f"{numbers}, circularity {c:.4f}"


def figures(result: ClockPizzaResult) -> dict[str, "go.Figure"]:
    """``plane``: gradient symmetricity against distance irrelevance, with the thresholds; ``correct_logits``: the right
    answer's logit by a − b and b; ``forms``: what the two forms explain of each circle's logits; ``components``: how
    circular the embedding is. Random weights beside all but the second."""
    from interp import plots, theme

    interval = result.gradient_symmetricity_in_span_interval
    s, control = result.gradient_symmetricity_in_span, result.control_gradient_symmetricity_in_span
    points = [
        {
            "name": "model",
            "x": [result.distance_irrelevance],
            "y": [interval.value],
            "error_y": plots.error_bars([interval]),
        },
        {"name": "random weights", "x": [result.control_distance_irrelevance], "y": [control]},
    ]
    for index, point in enumerate(points):
        point["marker"] = {"size": 12, "color": theme.colour(point["name"], index)}
    plane = plots.scatter(
        points,
        title="Clock or pizza",
        x="distance irrelevance q",
        y="gradient symmetricity along the embedding",
        caption=f"Pizzas lie above and left of the dotted thresholds, clocks below and right, if they are fitted and "
        f"circular: accuracy {result.accuracy:.3f} (random {result.control_accuracy:.3f}), circularity "
        f"{result.circularity:.3f} (random {result.control_circularity:.3f}). Bar: 95 % over {interval.n} triples. "
        f"Verdict: {result.verdict}.",
    )
    plane.update_xaxes(range=[-0.02, 1.05])
    plane.update_yaxes(range=[min(-0.05, s - 0.1, control - 0.1), 1.05])
    plane.add_vline(x=DEPENDENT, line_dash="dot", line_color=theme.INK, line_width=1)
    plane.add_hline(y=SYMMETRIC, line_dash="dot", line_color=theme.INK, line_width=1)
    components = [f"{i + 1}: k = {k}" for i, k in enumerate(result.component_frequencies)]
    made = {
        "plane": plane,
        "correct_logits": plots.heatmap(
            result.correct_logits.tolist(),
            title="The right answer's logit",
            x="b",
            y="a − b mod p",
            colour="logit",
            caption="A clock's does not depend on a − b; a pizza's depends on nothing else, and is low where the "
            f"circles have a and b nearly opposite. q = {result.distance_irrelevance:.3f}.",
            signed=False,
        ),
        "components": plots.bars(
            components,
            {
                "model": result.component_circularity,
                "random weights": result.control_component_circularity[: len(components)],
            },
            title="Circles in the embedding",
            x="principal component: its frequency in the model",
            y="share of it in one frequency",
            caption=f"Their mean is the circularity, {result.circularity:.4f}; dotted: {CIRCULAR}, from which a model "
            "counts as circular.",
            threshold=CIRCULAR,
        ),
    }
    if result.circles:
        made["forms"] = plots.bars(
            [f"k = {k}" for k in result.circles],
            {
                "clock": result.clock_explained,
                "pizza": result.pizza_explained,
                "control: clock, random weights": result.control_clock_explained,
                "control: pizza, random weights": result.control_pizza_explained,
            },
            title="Logits of one circle alone",
            x="frequency of the only circle left in the embedding",
            y="share of variance explained",
            caption="Clock: cos ω(a+b−c). Pizza: the same, times |cos(ω(a−b)/2)|. Of an ideal one the other form "
            "explains 81 %.",
        )
    return made
