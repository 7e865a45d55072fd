"""Clock and pizza against networks built by hand, formulas written out, and published weights."""

import itertools
import json
import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from interp.modular import clock_pizza
from interp.modular.clock_pizza import circularity, correct_logits, distance_irrelevance, logit_forms, published_label
from interp.modular.operands import (
    directions,
    exact_symmetricity,
    first_shuffled,
    gradient_similarity,
    isolated_logits,
    operand_gradients,
    operand_tables,
    seeded_triples,
)
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.constructed import clock, lookup_table, pizza
from tasks.models.mlp import shapes as mlp_shapes
from tasks.models.quadratic import circle_network, gromov
from tasks.models.transformer import shapes

PUBLISHED = Path(__file__).parents[4] / "shared" / "published_weights"
P, KEYS = 31, (3, 7, 12)


def by_hand(build, form="equation", p=P, keys=KEYS, **task) -> Subject:
    task = ModularArithmetic(p=p, form=form, **task)
    return Subject.of(*build(task, keys), task)


def untrained(p=23, form="pair", **options) -> Subject:
    task = ModularArithmetic(p=p, form=form)
    size = {"n_layers": 1, "d_model": 64, "n_heads": 4, "d_head": 16, "d_mlp": 128, "mlp_bias": True}
    size |= {"d_vocab": task.d_vocab, "d_vocab_out": p, "n_ctx": task.n_ctx, "causal": False}
    config = TransformerConfig(**size | options)
    rng = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=rng) / shape[0] ** 0.5 for name, shape in shapes(config).items()}
    return Subject.of(config, drawn, task)


def two_tables(p=11, form="pair", seed=None) -> Subject:
    """The network on a circle with a table per operand; with a seed, random weights of its shapes."""
    task = ModularArithmetic(p=p, form=form)
    _, params = circle_network(task, 5)
    size = {"n_ctx": task.n_ctx, "d_vocab": task.d_vocab, "d_vocab_out": p, "d_hidden": (5,), "d_embed": 2}
    config = MLPConfig(input="concatenated", act_fn="square", **size)
    own = {f"embed.{i}.W_E": params["embed.W_E"] for i in range(task.n_ctx)}
    own["layers.0.W_in"] = params["layers.0.W_in"].repeat(task.n_ctx, 1)
    own["unembed.W_U"] = params["unembed.W_out"] @ params["embed.W_E"][:p].T
    if seed is not None:
        rng = torch.Generator().manual_seed(seed)
        own = {name: torch.randn(s, generator=rng, dtype=torch.float64) for name, s in mlp_shapes(config).items()}
    return Subject.of(config, own, task)


def side_by_side(one: Subject, other: Subject) -> Subject:
    """Both networks in one: subspaces, heads and neurons of their own, and the sum of their logits."""
    first, second = one.params, other.params
    d = (one.config.d_model, other.config.d_model)
    second = {"pos_embed.W_pos": torch.zeros(one.task.n_ctx, d[1])} | second
    params = {}
    for name, W in first.items():
        V = second[name]
        if name in ("embed.W_E", "pos_embed.W_pos"):
            params[name] = torch.cat([W, V], dim=1)
        elif ".attn." in name:
            pad = [(0, 0, 0, d[1]), (0, 0, d[0], 0)] if "W_O" not in name else [(0, d[1]), (d[0], 0)]
            params[name] = torch.cat([torch.nn.functional.pad(x, at) for x, at in zip((W, V), pad, strict=True)])
        elif name.endswith(("W_in", "W_out")):
            params[name] = torch.block_diag(W, V)
        else:
            params[name] = torch.cat([W, V])
    size = one.config.to_dict() | {"d_model": sum(d), "n_heads": one.config.n_heads + other.config.n_heads}
    size["d_mlp"] = one.config.d_mlp + other.config.d_mlp
    return Subject.of(TransformerConfig(**size), params, one.task)


