"""Waves of perceptrons that add, against networks written down by hand and formulas worked out."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.modular import neuron_waves
from interp.modular.angles import doubling, evenness, evenness_of_random
from interp.modular.neuron_waves import fit_form, interference
from interp.modular.two_matrices import collapsed, strongest_waves
from interp.probe import examine
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.models.config import MLPConfig
from tasks.models.constructed import clock
from tasks.models.mlp import shapes
from tasks.models.quadratic import circle_network

P = 31


def addition(p=P, **fields) -> ModularArithmetic:
    return ModularArithmetic(p=p, **{"form": "pair"} | fields)


def circle(n: int, activation="square", p=P) -> Subject:
    return Subject.of(*circle_network(addition(p), n, activation), addition(p))


def circles(neurons: dict[int, int], activation="square", p=P) -> Subject:
    """Circle networks side by side: frequency → its neurons."""
    parts = [circle_network(addition(p), n, activation) for n in neurons.values()]
    turns = [torch.arange(p) * k % p for k in neurons]
    params = {
        "embed.W_E": torch.cat([part.params["embed.W_E"][at] for part, at in zip(parts, turns, strict=True)], dim=1),
        "layers.0.W_in": torch.block_diag(*(part.params["layers.0.W_in"] for part in parts)),
        "unembed.W_out": torch.block_diag(*(part.params["unembed.W_out"] for part in parts)),
    }
    config = replace(parts[0].config, d_hidden=(sum(neurons.values()),), d_embed=2 * len(neurons))
    return Subject.of(config, params, addition(p))


def untrained(task, seed=0, **fields) -> Subject:
    size = {"n_ctx": task.n_ctx, "d_vocab": task.d_vocab, "d_vocab_out": task.d_vocab_out, "d_hidden": (6,)}
    config = MLPConfig(**size | {"input": "embedding", "d_embed": 4} | fields)
    rng = torch.Generator().manual_seed(seed)
    params = {name: torch.randn(s, generator=rng, dtype=torch.float64) for name, s in shapes(config).items()}
    return Subject.of(config, params, task)


@pytest.mark.parametrize("n", [3, 5, 6, 7, 8, 11, 16, 24])
def test_squares_on_a_circle_are_the_exact_form_with_a_coefficient_of_their_number(n):
    result = neuron_waves.analyze(circle(n))
    assert (result.frequencies, result.neurons_per_frequency, result.n_counted) == ((1,), (n,), n)
    assert result.square_residual < 1e-26  # of squares: the identity holds to 1e-13
    assert result.square_coefficients == pytest.approx((n,), rel=1e-13)
    assert result.evenness == pytest.approx((1.0,))
    assert (result.accuracy, result.interference.accuracy) == (1.0, (1.0,))
    assert (result.input_share, result.output_share, result.same_frequency) == pytest.approx((1, 1, 1))
    assert result.doubling.deviation == pytest.approx(0, abs=1e-10)
    assert result.doubling.resultant == pytest.approx(1)
    assert result.absolute_residual == pytest.approx(0.04, abs=0.002)
    assert result.control_square_residual > 0.99
    assert max(result.control_input_share, result.control_output_share) < 0.5
    assert result.control_accuracy < 0.15


def test_four_squares_alias_and_half_of_their_logits_is_no_such_form():
    result = neuron_waves.analyze(circle(4, p=67))
    assert result.accuracy == pytest.approx(0.03, abs=2e-3)
    assert result.square_residual == pytest.approx(0.5)
    assert result.square_coefficients == pytest.approx((4.0,))
    assert result.doubling.resultant == pytest.approx(1)  # the angles are right, there are too few of them


@pytest.mark.slow
def test_rectified_neurons_near_the_form_with_the_absolute_cosine_as_their_number_grows():
    found = {n: neuron_waves.analyze(circle(n, "relu", p=67)) for n in (3, 4, 5, 6, 7, 8, 24)}
    accuracy = [found[n].accuracy for n in (3, 4, 6, 8)]
    assert accuracy == pytest.approx([0.023, 0.03, 0.194, 0.64], abs=3e-3)
    assert [found[n].accuracy for n in (5, 7, 24)] == [1, 1, 1]
    residuals = [found[n].absolute_residual for n in (3, 5, 7, 24)]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[-1] < 1e-3 < 0.03 < found[24].square_residual


@pytest.mark.parametrize("p", [12, 30])
def test_an_even_modulus_keeps_the_form_and_loses_the_opposite_pairs(p):
    result = neuron_waves.analyze(circle(5, p=p))
    assert result.square_residual < 1e-26
    assert 1 - 1 / p <= result.accuracy < 1  # one pair in p lies opposite; rounding draws its answer


def test_two_frequencies_side_by_side_are_told_apart_and_know_more_together():
    result = neuron_waves.analyze(circles({3: 5, 7: 9}))
    assert (result.frequencies, result.neurons_per_frequency) == ((7, 3), (9, 5))
    assert result.square_coefficients == pytest.approx((9, 5))
    assert result.square_residual < 1e-26
    assert result.neuron_frequency.tolist() == [3] * 5 + [7] * 9
    assert result.input_angle[:5].diff().min() > 0
    assert sum(result.logit_variance) == pytest.approx(2 / 3)  # squares leave a third to a − b
    variance = [v * 3 / 2 for v in result.logit_variance]
    assert variance == pytest.approx([81 / 106, 25 / 106])
    assert result.doubling.deviation == pytest.approx(0, abs=1e-10)
    assert result.doubling.permuted_deviation == pytest.approx(90, abs=12)
    assert result.doubling.p_value == 0.001
    assert result.interference.margin[1] > 2 * result.interference.margin[0]
    assert result.interference.loss[1] < result.interference.loss[0]
    assert result.control_doubling.deviation > 50


@settings(max_examples=5, deadline=None)
@given(unit=st.integers(1, 30))
def test_numbers_multiplied_by_a_unit_have_other_frequencies_and_nothing_else(unit):
    subject = circles({3: 5, 7: 6})
    at = torch.arange(P) * unit % P
    W_E = subject.params["embed.W_E"][at]
    found, other = (
        neuron_waves.analyze(x) for x in (subject, subject.with_params(subject.params | {"embed.W_E": W_E}))
    )
    assert other.frequencies == tuple(min(k * unit % P, -k * unit % P) for k in found.frequencies)
    assert other.neurons_per_frequency == found.neurons_per_frequency
    assert other.square_residual < 1e-26
    for measured in ("logit_variance", "evenness", "input_share"):
        assert getattr(other, measured) == pytest.approx(getattr(found, measured))
    assert other.interference.loss == pytest.approx(found.interference.loss)


def test_exchanged_output_weights_lose_the_answers_and_the_doubling_but_no_wave():
    subject = circles({3: 7, 7: 8})
    W_out = subject.params["unembed.W_out"]
    order = torch.tensor([2, 5, 1, 6, 0, 3, 4, 9, 14, 7, 11, 13, 8, 10, 12])
    result = neuron_waves.analyze(subject.with_params(subject.params | {"unembed.W_out": W_out[order]}))
    assert result.doubling.deviation > 45
    assert result.doubling.p_value > 0.01
    assert result.square_residual > 0.3
    assert result.accuracy < 0.1
    assert (result.output_share, result.same_frequency) == pytest.approx((1, 1))


@settings(max_examples=40, deadline=None)
@given(
    p=st.integers(3, 60),
    data=st.data(),
    amplitude=st.floats(0.1, 100),
    angle=st.floats(-3.1, 3.1),
    constant=st.floats(-10, 10),
)
def test_the_wave_of_a_column_has_the_frequency_amplitude_and_angle_it_was_made_with(
    p, data, amplitude, angle, constant
):
    k = data.draw(st.integers(1, (p - 1) // 2))
    x = torch.arange(p, dtype=torch.float64)
    column = constant + amplitude * torch.cos(2 * torch.pi * k / p * x - angle)
    found = strongest_waves(column.unsqueeze(1))
    assert int(found.frequency) == k
    assert float(found.amplitude) == pytest.approx(amplitude)
    assert float(found.angle) == pytest.approx(angle, abs=1e-6)
    assert float(found.share) == pytest.approx(1)


def test_the_frequency_of_half_the_numbers_has_a_cosine_alone():
    x = torch.arange(10)
    column = (3.0 * (-1.0) ** x + torch.cos(2 * torch.pi / 10 * x)).unsqueeze(1).double()
    found = strongest_waves(column)
    assert (int(found.frequency), float(found.amplitude), float(found.angle)) == pytest.approx((5, 3, 0))
    assert float(found.share) == pytest.approx(9 / 9.5)  # mean squares 9 and 1/2
    assert float(strongest_waves(column, torch.tensor([1])).share) == pytest.approx(0.5 / 9.5)


def test_evenness_of_gaps_worked_by_hand():
    assert evenness(torch.arange(7) * 2 * torch.pi / 7 + 1) == pytest.approx(1)
    right_angle = math.exp(-0.25 * math.log(0.25) - 0.75 * math.log(0.75)) / 2
    assert evenness(torch.tensor([3.0, 3.0 + math.pi / 2])) == pytest.approx(right_angle)
    assert evenness(torch.zeros(4)) == pytest.approx(1 / 4)
    assert math.isnan(evenness(torch.zeros(1)))
    assert evenness_of_random(200) == pytest.approx(math.exp(0.5772 - 1), abs=0.01)  # of exponential gaps


def test_angles_that_double_do_so_and_random_ones_do_not():
    reads = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 * torch.pi
    found = doubling(reads, 2 * reads + 0.1)
    assert found.deviation == pytest.approx(math.degrees(0.1))
    assert (found.resultant, found.p_value) == (pytest.approx(1), 0.001)
    assert found.permuted_deviation == pytest.approx(90, abs=5)
    assert found.permuted_resultant == pytest.approx(math.sqrt(math.pi / 4 / 40), rel=0.15)
    random = doubling(reads, reads.flip(0))
    assert random.deviation == pytest.approx(90, abs=20)
    assert random.p_value > 0.05
    assert doubling(torch.zeros(2), torch.tensor([0.0, math.pi])).resultant == pytest.approx(0, abs=1e-7)


def test_what_parts_of_the_logits_know_is_added_up_in_order():
    parts = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 1.0]]])
    found = interference(parts, torch.tensor([0, 1]))
    assert found.accuracy == (0.5, 1.0)
    assert found.margin == (0.0, 2.0)
    assert found.loss[1] == pytest.approx(math.log1p(math.exp(-2)))


def test_a_form_is_found_among_others_and_noise_is_what_is_left():
    a, b, c = (x.double() for x in (*addition().pairs.T.unsqueeze(-1), torch.arange(P)))
    w = 2 * torch.pi / P
    logits = 2 * torch.cos(5 * w * (a - b) / 2).abs() * torch.cos(5 * w * (a + b - c)) - 3 * torch.cos(w * (a + b - c))
    found = fit_form(logits + 7 * a, (5,), power=1)
    assert found.coefficients.tolist() == pytest.approx([2.0])
    strengths = 4 * 0.25, 9 * 0.5  # mean squares: |cos|² and the cosine of the answer halve each
    assert found.residual == pytest.approx(strengths[1] / sum(strengths))


@pytest.mark.parametrize(
    "fields",
    [
        {"tied_unembedding": True},
        {"tied_unembedding": True, "bias": True, "output_bias": True, "act_fn": "gelu"},
        {"bias": True, "output_bias": True, "act_fn": "square", "d_embed": 9},
    ],
)
@pytest.mark.parametrize("form", ["pair", "equation"])
def test_two_matrices_compute_what_the_whole_model_does(form, fields):
    task = addition(p=7, form=form)
    subject = untrained(task, **fields)
    model = collapsed(subject)
    torch.testing.assert_close(
        model.hidden() @ model.W_output + model.bias, subject.logits(task.all_inputs())[:, :7], rtol=1e-12, atol=1e-12
    )
    result = neuron_waves.analyze(subject)
    assert result.accuracy == pytest.approx(
        float((subject.logits(task.all_inputs())[:, :7].argmax(1) == task.all_targets()).double().mean())
    )


def test_a_model_of_unordered_pairs_is_measured_on_every_pair():
    subject = circles({3: 5, 7: 6})
    unordered = Subject.of(subject.config, subject.params, addition(unordered=True))
    found, expected = neuron_waves.analyze(unordered).to_dict(), neuron_waves.analyze(subject).to_dict()
    assert found == expected


@pytest.mark.parametrize(("d_embed", "counted"), [(500, 12), (499, 24)])
def test_neurons_of_the_published_model_count_by_the_published_cut_and_others_by_a_share_of_the_largest(
    d_embed, counted
):
    config, params = circle_network(addition(67), 24)
    W_E = torch.zeros(67, d_embed, dtype=torch.float64)
    W_E[:, :2] = params["embed.W_E"]
    norms = torch.where(torch.arange(24) % 2 == 0, 11.0, 9.0)
    W_in = torch.zeros(d_embed, 24, dtype=torch.float64)
    W_in[:2] = params["layers.0.W_in"] * norms * (2 / 67) ** 0.5
    W_out = torch.zeros(24, d_embed, dtype=torch.float64)
    W_out[:, :2] = params["unembed.W_out"]
    weights = {"embed.W_E": W_E, "layers.0.W_in": W_in, "unembed.W_out": W_out}
    result = neuron_waves.analyze(Subject.of(replace(config, d_embed=d_embed), weights, addition(67)))
    assert (result.n_counted, result.n_neurons) == (counted, 24)


def test_a_network_multiplied_out_beforehand_has_the_same_waves():
    config, params = circle_network(addition(), 7)
    whole = neuron_waves.analyze(Subject.of(config, params, addition()))
    weights = {
        "layers.0.W_in": params["embed.W_E"] @ params["layers.0.W_in"],
        "unembed.W_U": params["unembed.W_out"] @ params["embed.W_E"].T,
    }
    alone = replace(config, input="counts", d_embed=None, tied_unembedding=False)
    found = neuron_waves.analyze(Subject.of(alone, weights, addition()))
    assert found.frequencies == whole.frequencies
    torch.testing.assert_close((found.W_input, found.W_output), (whole.W_input, whole.W_output))
    assert found.interference.accuracy == whole.interference.accuracy
    assert found.interference.loss == pytest.approx(whole.interference.loss)


@pytest.mark.parametrize("constant", [0.0, 0.3, 1.7, -5.0])
def test_a_constant_column_has_no_wave(constant):
    found = strongest_waves(torch.full((67, 1), constant))
    assert (float(found.amplitude), math.isnan(float(found.share))) == (0, True)


def test_weights_that_do_nothing_have_no_wave_and_no_figure():
    config, params = circle_network(addition(), 5)
    result = neuron_waves.analyze(Subject.of(config, {name: W * 0 for name, W in params.items()}, addition()))
    assert (result.n_counted, result.frequencies, result.interference.accuracy) == (0, (), ())
    assert math.isnan(result.doubling.deviation)
    assert neuron_waves.figures(result) == {}


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (lambda: Subject.of(*clock(addition(), (2, 3)), addition()), "one hidden layer, got a transformer"),
        (lambda: untrained(addition(), input="one_hot", d_embed=None), "got 1 after input 'one_hot'"),
        (lambda: untrained(addition(), d_hidden=(4, 4)), "one hidden layer, got 2 after input 'embedding'"),
        (lambda: untrained(addition(operation="subtract")), "expected a model of add mod p with .* got subtract"),
        (lambda: untrained(addition(diff_vocab=True)), "with one embedding per number, got diff_vocab"),
        (lambda: untrained(addition(operation="multiply")), "expected a model of add mod p, got multiply mod 31"),
        (
            lambda: untrained(SparseParity(n_bits=5, k=2), input="bits", d_embed=None),
            "expected a model of add mod p, got SparseParity",
        ),
    ],
)
def test_models_without_such_waves_are_refused_in_one_line(subject, message):
    with pytest.raises(UserError, match=message) as refusal:
        neuron_waves.analyze(subject())
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_the_probe_measures_perceptrons_and_passes_transformers_by():
    report = examine(circles({3: 5, 7: 6}))
    assert report.results["neuron_waves"].frequencies == (7, 3)
    task = addition(form="equation")
    skipped = examine(Subject.of(*clock(task, (2, 3)), task)).skipped
    assert skipped["neuron_waves"].startswith("expected a perceptron with input 'embedding'")


def test_figures_draw_what_was_measured():
    result = neuron_waves.analyze(circles({3: 5, 7: 9}))
    drawn = neuron_waves.figures(result)
    assert list(drawn) == ["input_waves", "output_waves", "angles", "interference", "frequencies"]
    assert torch.tensor(drawn["output_waves"].data[0].z, dtype=torch.float64).equal(result.W_output)
    reads, writes, twice = drawn["angles"].data[:3]
    assert [(angle % 360) for angle in writes.theta[::3]] == pytest.approx([angle % 360 for angle in twice.theta])
    assert len(reads.theta) == 3 * 9
    *parts, total = drawn["interference"].data[:3]
    assert torch.tensor([part.y for part in parts]).sum(0).tolist() == pytest.approx(total.y)
    (a, b), answers = result.example_pairs[1], drawn["interference"].data[5].y
    assert max(range(P), key=lambda c: answers[c]) == (a + b) % P
    assert drawn["frequencies"].data[0].y == result.interference.accuracy
