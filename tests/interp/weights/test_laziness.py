"""Lazy or rich: weights and kernels that were moved in known ways, and what a kernel has of a task."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.subject import Subject, Trajectory
from interp.transitions import Transition
from interp.weights import laziness
from interp.weights.laziness import kernel_alignment, task_difficulty
from tasks.base import Task, UserError
from tasks.families.modular import ModularArithmetic
from tasks.families.regression import SineRegression
from tasks.models import mlp
from tasks.models.config import MLPConfig
from tasks.models.initialization import Initialization, initialize

TASK = ModularArithmetic(p=7, train_fraction=0.9, form="pair")
CONFIG = MLPConfig(n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(12,), input="one_hot", output_bias=True)
TINY = Path(__file__).parents[3] / "checkpoints" / "tiny" / "modular"


def start(config: MLPConfig = CONFIG) -> dict[str, torch.Tensor]:
    return initialize(mlp.shapes(config), config, Initialization(scheme="gain"), 0, "float64")


def through(*stages: dict[str, torch.Tensor], config: MLPConfig = CONFIG, task: Task = TASK) -> Trajectory:
    return Trajectory([Subject.of(config, params, task, step=100 * i) for i, params in enumerate(stages)])


def features(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def shipped() -> laziness.LazinessResult:
    return laziness.analyze(Trajectory.load(TINY))


def test_two_kernels_of_one_feature_each_align_as_worked_out_by_hand() -> None:
    # centred, (1,0,0) and (0,1,0) have squared norms 2/3 and product −1/3: (1/9)/(4/9)
    first, second = torch.zeros(2, 3, 3, dtype=torch.float64)
    first[0, 0] = second[1, 1] = 1.0
    assert kernel_alignment(first, second) == pytest.approx(0.25)
    assert kernel_alignment(first, first) == pytest.approx(1.0)
    assert math.isnan(kernel_alignment(torch.ones(3, 3), first))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), constant=st.floats(0, 10))
def test_alignment_minds_neither_scale_nor_a_constant_nor_the_order_of_inputs(seed, scale, constant) -> None:
    K, L = (rows @ rows.T for rows in (features(9, 4, seed), features(9, 3, seed + 1)))
    aligned = kernel_alignment(K, L)
    assert 0 <= aligned <= 1
    assert kernel_alignment(L, K) == pytest.approx(aligned)
    assert kernel_alignment(scale * K + constant, L) == pytest.approx(aligned, rel=1e-6)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    assert kernel_alignment(K[order][:, order], L[order][:, order]) == pytest.approx(aligned)


def test_difficulty_is_the_sum_over_eigenvectors_worked_out_by_hand() -> None:
    K, y = torch.diag(torch.tensor([1.0, 4.0])), torch.eye(2)
    assert task_difficulty(K, y, ridge=0.4) == pytest.approx(1 / (1 + 1) + 1 / (4 + 1))  # λ = .4 · 5/2
    assert task_difficulty(2 * K, y, ridge=0.4) == pytest.approx(0.35)  # λ grows with K
    assert task_difficulty(K, y[:, 1:], ridge=0.4) < task_difficulty(K, y[:, :1], ridge=0.4)
    assert math.isnan(task_difficulty(torch.zeros(2, 2), y))


def test_targets_that_the_kernel_is_made_of_are_easy_and_permuted_ones_are_not() -> None:
    y = torch.nn.functional.one_hot(torch.arange(60) % 3).double()
    K = 10 * y @ y.T + features(60, 60, 0) @ features(60, 60, 0).T / 60
    shuffled = y[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    assert kernel_alignment(K, y @ y.T) > 0.95
    assert kernel_alignment(K, shuffled @ shuffled.T) < 0.2
    assert task_difficulty(K, y) < 0.1 * task_difficulty(K, shuffled)


def test_a_model_that_moves_where_it_is_linear_moves_its_weights_and_not_its_kernel() -> None:
    # logits are linear in their bias, whose kernel is a constant
    params = start()
    found = laziness.analyze(through(params, {**params, "unembed.b_U": torch.arange(7.0, dtype=torch.float64)}))
    assert found.measures[1].distance > 1
    assert found.measures[1].kernel_alignment == pytest.approx(1.0)
    assert found.measures[1].kernel_distance == pytest.approx(0.0, abs=1e-12)
    assert found.moved == Transition(after=100, by=None)


def test_scaled_weights_are_as_far_as_their_scale_says_and_their_kernel_is_scaled() -> None:
    plain = MLPConfig(n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(12,), input="one_hot")
    params = start(plain)
    tripled = {name: 3 * value for name, value in params.items()}
    initial, last = laziness.analyze(through(params, tripled, config=plain)).measures
    assert (initial.distance, initial.kernel_distance) == (0.0, 0.0)
    assert initial.kernel_alignment == pytest.approx(1.0)
    assert (last.distance, last.cosine) == pytest.approx((2.0, 1.0))
    assert last.distances == pytest.approx({"mlp": 2.0, "unembedding": 2.0})
    assert last.norm == pytest.approx(3 * initial.norm)
    assert last.kernel_alignment == pytest.approx(1.0)
    assert last.kernel_distance == pytest.approx(3**2 - 1)  # two layers: K grows with the square
    assert last.difficulty == pytest.approx(initial.difficulty / 9)
    assert last.alignment == pytest.approx(initial.alignment)


def test_other_weights_have_another_kernel_and_the_step_is_told() -> None:
    params, other = start(), initialize(mlp.shapes(CONFIG), CONFIG, Initialization(scheme="gain"), 1, "float64")
    narrow = {name: torch.cat([value[..., :3], 0 * value[..., 3:]], -1) for name, value in other.items()}
    found = laziness.analyze(through(params, params, narrow))
    assert found.moved == Transition(after=100, by=200)
    assert found.measures[2].kernel_alignment < laziness.MOVED
    assert found.measures[2].cosine < 0.5


def test_a_part_of_the_model_has_a_distance_of_its_own_and_zeros_have_none() -> None:
    params = start()
    moved = {**params, "unembed.W_U": 1.5 * params["unembed.W_U"]}
    last = laziness.analyze(through(params, moved)).measures[1]
    assert last.distances["mlp"] == 0
    assert last.distances["unembedding"] == pytest.approx(0.5)
    assert math.isnan(last.distances["biases and norms"])
    shares = [float(params[name].norm()) for name in ("layers.0.W_in", "unembed.W_U")]
    assert last.distance == pytest.approx(0.5 * shares[1] / math.hypot(*shares))


def test_permuted_targets_have_the_mean_that_chance_gives() -> None:
    found = laziness.analyze(through(start()))
    at = found.measures[0]
    assert found.n_inputs == len(TASK.train_set())
    # random weights know two inputs with a number in common, and these never share a sum: worse than chance
    assert at.alignment < at.permuted_alignment.low
    assert at.alignment_p_value > 0.9
    assert at.permuted_difficulty.n == laziness.N_PERMUTATIONS


def test_weights_that_do_nothing_align_with_no_target_better_than_with_others() -> None:
    at = laziness.analyze(through({name: 0 * value for name, value in start().items()})).measures[0]
    assert math.isnan(at.alignment)
    assert math.isnan(at.alignment_p_value)


@pytest.mark.slow
def test_the_shipped_run_turns_its_kernel_to_the_task(shipped) -> None:
    before, after = shipped.measures[0], shipped.measures[-1]
    assert before.alignment < before.permuted_alignment.value
    assert after.alignment > 1.5 * after.permuted_alignment.value
    assert after.alignment > 2 * shipped.control_alignment
    assert after.alignment_p_value == 0.01
    assert after.difficulty < 0.3 * after.permuted_difficulty.value
    assert before.difficulty > 0.5 * before.permuted_difficulty.value
    assert shipped.moved == Transition(after=0, by=200)
    assert after.kernel_alignment < 0.5
    assert after.distance > 1
    json.dumps(shipped.to_dict(), allow_nan=False)


def test_the_same_seed_chooses_the_same_inputs() -> None:
    runs = [laziness.analyze(through(start()), n_inputs=20, seed=seed).measures[0].alignment for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_targets_that_are_numbers_are_taken_as_they_are() -> None:
    task = SineRegression(dimension=3, n_train=20)
    config = MLPConfig(n_ctx=3, d_vocab_out=1, d_hidden=(8,), input="vector")
    single = {name: value.float() for name, value in start(config).items()}
    found = laziness.analyze(through(single, config=config, task=task))
    assert found.n_inputs == 20
    assert torch.equal(laziness.one_hot_targets(task.train_set()), task.train_set().targets.double())
    assert 0 < found.measures[0].alignment < 1


def test_an_empty_trajectory_and_a_single_input_are_refused() -> None:
    with pytest.raises(UserError, match="expected at least one snapshot"):
        laziness.analyze(Trajectory([]))
    with pytest.raises(UserError, match="n_inputs of at least 2, got 1"):
        laziness.analyze(through(start()), n_inputs=1)


@pytest.mark.slow
def test_the_figures_show_every_measure_over_the_steps(shipped) -> None:
    made = laziness.figures(shipped)
    assert list(made) == ["distance", "kernel distance", "kernel", "alignment", "difficulty", "loss"]
    assert list(made["distance"].data[0].x) == [1, 200, 2500]
    assert list(made["distance"].data[0].y) == [m.distance for m in shipped.measures]
    assert list(made["kernel"].data[0].y) == [m.kernel_alignment for m in shipped.measures]
    assert list(made["alignment"].data[1].y) == [m.permuted_alignment.value for m in shipped.measures]
    assert [trace.name for trace in made["distance"].data][1:] == ["embedding", "qk", "ov", "mlp", "unembedding"]
    assert list(made["kernel distance"].data[0].y) == [m.kernel_distance for m in shipped.measures]
    relative = [m.difficulty / m.permuted_difficulty.value for m in shipped.measures]
    assert list(made["difficulty"].data[0].y) == relative
    assert made["alignment"].data[1].line.color == "#9A9A9A"