@pytest.mark.parametrize("form", ["equation", "pair"])
@pytest.mark.parametrize("build", [clock, pizza])
def test_networks_built_by_hand_are_what_they_are(build, form):
    result = clock_pizza.analyze(by_hand(build, form))
    assert result.verdict == build.__name__
    assert result.accuracy == 1
    assert result.circularity == pytest.approx(1, abs=1e-5)
    assert (result.margins["distance_irrelevance"] > 0.5) == (build is pizza)
    assert result.circles == KEYS
    right, wrong = result.clock_explained, result.pizza_explained
    if build is pizza:
        right, wrong = wrong, right
        assert result.gradient_symmetricity_in_span == pytest.approx(1, abs=1e-6)
    else:
        assert result.gradient_symmetricity_in_span == pytest.approx(0, abs=0.15)
        assert result.distance_irrelevance > 0.8
    assert min(right) > 0.999
    assert wrong == pytest.approx((8 / math.pi**2,) * 3, abs=0.01)
    assert max(result.control_clock_explained + result.control_pizza_explained) < 0.02
    assert result.control_circularity < 0.4
    assert result.control_accuracy < 0.2


def test_what_reads_b_directly_hides_the_pizza_from_whole_gradients_in_the_pair_form():
    found = exact_symmetricity(by_hand(pizza, "pair"))
    assert found.whole == pytest.approx(2 / math.pi, abs=0.01)
    assert found.in_span == pytest.approx(1, abs=1e-6)
    assert exact_symmetricity(by_hand(pizza)).whole == pytest.approx(1, abs=1e-6)


def test_half_clock_half_pizza_is_neither():
    result = clock_pizza.analyze(side_by_side(by_hand(clock), by_hand(pizza)))
    assert result.accuracy == 1
    assert result.margins["distance_irrelevance"] > 0.4
    assert result.margins["gradient_symmetricity_in_span"] < -0.1
    assert (result.verdict, result.label) == ("neither", "clock")


def test_a_table_known_by_heart_is_undetermined_even_when_it_knows_all():
    part = clock_pizza.analyze(by_hand(lambda task, _: lookup_table(task), p=13))
    assert part.verdict == "undetermined"
    assert "accuracy on all pairs is 0.3" in part.reason
    whole = clock_pizza.analyze(by_hand(lambda task, _: lookup_table(task), p=13, train_fraction=1.0))
    assert (whole.verdict, whole.accuracy) == ("undetermined", 1.0)
    assert "the logits hold 6 frequencies" in whole.reason


def test_an_untrained_network_is_symmetric_and_irrelevant_and_undetermined():
    result = clock_pizza.analyze(untrained(attention_mix=0.0))
    assert result.gradient_symmetricity > 0.99
    assert result.distance_irrelevance > 0.95
    assert result.circularity < 0.4
    assert result.verdict == "undetermined"
    assert "accuracy" in result.reason


def test_a_fitted_network_whose_circles_are_blurred_is_undetermined():
    subject = by_hand(pizza)
    noise = torch.randn(subject.params["embed.W_E"].shape, generator=torch.Generator().manual_seed(0))
    noisy = subject.with_params(subject.params | {"embed.W_E": subject.params["embed.W_E"] + 0.02 * noise})
    result = clock_pizza.analyze(noisy)
    assert result.accuracy >= 0.99
    assert (result.verdict, result.label) == ("undetermined", "no circle")
    assert result.reason.startswith("circularity is 0.")


def test_tables_of_their_own_share_no_directions():
    result = clock_pizza.analyze(two_tables())
    assert result.accuracy == 1
    assert (result.verdict, result.reason.split(";")[0]) == (
        "undetermined",
        "a and b are embedded in spaces of their own, which share no directions",
    )


def test_a_sum_of_embeddings_is_symmetric_whatever_follows():
    task = ModularArithmetic(p=P)
    result = clock_pizza.analyze(Subject.of(*circle_network(task, 5), task))
    assert (result.verdict, result.gradient_symmetricity) == ("pizza", pytest.approx(1))
    assert result.distance_irrelevance < 1e-9
    # the logits fade as cos², the form as |cos|: mean of |cos|³ squared over those of cos⁴ and cos²
    assert result.pizza_explained == pytest.approx(((4 / (3 * math.pi)) ** 2 / (3 / 8 * 1 / 2),), abs=1e-3)
    assert result.control_gradient_symmetricity == pytest.approx(1)


