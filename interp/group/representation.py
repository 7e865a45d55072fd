"""Which representations of a group a model composes with, and how much of it they explain.

A network can compute a·b through matrices: it holds entries of ρ(a) and ρ(b) for a few *key representations* ρ of the
group, multiplies them to ρ(ab), and reads the answer c off Σ_ρ α_ρ χ_ρ(ab c⁻¹), which is largest at c = ab (Chughtai
et al. 2023, arXiv 2302.03025). On a cyclic group this is ``interp.modular.fourier``'s Σ_k α_k cos ω_k(a+b−c).

It can also compose by cosets (Stander et al. 2023, arXiv 2312.06581), which matrix entries describe as well: a function
on cosets of K lies in the representations with a vector that K fixes. ``neurons_on_cosets_share`` tells the two apart.

``cube_restricted_loss`` and ``cube_excluded_loss`` keep and remove χ_ρ(ab c⁻¹) in the logits, ``hidden_…`` keep and
remove ρ(ab) in the activations. ``interp.modular.restricted`` projects the logits over inputs, which gives other
numbers.

Pure functions: ``interp.group.cubes``, ``interp.group.characters``, ``interp.group.cosets``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.group.characters import Characters, characters
from interp.group.composition import CompositionTable, composition_table, group_of
from interp.group.cosets import LARGEST_ORDER, ON_COSETS, NeuronCosets, neuron_cosets
from interp.group.cubes import (
    KEY_SIMILARITY,
    CubeFit,
    CubeLosses,
    by_answer,
    by_quotient,
    cube_fit,
    explained,
    hidden_shares,
    key_representations,
    losses_of_fit,
    losses_of_projection,
    renamed_fits,
)
from interp.modular.addition import addition_table, control_table
from interp.result import Result
from interp.spread import centred
from interp.subject import Subject
from tasks.families.modular import ModularArithmetic
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

N_PERMUTATIONS = 99


@dataclass(frozen=True, kw_only=True, eq=False)
class RepresentationResult(Result):
    """What ``analyze`` finds. Every ``control_…`` is the same number for random weights of the same shapes and scales,
    with the model's own key representations where it sums over keys.

    ``key_…`` tuples are aligned with ``key_representations``; ``dimensions``, ``ranks`` (of the space of matrix
    entries) and arrays with ``representations``. ``logits_explained`` is Σ_ρ sim_ρ² over all but the trivial one;
    ``renamed_logits_explained`` is the largest of it when the answers are renamed at random 99 times,
    ``renamed_p_value`` how often that reaches the model's. Embedding (of a, of b), unembedding and hidden layer are
    explained by the sum over keys: ``hidden_explained`` adds ρ(a), ρ(b) and ρ(ab), ``hidden_product_explained`` is
    ρ(ab) alone. ``placebo_…`` losses keep or remove every representation that is neither a key nor trivial.
    ``coset_subgroups``: order of a subgroup → number of neurons on its cosets.

    What concerns neurons is ``None`` in attention-only models, hidden losses also with LayerNorm, and cosets where the
    group has no proper subgroup or more than 250 elements.
    """

    group: str
    representations: tuple[str, ...]
    dimensions: tuple[int, ...]
    ranks: tuple[int, ...]
    key_representations: tuple[str, ...]
    key_similarity: tuple[float, ...]
    key_cube_restricted_loss: tuple[float, ...]
    key_cube_excluded_loss: tuple[float, ...]
    key_count: int
    control_key_count: int
    logits_explained: float
    control_logits_explained: float
    renamed_logits_explained: float
    renamed_p_value: float
    cube_restricted_loss: float
    cube_excluded_loss: float
    placebo_cube_restricted_loss: float
    placebo_cube_excluded_loss: float
    embedding_explained: tuple[float, float]
    control_embedding_explained: tuple[float, float]
    unembedding_explained: float
    control_unembedding_explained: float
    hidden_explained: float | None
    control_hidden_explained: float | None
    hidden_product_explained: float | None
    control_hidden_product_explained: float | None
    hidden_restricted_loss: float | None
    hidden_excluded_loss: float | None
    placebo_hidden_restricted_loss: float | None
    placebo_hidden_excluded_loss: float | None
    neurons_on_cosets_share: float | None
    control_neurons_on_cosets_share: float | None
    coset_subgroups: dict[int, int] | None
    similarity: Float[Tensor, " representation"]
    control_similarity: Float[Tensor, " representation"]
    cube_losses: Float[Tensor, "representation restricted_excluded"]
    embedding_shares: Float[Tensor, "operand representation"]
    control_embedding_shares: Float[Tensor, "operand representation"]
    unembedding_shares: Float[Tensor, " representation"]
    control_unembedding_shares: Float[Tensor, " representation"]
    hidden_shares: Float[Tensor, "a_b_product representation"] | None
    control_hidden_shares: Float[Tensor, "a_b_product representation"] | None
    beyond_chance: Float[Tensor, " d_mlp"] | None
    control_beyond_chance: Float[Tensor, " d_mlp"] | None


@ordinary_torch()
def analyze(subject: Subject, *, control_seed: int = 0) -> RepresentationResult:
    """Key representations of a model of a finite group, what they explain, and the same for random weights.

    Takes models of ``GroupComposition`` and of a ± b mod p. The unembedding is W_out W_U of the last MLP, which for
    models with LayerNorm or several layers is only the direct path. Hidden neurons are those of the last MLP at the
    answer position; cosets are sought in their pre-activations.

    Raises:
        UserError: the task computes in no group; an MLP that reads no tokens.
    """
    chars = characters(group_of(subject.task))
    table = _table(subject)
    fit = cube_fit(table.logits, chars, table.answers)
    keys = key_representations(fit.similarity)
    others = tuple(i for i in range(1, len(chars)) if i not in keys)
    trained = by_quotient(centred(table.logits[table.train]), chars, table.answers[table.train])
    per_cube = [losses_of_fit(fit, chars, [i], trained) for i in range(len(chars))]
    cubes, placebo = (losses_of_fit(fit, chars, chosen, trained) for chosen in (keys, others))
    renamed = renamed_fits(table.logits, chars, table.answers, n=N_PERMUTATIONS, seed=control_seed)
    hidden, hidden_placebo = _hidden_losses(table, chars, (keys, others))
    found = _measure(table, chars, keys, fit)
    control, coset_subgroups = _control(subject, chars, keys, control_seed), found.pop("coset_subgroups")
    return RepresentationResult(
        group=chars.group.name,
        representations=chars.names,
        dimensions=tuple(chars.degrees.tolist()),
        ranks=tuple(chars.ranks.tolist()),
        key_representations=tuple(chars.names[i] for i in keys),
        key_similarity=tuple(fit.similarity[list(keys)].tolist()),
        key_cube_restricted_loss=tuple(per_cube[i].restricted for i in keys),
        key_cube_excluded_loss=tuple(per_cube[i].excluded for i in keys),
        renamed_logits_explained=max(renamed),
        renamed_p_value=(1 + sum(value >= fit.explained for value in renamed)) / (1 + len(renamed)),
        cube_restricted_loss=cubes.restricted,
        cube_excluded_loss=cubes.excluded,
        placebo_cube_restricted_loss=placebo.restricted,
        placebo_cube_excluded_loss=placebo.excluded,
        hidden_restricted_loss=hidden and hidden.restricted,
        hidden_excluded_loss=hidden and hidden.excluded,
        placebo_hidden_restricted_loss=hidden_placebo and hidden_placebo.restricted,
        placebo_hidden_excluded_loss=hidden_placebo and hidden_placebo.excluded,
        coset_subgroups=coset_subgroups,
        cube_losses=torch.tensor(per_cube, dtype=torch.float64),
        **found,
        **{f"control_{name}": value for name, value in control.items()},
    )


def _control(subject: Subject, chars: Characters, keys: Sequence[int], seed: int) -> dict[str, Any]:
    """The same for random weights, but for the subgroups."""
    table = _table(subject, seed)
    found = _measure(table, chars, keys, cube_fit(table.logits, chars, table.answers))
    del found["coset_subgroups"]
    return found


def _measure(table: CompositionTable, chars: Characters, keys: Sequence[int], fit: CubeFit) -> dict[str, Any]:
    """Every number that the model and its control have alike."""
    embedding = torch.stack([explained(operand, chars) for operand in table.operands])
    unembedding = explained(table.readout.T, chars)
    values: dict[str, Any] = {
        "key_count": len(key_representations(fit.similarity)),
        "logits_explained": fit.explained,
        "embedding_explained": tuple(embedding[:, list(keys)].sum(1).tolist()),
        "unembedding_explained": float(unembedding[list(keys)].sum()),
        "similarity": fit.similarity,
        "embedding_shares": embedding,
        "unembedding_shares": unembedding,
        **dict.fromkeys(("hidden_explained", "hidden_product_explained", "hidden_shares")),
        **dict.fromkeys(("neurons_on_cosets_share", "coset_subgroups", "beyond_chance")),
    }
    if table.post is not None:
        hidden = torch.stack(hidden_shares(table.post, chars, table.answers))
        values["hidden_explained"] = float(hidden[:, list(keys)].sum())
        values["hidden_product_explained"] = float(hidden[2, list(keys)].sum())
        values["hidden_shares"] = hidden
    if table.pre is not None and chars.group.order <= LARGEST_ORDER:
        values |= _on_cosets(neuron_cosets(table.pre, chars.group))
    return values


def _on_cosets(found: NeuronCosets | None) -> dict[str, Any]:
    if found is None:
        return {}
    orders, counts = found.subgroup_order[found.on_cosets].unique(return_counts=True)
    return {
        "neurons_on_cosets_share": float(found.on_cosets.double().mean()),
        "coset_subgroups": dict(zip(orders.tolist(), counts.tolist(), strict=True)),
        "beyond_chance": found.beyond_chance,
    }


def _hidden_losses(
    table: CompositionTable, chars: Characters, sets: Sequence[Sequence[int]]
) -> Sequence[CubeLosses | None]:
    """The hidden losses of each set of representations."""
    if table.post is None or not table.linear:
        return [None] * len(sets)
    n, W = chars.group.order, table.readout.double()
    trained, answers = table.post[table.train].double() @ W, table.answers[table.train]
    product = by_answer(table.post, table.answers, n) / n @ W
    return [losses_of_projection(chars.projector(chosen) @ product, trained, answers) for chosen in sets]


def _table(subject: Subject, control_seed: int | None = None) -> CompositionTable:
    """The table of the subject, or of its random weights; that of addition mod p is shared with other analyses."""
    task, config = subject.task, subject.config
    shared = config.has_attention and config.normalization == "none" and bool(config.neurons)
    if not (shared and isinstance(task, ModularArithmetic) and task.operation == "add" and not task.diff_vocab):
        return composition_table(subject if control_seed is None else subject.randomized(control_seed))
    found = addition_table(subject) if control_seed is None else control_table(subject, control_seed)
    assert found.W_L is not None
    return CompositionTable(
        group=group_of(task),
        answers=found.targets,
        train=found.train,
        logits=found.logits,
        operands=(found.embedding, found.embedding),
        readout=found.W_L,
        pre=found.pre,
        post=found.post,
        linear=True,
    )


def figures(result: RepresentationResult) -> dict[str, "go.Figure"]:
    """``similarity``: of the logits to each representation's cube; ``losses``: with the keys' cubes alone and without
    them; ``weights``: shares of embedding and unembedding; ``hidden``: shares of the activations; ``cosets``: how far
    each neuron is constant on cosets. Random weights beside all but the losses, which have the other representations.
    """
    from interp import plots

    keys = ", ".join(result.key_representations) or "none"
    at: Sequence[str | int] = result.representations
    x = f"representation of {result.group}"
    if all(name.startswith("frequency ") for name in result.representations[1:]):
        at, x = list(range(len(at))), f"frequency k, representation of {result.group} (0 is trivial)"
    together = (
        (result.cube_restricted_loss, result.placebo_cube_restricted_loss),
        (result.cube_excluded_loss, result.placebo_cube_excluded_loss),
    )
    made = {
        "similarity": plots.bars(
            at[1:],
            {"model": result.similarity[1:].tolist(), "random weights": result.control_similarity[1:].tolist()},
            title="Representations in the logits",
            x=x,
            y="similarity of logits to χ(ab c⁻¹)",
            caption=f"Cosine of centred logits and the representation's cube. Keys (above {KEY_SIMILARITY}): {keys}. "
            f"All together explain {result.logits_explained:.1%} of the variance.",
            threshold=KEY_SIMILARITY,
        ),
        "losses": plots.bars(
            [*result.key_representations, "all keys", "all others"],
            {
                "these alone, all pairs": [*result.key_cube_restricted_loss, *together[0]],
                "without these, train": [*result.key_cube_excluded_loss, *together[1]],
            },
            title="Loss with representations alone, and without them",
            x=f"representations of {result.group}",
            y="cross entropy",
            caption="Cubes χ(ab c⁻¹) kept or removed in the logits. Dotted: chance, the logarithm of the number of "
            "answers. All others but the trivial one are the placebo.",
            threshold=math.log(sum(result.ranks)),
            log_y=True,
        ),
        "weights": plots.bars(
            at,
            {
                "embedding of a": result.embedding_shares[0].tolist(),
                "embedding of b": result.embedding_shares[1].tolist(),
                "unembedding": result.unembedding_shares.tolist(),
                "control: embedding of a, random": result.control_embedding_shares[0].tolist(),
            },
            title="Representations in the weights",
            x=x,
            y="share of squared norm",
            caption="Projection on all matrix entries of a representation. Random weights have about its rank over "
            "the group's order. What stands in the weights need not be used.",
        ),
    }
    if result.hidden_shares is not None and result.control_hidden_shares is not None:
        a, b, product = result.hidden_shares.tolist()
        made["hidden"] = plots.bars(
            at[1:],
            {
                "ρ(a)": a[1:],
                "ρ(b)": b[1:],
                "ρ(ab)": product[1:],
                "control: ρ(ab), random weights": result.control_hidden_shares[2, 1:].tolist(),
            },
            title="Representations in the hidden layer",
            x=x,
            y="share of variance over pairs",
            caption=f"The keys explain {result.hidden_explained:.1%} (random weights "
            f"{result.control_hidden_explained:.1%}), ρ(ab) alone {result.hidden_product_explained:.1%} (random "
            f"{result.control_hidden_product_explained:.1%}).",
        )
    if result.beyond_chance is not None and result.control_beyond_chance is not None:
        made["cosets"] = plots.lines(
            list(range(1, len(result.beyond_chance) + 1)),
            {
                "model": result.beyond_chance.nan_to_num(0).sort(descending=True).values.tolist(),
                "random weights": result.control_beyond_chance.nan_to_num(0).sort(descending=True).values.tolist(),
            },
            title="Neurons on cosets",
            x="neuron, sorted",
            y="explained by cosets, beyond chance",
            caption=f"Pre-activations explained by aK and Kb of each neuron's best subgroup K. "
            f"{result.neurons_on_cosets_share:.1%} of neurons are above {ON_COSETS:.0%}.",
            threshold=ON_COSETS,
        )
    return made
