"""Lines and directions counted by hand, on random weights, and in the experiment of initial condensation."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp.subject import Subject, Trajectory
from interp.weights import condensation, directions
from interp.weights.condensation import cosines
from tasks.base import UserError
from tasks.families.regression import SineRegression
from tasks.models.config import MLPConfig
from tasks.models.initialization import Initialization
from tasks.models.mlp import shapes
from tasks.training.config import TrainingConfig
from tasks.training.run import Run
from tasks.training.trainer import train


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def on_lines(*ends: tuple[int, int], spread: float = 0.0, d_in: int = 6, seed: int = 0) -> Tensor:
    """Neurons on orthogonal lines, so many at the one end of each and so many at the other."""
    axes = torch.linalg.qr(gaussian(d_in, len(ends), seed=seed)).Q
    signed = [
        sign * axes[:, [k]].repeat(1, n) for k, pair in enumerate(ends) for sign, n in zip((1, -1), pair, strict=True)
    ]
    W = torch.cat(signed, dim=1)
    return W + spread * gaussian(*W.shape, seed=seed + 1)


@pytest.mark.parametrize(
    ("ends", "lines", "ways", "share"),
    [
        ([(5, 0)], 1, 1, 1.0),
        ([(3, 2)], 1, 2, 1.0),
        ([(4, 0)], 0, 0, 0.0),
        ([(7, 5), (6, 0)], 2, 3, 1.0),
        ([(7, 5), (6, 1), (2, 3)], 3, 6, 1.0),
        ([(8, 8), (2, 2)], 1, 2, 0.8),
    ],
)
def test_copies_of_a_neuron_and_of_its_opposite_are_counted_as_by_hand(ends, lines, ways, share):
    found = directions.directions(on_lines(*ends))
    assert (found.lines, found.directions) == (lines, ways)
    assert found.share == pytest.approx(share)


def test_neurons_shorter_than_a_tenth_of_the_longest_are_dropped():
    W = torch.cat([on_lines((6, 0)), 0.099 * gaussian(6, 3) / gaussian(6, 3).norm(dim=0), 0.5 * on_lines((0, 1))], 1)
    found = directions.directions(W)
    assert (found.n_neurons, found.n_kept, found.lines, found.directions) == (10, 7, 1, 2)


@pytest.mark.parametrize(("degrees", "lines"), [(25.0, 1), (26.5, 2)])
def test_a_line_reaches_as_far_as_a_cosine_of_nine_tenths(degrees, lines):
    angle = torch.deg2rad(torch.tensor([0.0] * 6 + [degrees] * 5))  # cos 25.84° = 0.9
    assert directions.directions(torch.stack([angle.cos(), angle.sin()])).lines == lines


def test_the_neuron_with_the_most_neighbours_takes_them():
    # at 20° to either side of the middle one lie two each, which are 40° apart and do not see each other
    angle = torch.deg2rad(torch.tensor([-20.0, -20, 0, 20, 20]))
    cosine = cosines(torch.stack([angle.cos(), angle.sin()]))
    assert directions.lines(cosine) == [(2, 0, 1, 3, 4)]


def test_random_neurons_in_six_dimensions_rarely_share_a_line():
    found = [directions.directions(gaussian(6, 50, seed=seed)).lines for seed in range(100)]
    assert sum(n > 0 for n in found) <= 4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 50), signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=21, max_size=21))
def test_order_size_and_sign_of_neurons_leave_the_lines_as_they_are(seed, signs):
    W = on_lines((5, 4), (3, 4), (5, 0), spread=0.05, seed=seed)
    sizes = 0.5 + torch.rand(21, generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(21, generator=torch.Generator().manual_seed(seed))
    found, moved = directions.directions(W), directions.directions((W * sizes * torch.tensor(signs))[:, order])
    assert found.lines == moved.lines == 3
    assert found.share == moved.share == 1.0
    assert found.directions == 5


def test_the_leading_order_puts_the_ends_of_a_line_at_both_ends():
    shuffled = torch.randperm(14, generator=torch.Generator().manual_seed(1))
    cosine = cosines(on_lines((6, 5), (2, 1))[:, shuffled])
    order = [int(shuffled[neuron]) for neuron in directions.leading_order(cosine)]
    if order[0] >= 6:  # an eigenvector's sign is free
        order.reverse()
    assert sorted(order[:6]) == [0, 1, 2, 3, 4, 5]
    assert sorted(order[-5:]) == [6, 7, 8, 9, 10]


def experiment(act_fn: Any, *, data_seed: int, seeds: range = range(5)) -> list[Run]:
    """Runs of the 5-50-1 network of Zhou et al. 2022, 100 steps of Adam on the full batch."""
    return train(
        SineRegression(data_seed=data_seed),
        MLPConfig(n_ctx=5, d_vocab_out=1, d_hidden=(50,), input="vector", constant_input=True, act_fn=act_fn),
        Initialization(gamma=0.0, gain=0.005),
        TrainingConfig(
            steps=100,
            learning_rate={"sigmoid": 8e-4, "softplus": 2.5e-4}.get(act_fn, 1e-3),
            weight_decay=0.0,
            beta2=0.999,
            warmup_steps=0,
            snapshots=(0,),
        ),
        seeds=seeds,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act_fn", "lines", "ways"), [("tanh", 1, [2]), ("sigmoid", 1, [1]), ("softplus", 1, [1, 2]), ("x_tanh", 2, [4])]
)
def test_from_small_weights_neurons_condense_on_the_published_number_of_lines_in_every_seed(act_fn, lines, ways):
    for run in experiment(act_fn, data_seed=5):
        found = directions.analyze(Trajectory.load(run.path))
        assert found.steps == (0, 100)
        assert found.lines == (0, lines)
        assert found.directions[0] == 0
        assert found.directions[1] in ways
        assert found.share[0] == 0.0
        assert found.share[1] >= 0.9
        assert found.control_lines <= 0.05
        assert found.train_loss[1] > 0.75 * found.train_loss[0]


@pytest.mark.slow
def test_order_three_gives_three_lines_in_at_most_six_directions():
    for run in experiment("x2_tanh", data_seed=5):
        found = directions.directions(run.params()["layers.0.W_in"])
        assert found.lines == 3
        assert found.directions in (5, 6)
        assert found.share >= 0.9


@pytest.mark.slow
def test_above_order_one_the_number_depends_on_the_sample_and_can_exceed_the_published_bound():
    ends = {
        data_seed: [directions.directions(run.params()["layers.0.W_in"]).directions for run in runs]
        for data_seed in (3, 6)
        for runs in [experiment("x_tanh", data_seed=data_seed)]
    }
    assert max(ends[3]) <= 4
    assert min(ends[3]) == 2
    assert min(ends[6]) > 4


@pytest.mark.slow
def test_relu_neurons_condense_on_one_side_of_a_line_mostly_and_not_all_of_them():
    found = [directions.directions(run.params()["layers.0.W_in"]) for run in experiment("relu", data_seed=0)]
    assert all(1 <= each.directions <= 3 for each in found)
    assert all(0.7 <= each.share < 0.95 for each in found)


def test_analysis_takes_the_first_matrix_or_the_one_asked_for_and_no_other():
    task = SineRegression(n_train=10, n_test=10)
    config = MLPConfig(n_ctx=5, d_vocab_out=1, d_hidden=(12, 12), input="vector", constant_input=True)
    start = {name: gaussian(*shape, seed=i).float() for i, (name, shape) in enumerate(shapes(config).items())}
    end = start | {
        "layers.0.W_in": on_lines((4, 8)).float(),
        "layers.1.W_in": on_lines((6, 0), (6, 0), d_in=12).float(),
    }
    trajectory = Trajectory([Subject.of(config, params, task, step=step) for step, params in ((0, start), (9, end))])
    first, second = directions.analyze(trajectory), directions.analyze(trajectory, matrix="layers.1.W_in")
    assert (first.matrix, first.lines, first.directions) == ("layers.0.W_in", (0, 1), (0, 2))
    assert (second.matrix, second.lines, second.directions) == ("layers.1.W_in", (0, 2), (0, 2))
    assert first.train_loss == tuple(subject.performance["train_loss"] for subject in trajectory)
    with pytest.raises(UserError, match=r"no linear map 'W_in': choose among layers\.0\.W_in"):
        directions.analyze(trajectory, matrix="W_in")
    with pytest.raises(UserError, match="expected at least one snapshot"):
        directions.analyze(Trajectory([]))

    figure = directions.figures(first)["cosines"]
    left, right = figure.data
    assert (left.xaxis, right.xaxis, right.yaxis) == (None, "x2", "y2")
    assert torch.tensor(left.z, dtype=torch.float64).equal(first.first_cosines.round(decimals=3))
    assert torch.tensor(right.z)[0, 11] == -1  # the two ends of the line
    assert "100% of them lie on 1 line through 0 in 2 directions; at step 0, 0% do" in (
        figure.layout.title.subtitle.text.replace("<br>", " ")
    )

    by_condensation = condensation.analyze(trajectory.subjects[1])  # works on a perceptron as well
    assert list(by_condensation.matrices) == ["layers.0.W_in", "layers.1.W_in"]
    assert by_condensation.directions == 1