def test_b_may_have_tokens_of_its_own():
    task = ModularArithmetic(p=P, diff_vocab=True)
    config, params = pizza(task, KEYS)
    params["embed.W_E"][P : 2 * P] = params["embed.W_E"][:P]
    assert clock_pizza.analyze(Subject.of(config, params, task)).verdict == "pizza"
    params["embed.W_E"][P : 2 * P] += torch.randn(P, config.d_model, generator=torch.Generator().manual_seed(0))
    result = clock_pizza.analyze(Subject.of(config, params, task))
    assert result.circularity < 0.9
    assert result.verdict == "undetermined"


@pytest.mark.parametrize(
    "subject",
    [untrained(7), untrained(7, "equation", causal=True), two_tables(7, seed=0), two_tables(7, "equation", seed=1)],
    ids=["pair", "equation", "tables", "tables, equation"],
)
def test_gradients_are_those_of_finite_differences(subject):
    subject = subject.with_params({name: value.double() for name, value in subject.params.items()})
    triples = seeded_triples(7)[:5]
    a, b, c = triples.T
    inputs = subject.task.all_inputs()[a * 7 + b]
    width = operand_tables(subject)[0].shape[1]
    for operand, gradient in enumerate(operand_gradients(subject, triples)):
        for i in range(0, width, 5):

            def moved(step: float, i: int = i, operand: int = operand) -> Tensor:
                def edit(embedded: Tensor) -> Tensor:
                    embedded = embedded.clone()
                    rows = embedded[:, operand] if embedded.ndim == 3 else embedded[:, operand * width :]
                    rows[:, i] += step
                    return embedded

                return subject.logits(inputs, {"hook_embed": edit}).gather(1, c.unsqueeze(1)).flatten()

            slope = (moved(1e-6) - moved(-1e-6)) / 2e-6
            torch.testing.assert_close(gradient[:, i], slope, rtol=1e-5, atol=1e-7)


def test_all_inputs_are_those_that_all_triples_would_give():
    subject = untrained(5)
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)
    pair, span = operand_gradients(subject, every), directions(*operand_tables(subject))
    expected = [float(gradient_similarity(*pair, part).mean()) for part in (None, span)]
    assert exact_symmetricity(subject) == pytest.approx(expected, abs=1e-6)
    result = clock_pizza.analyze(subject, exact=True)
    assert result.exact_gradient_symmetricity == pytest.approx(expected[0], abs=1e-6)
    assert result.margins["gradient_symmetricity_in_span"] == pytest.approx(expected[1] - 0.98, abs=1e-6)


def test_the_triples_are_the_published_ones():
    every = list(itertools.product(range(23), repeat=3))
    random.Random(42).shuffle(every)
    assert [tuple(triple) for triple in seeded_triples(23).tolist()] == every[:100]
    assert seeded_triples(223).shape == (100, 3)


@pytest.mark.parametrize(("size", "n"), [(1, 3), (2, 1), (5, 9), (64, 64), (1000, 7), (4097, 100)])
def test_the_first_of_a_shuffle_are_those_of_the_whole_shuffle(size, n):
    whole, rng = list(range(size)), random.Random(7)
    random.Random(7).shuffle(whole)
    assert first_shuffled(rng, size, n) == whole[:n]


def test_only_directions_in_which_numbers_differ_count_in_the_span():
    table = torch.zeros(5, 3)
    table[:, 0], table[:, 2] = torch.arange(5), 4.0
    assert directions(table).abs().flatten().tolist() == pytest.approx([1, 0, 0])
    of_a, of_b = torch.tensor([[1.0, 5, 0], [1, 0, 0]]), torch.tensor([[2.0, -5, 0], [0, 0, 0]])
    assert gradient_similarity(of_a, of_b, directions(table)).tolist() == pytest.approx([1, math.nan], nan_ok=True)
    assert float(gradient_similarity(of_a, of_b)[0]) == pytest.approx(-23 / math.sqrt(26 * 29))


