"""Numerical collapse: when a sum of exponentials rounds to 1, and the gradient against closed forms."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp.subject import Subject
from interp.weights import collapse
from tasks.base import Task, UserError
from tasks.families.group import GroupComposition
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.families.regression import SineRegression
from tasks.models import mlp
from tasks.models.config import MLPConfig
from tasks.models.constructed import lookup_table
from tasks.models.initialization import Initialization, initialize
from tasks.training.objective import margins

TASK = ModularArithmetic(p=7, train_fraction=0.6, form="pair")
ONE_HOT = {"n_ctx": 2, "d_vocab": 7, "d_vocab_out": 7, "input": "one_hot"}
TINY = Path(__file__).parents[3] / "checkpoints" / "tiny" / "modular"


def network(config: MLPConfig, task: Task = TASK, *, gain: float = 1.0) -> Subject:
    init = Initialization(scheme="gain", gain=gain)
    return Subject.of(config, initialize(mlp.shapes(config), config, init, 0, "float64"), task)


def fractions(logits: Tensor, targets: Tensor) -> dict[str, float]:
    return {
        name: float(collapse.collapsed(logits, targets, precision).sum_is_one.double().mean())
        for name, precision in collapse.PRECISIONS.items()
    }


def test_one_hot_logits_times_200_have_collapsed_in_every_precision() -> None:
    targets = torch.arange(7)
    logits = 200 * F.one_hot(targets).double()
    assert fractions(logits, targets) == {"bfloat16": 1.0, "float32": 1.0, "float64": 1.0}
    assert collapse.collapsed(logits, targets, torch.float32).loss_is_zero.all()
    assert (F.cross_entropy(logits.float(), targets, reduction="none") == 0).all()


def test_margins_of_20_have_collapsed_in_float32_and_not_in_float64() -> None:
    targets = torch.arange(3)
    logits = 20 * F.one_hot(targets).double()
    assert fractions(logits, targets) == {"bfloat16": 1.0, "float32": 1.0, "float64": 0.0}
    assert fractions(logits / 2, targets) == {"bfloat16": 1.0, "float32": 0.0, "float64": 0.0}
    assert fractions(logits / 5, targets) == {"bfloat16": 0.0, "float32": 0.0, "float64": 0.0}


def test_the_thresholds_are_the_logarithms_of_half_the_distance_from_1_to_the_next_number() -> None:
    lowest = {name: collapse.collapse_margins(precision, 2) for name, precision in collapse.PRECISIONS.items()}
    assert lowest["float32"] == pytest.approx((24 * math.log(2),) * 2)
    assert lowest["float64"] == pytest.approx((53 * math.log(2),) * 2)
    assert lowest["bfloat16"] == pytest.approx((8 * math.log(2),) * 2)
    assert collapse.collapse_margins(torch.float32, 113)[1] == pytest.approx(math.log(112 * 2**24))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 200), precision=st.sampled_from([torch.float32, torch.float64]))
def test_a_sum_collapses_exactly_where_its_threshold_says(n: int, precision: torch.dtype) -> None:
    targets = torch.zeros(2, dtype=torch.int64)
    lowest, highest = collapse.collapse_margins(precision, n)

    def around(margin: float, runners_up: int) -> list[bool]:
        logits = torch.full((2, n), -1e4, dtype=torch.float64)
        logits[:, 0] = 0.0
        logits[:, 1 : 1 + runners_up] = -torch.tensor([[margin - 1e-4], [margin + 1e-4]], dtype=torch.float64)
        return collapse.collapsed(logits, targets, precision).sum_is_one.tolist()

    assert around(lowest, 1) == [False, True]
    assert around(highest, n - 1) == [False, True]


def test_torch_s_own_loss_is_zero_where_ours_is_and_not_below_the_lowest_threshold() -> None:
    drawn = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 113, generator=drawn)
    targets = torch.randint(113, (4000,), generator=drawn)
    logits[torch.arange(4000), targets] += 14 + 14 * torch.rand(4000, generator=drawn)
    found = collapse.collapsed(logits, targets, torch.float32)
    loss = F.cross_entropy(logits, targets, reduction="none")
    assert 500 < int(found.loss_is_zero.sum()) < 3500
    assert (loss[found.loss_is_zero] == 0).all()
    lowest, highest = collapse.collapse_margins(torch.float32, 113)
    of_right = margins(logits, targets)
    assert (loss[of_right < lowest - 1e-4] > 0).all()
    assert found.loss_is_zero[of_right > highest + 1e-4].all()


def test_a_sum_that_collapsed_on_a_wrong_answer_has_a_loss() -> None:
    found = collapse.collapsed(torch.tensor([[30.0, 0.0], [30.0, 0.0]]), torch.tensor([0, 1]), torch.float32)
    assert found.sum_is_one.tolist() == [True, True]
    assert found.loss_is_zero.tolist() == [True, False]


def test_equal_largest_logits_have_not_collapsed() -> None:
    found = collapse.collapsed(torch.tensor([[90.0, 90.0, 0.0]]), torch.tensor([0]), torch.bfloat16)
    assert not found.sum_is_one


def test_the_gradient_of_two_linear_layers_is_that_worked_out_by_hand() -> None:
    subject = network(MLPConfig(**ONE_HOT, d_hidden=(5,), act_fn="identity"))
    examples = TASK.train_set()
    X = F.one_hot(examples.inputs, 7).flatten(1).double()
    W, U = subject.params["layers.0.W_in"], subject.params["unembed.W_U"]
    wrong = ((X @ W @ U).softmax(1) - F.one_hot(examples.targets, 7)) / len(X)
    found = collapse.descent(subject)
    torch.testing.assert_close(found.logits, X @ W @ U)
    torch.testing.assert_close(found.direction["unembed.W_U"], -(X @ W).T @ wrong)
    torch.testing.assert_close(found.direction["layers.0.W_in"], -X.T @ wrong @ U.T)


def test_along_the_weights_of_a_homogeneous_network_the_loss_changes_as_euler_says() -> None:
    # f(cw) = c^3 f(w): ∇L·w = 3 mean_i Σ_c (p − y)_ic f_ic, a third of it in each layer
    subject, targets = network(MLPConfig(**ONE_HOT, d_hidden=(9, 6)), gain=3.0), TASK.train_set().targets
    found, result = collapse.descent(subject), collapse.analyze(subject)
    wrong = found.logits.softmax(1) - F.one_hot(targets, 7)
    per_layer = -float((wrong * found.logits).sum(1).mean())
    for name, w in subject.params.items():
        expected = per_layer / float(found.direction[name].norm() * w.norm())
        assert result.tensors[name].cosine == pytest.approx(expected)
    lengths = [
        math.sqrt(sum(float(v.square().sum()) for v in tensors.values()))
        for tensors in (found.direction, subject.params)
    ]
    assert result.cosine == pytest.approx(3 * per_layer / math.prod(lengths))


def test_the_direction_stays_right_where_float64_has_collapsed() -> None:
    config, params = lookup_table(TASK)
    subject = Subject.of(config, {**params, "unembed.W_U": 10 * params["unembed.W_U"]}, TASK)
    result, found = collapse.analyze(subject), collapse.descent(subject)
    assert result.collapse_fraction == result.zero_loss_fraction == 1.0
    assert result.precisions["float64"].collapse_fraction == 1.0
    assert result.median_margin == pytest.approx(200)
    assert result.control_zero_loss_fraction < 0.3 < result.control_collapse_fraction  # as loud, on wrong answers
    of_logits = found.direction["unembed.W_U"]
    assert of_logits.norm() > 0
    assert of_logits.sum(1).norm() < 1e-6 * of_logits.norm()  # a softmax does not mind a shift of all logits


def test_a_random_direction_has_the_root_mean_square_cosine_that_stands_beside() -> None:
    w = torch.randn(50, generator=torch.Generator().manual_seed(1))
    drawn = torch.randn(1000, 50, generator=torch.Generator().manual_seed(2))
    squares = [collapse.cosine(direction, w) ** 2 for direction in drawn]
    assert math.sqrt(sum(squares) / 1000) == pytest.approx(1 / math.sqrt(50), rel=0.1)
    assert math.isnan(collapse.cosine(torch.zeros(3), torch.ones(3)))


def test_weights_at_random_have_not_collapsed_and_do_not_descend_along_themselves() -> None:
    result = collapse.analyze(network(MLPConfig(**ONE_HOT, d_hidden=(30,))).randomized(3))
    assert result.collapse_fraction == result.precisions["bfloat16"].collapse_fraction == 0.0
    assert abs(result.cosine) < 0.3
    assert set(result.tensors) == {"layers.0.W_in", "unembed.W_U"}


def test_the_shipped_tiny_model_descends_along_its_weights_and_has_collapsed_in_part() -> None:
    found = collapse.analyze(Subject.load(TINY))
    assert found.cosine == pytest.approx(0.9337, abs=1e-3)
    assert found.collapse_fraction == pytest.approx(0.708, abs=5e-3)
    assert found.control_collapse_fraction == 0.0
    assert abs(found.control_cosine) < 0.2
    assert found.precisions["bfloat16"].collapse_fraction == 1.0
    assert found.precisions["float64"].collapse_fraction == 0.0
    assert all(at.cosine > 0.3 > abs(at.control_cosine) for at in found.tensors.values())
    json.dumps(found.to_dict(), allow_nan=False)


def test_models_of_finite_groups_are_measured_too() -> None:
    task = GroupComposition(group="S_3", train_fraction=0.8)
    config = MLPConfig(n_ctx=task.n_ctx, d_vocab=task.d_vocab, d_vocab_out=6, d_hidden=(8,), input="one_hot")
    assert collapse.analyze(network(config, task)).n_logits == 6


def test_what_has_no_softmax_is_refused() -> None:
    sine, parity = SineRegression(), SparseParity(n_bits=6, k=2, n_train=20)
    with pytest.raises(UserError, match="predicts numbers"):
        collapse.analyze(network(MLPConfig(n_ctx=5, d_vocab_out=1, d_hidden=(4,), input="vector"), sine))
    with pytest.raises(UserError, match="one logit per answer"):
        collapse.analyze(network(MLPConfig(n_ctx=6, d_vocab=2, d_vocab_out=2, d_hidden=(4,), one_logit=True), parity))


def test_the_figures_show_every_cosine_and_every_margin() -> None:
    found = collapse.analyze(Subject.load(TINY))
    made = collapse.figures(found)
    assert list(made) == ["cosines", "margins"]
    assert list(made["cosines"].data[0].x) == ["all weights", *found.tensors]
    assert list(made["cosines"].data[0].y) == [found.cosine, *(at.cosine for at in found.tensors.values())]
    for trace in made["margins"].data:
        assert sum(trace.y) == found.n_train
    bands = [(band.x0, band.x1) for band in made["margins"].layout.shapes]
    assert bands == [collapse.collapse_margins(precision, 23) for precision in collapse.PRECISIONS.values()]