def test_the_correct_logit_stands_at_its_difference():
    p = 5
    logits = torch.arange(p**3).reshape(p * p, p).float()
    M = correct_logits(logits)
    for a, b in itertools.product(range(p), repeat=2):
        assert M[(a - b) % p, b] == logits[a * p + b, (a + b) % p]


def test_distance_irrelevance_is_that_of_the_published_table():
    p, rng = 13, torch.Generator().manual_seed(0)
    logits = torch.randn(p * p, p, generator=rng)
    table = torch.zeros(p, p)
    for a, b in itertools.product(range(p), repeat=2):
        table[(a + b) % p, (a - b) % p] = logits[a * p + b, (a + b) % p]
    expected = float(table.std(0, correction=0).mean() / table.std(correction=0))
    assert distance_irrelevance(logits) == pytest.approx(expected)


def test_logits_of_a_minus_b_alone_have_irrelevance_nought_and_logits_of_the_sum_one():
    a, b = torch.cartesian_prod(torch.arange(7), torch.arange(7)).T.float()
    assert distance_irrelevance(((a - b) % 7).unsqueeze(1).expand(-1, 7)) == 0
    assert distance_irrelevance(((a + b) % 7).unsqueeze(1).expand(-1, 7)) == pytest.approx(1)
    assert math.isnan(distance_irrelevance(torch.full((49, 7), 3.0)))


def test_circles_are_circular_and_random_rows_are_not():
    p, x = 59, torch.arange(59)
    angles = 2 * torch.pi * torch.outer(x, torch.tensor([5, 11])) / p
    circles = torch.cat([angles.cos() * torch.tensor([3, 2]), angles.sin() * torch.tensor([3, 2])], dim=1)
    turned = circles @ torch.linalg.qr(torch.randn(9, 4, generator=torch.Generator().manual_seed(0))).Q.T + 7
    found = circularity(turned)
    assert found.mean == pytest.approx(1)
    assert found.frequency.tolist() == [5, 5, 11, 11]
    noise = torch.randn(p, 128, generator=torch.Generator().manual_seed(1))
    components = torch.linalg.svd((noise - noise.mean(0)).double(), full_matrices=False).U[:, :4]
    published = (2 * torch.fft.fft(components, dim=0).abs().pow(2) / p)[1:].amax(0)
    torch.testing.assert_close(circularity(noise).score, published, rtol=0, atol=0.005)
    assert circularity(noise).mean < 0.25
    equal = torch.cat([angles.cos(), angles.sin()], dim=1)
    assert circularity(equal).mean == pytest.approx(1, abs=1e-5)
    assert len(circularity(equal[:, [0, 2]]).score) == 2


def test_each_form_explains_itself_and_eight_over_pi_squared_of_the_other():
    p, k = 59, 7
    a, b, c = (x.double() for x in torch.meshgrid(*[torch.arange(p)] * 3, indexing="ij"))
    Q_clock = torch.cos(2 * torch.pi * k / p * (a + b - c))
    Q_pizza = torch.cos(torch.pi * k / p * (a - b)).abs() * Q_clock
    for Q, expected in ((Q_clock, (1, 8 / math.pi**2)), (Q_pizza, (8 / math.pi**2, 1))):
        offset = 10 * a + 3  # a number for each pair, which softmax does not see
        assert logit_forms((5 * Q + offset).flatten(0, 1), k) == pytest.approx(expected, abs=1e-3)
        assert logit_forms(-Q.flatten(0, 1), k) == (0, 0)
        assert logit_forms(Q.flatten(0, 1), k + 1) == pytest.approx((0, 0), abs=1e-20)


@pytest.mark.parametrize("build", [clock, pizza])
@pytest.mark.parametrize("form", ["equation", "pair"])
def test_a_circle_alone_gives_the_logits_of_a_network_that_has_no_other(build, form):
    both, one = by_hand(build, form, p=13, keys=(2, 5)), by_hand(build, form, p=13, keys=(5,))
    alone = one.logits(one.task.all_inputs())
    torch.testing.assert_close(isolated_logits(both, 5), alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", ["equation", "pair"])
def test_circles_are_isolated_in_embeddings_that_are_added_or_stand_side_by_side(form):
    task = ModularArithmetic(p=11, form=form)
    for subject in (Subject.of(*circle_network(task, 5), task), two_tables(11, form)):
        torch.testing.assert_close(isolated_logits(subject, 1), subject.logits(task.all_inputs()))
        assert isolated_logits(subject, 2).abs().max() < 1e-12


def test_the_published_rule_knows_three_labels():
    assert published_label(0.9937, 0.1717, 0.9978) == "pizza"
    assert published_label(0.3336, 0.8483, 0.9989) == "clock"
    assert published_label(0.99, 0.7, 0.9989) == "clock"
    assert published_label(0.99, 0.1, 0.99) == "no circle"


def test_the_shipped_network_leans_to_the_clock_and_is_not_circular_enough():
    result = clock_pizza.analyze(Subject.load("checkpoints/tiny/modular"))
    assert result.verdict == "undetermined"
    assert result.circularity == pytest.approx(0.9912, abs=1e-4)
    assert result.gradient_symmetricity == pytest.approx(0.5906, abs=1e-4)
    assert result.distance_irrelevance == pytest.approx(0.7336, abs=1e-4)
    assert result.control_gradient_symmetricity > 0.99
    assert result.gradient_symmetricity_interval.n == 100


GOLDEN = {
    "nanda-progress-measures/wd_10-1_mod_addition_loss_curve.pth": (0.7102, 0.7436, 0.9594),
    "nanda-progress-measures/low_precision_mod_addition.pth": (0.2313, 0.9441, 0.9429),
    "nanda-progress-measures/mod_addition_no_wd.pth": (0.3089, 0.6281, 0.9761),
    "chughtai-C113-transformer-seed1/model.pt": (0.2924, 0.8261, 0.9696),
}


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published weights are not here")
@pytest.mark.parametrize("file", GOLDEN)
def test_published_transformers_are_no_pizzas(file):
    layout = "progress_measures" if file.startswith("nanda") else "group_transformer"
    subject = Subject.load(PUBLISHED / file, layout=layout, task=ModularArithmetic(p=113))
    similarity = gradient_similarity(*operand_gradients(subject, seeded_triples(113)))
    irrelevance = distance_irrelevance(subject.logits(subject.task.all_inputs()))
    found = (float(similarity.mean()), irrelevance, circularity(operand_tables(subject)[0]).mean)
    assert found == pytest.approx(GOLDEN[file], abs=2e-4)


def test_the_result_travels_as_json_and_every_figure_says_what_it_shows():
    result = clock_pizza.analyze(by_hand(pizza, p=13, keys=(2, 5)))
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["verdict"] == "pizza"
    assert "correct_logits" not in plain
    made = clock_pizza.figures(result)
    assert set(made) == {"plane", "correct_logits", "components", "forms"}
    captions = {name: figure.layout.title.subtitle.text.replace("<br>", " ") for name, figure in made.items()}
    assert captions["plane"].endswith("Verdict: pizza.")
    assert (len(made["correct_logits"].data[0].z), len(made["correct_logits"].data[0].z[0])) == (13, 13)
    assert list(made["forms"].data[0].x) == [f"k = {k}" for k in result.circles]
    assert "forms" not in clock_pizza.figures(clock_pizza.analyze(untrained()))


def test_what_has_no_operands_to_compare_is_refused():
    task = ModularArithmetic(p=7, operation="subtract")
    with pytest.raises(UserError, match="expected a model of add mod p, got subtract mod 7"):
        clock_pizza.analyze(Subject.of(*pizza(ModularArithmetic(p=7), (2,)), task))
    task = ModularArithmetic(p=7)
    with pytest.raises(UserError, match=r"embeds tokens .*, got input 'one_hot'"):
        clock_pizza.analyze(Subject.of(*gromov(task, 9), task))
    bits = SparseParity(n_bits=5, k=2)
    config = MLPConfig(n_ctx=5, d_vocab=2, d_vocab_out=2, d_hidden=(3,))
    with pytest.raises(UserError, match="got SparseParity"):
        clock_pizza.analyze(Subject.of(config, {n: torch.ones(s) for n, s in mlp_shapes(config).items()}, bits))
