"""Two ensembles compared: numbers worked out by hand, and models whose difference is known."""

import math

import pytest
import torch
from scipy.stats import ttest_ind

from interp import Ensemble, Subject
from interp.statistics import difference, student
from interp.sweeps import contrast
from interp.weights import rank
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.models.config import TransformerConfig
from tasks.models.initialization import Initialization, initialize
from tasks.models.transformer import shapes

TASK = AnchorComposition(key_low=20, key_high=39, sequence_length=5, d_vocab=64, split_modulus=7)
CONFIG = TransformerConfig(n_layers=1, d_model=16, n_heads=1, d_head=16, d_mlp=32, d_vocab=64, n_ctx=5)
NUMBERS = ("condensation.mean_absolute_cosine", "rank.mean_relative_stable_rank")


def one_direction(seed: int) -> Subject:
    """A model whose maps have rank one: every neuron reads the same direction."""
    params = initialize(shapes(CONFIG), CONFIG, Initialization(), seed)
    low = {
        name: value[..., :1] * torch.ones_like(value) if value.ndim >= 2 else value for name, value in params.items()
    }
    return Subject.of(CONFIG, low, TASK)


def random(seed: int) -> Subject:
    return Subject.of(CONFIG, initialize(shapes(CONFIG), CONFIG, Initialization(), seed), TASK)


def test_students_interval_is_that_of_the_tables() -> None:
    found = student(torch.tensor([1.0, 2.0, 3.0]))  # t = 4.303 with two degrees of freedom, s/√n = 1/√3
    assert (found.value, found.method) == (2.0, "student")
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3))


def test_welchs_interval_is_scipys() -> None:
    first, second = [4.0, 6.0], [1.0, 2.0, 3.0]
    found = difference(torch.tensor(first), torch.tensor(second))
    expected = ttest_ind(first, second, equal_var=False).confidence_interval()
    assert found.value == 3.0
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_run_or_no_spread_has_no_interval() -> None:
    assert student(torch.tensor([2.0])).method == "none"
    assert student(torch.tensor([2.0, 2.0])).method == "none"
    assert math.isnan(difference(torch.tensor([1.0]), torch.tensor([1.0, 2.0])).low)


def test_collapsed_models_are_told_from_random_ones_and_random_ones_not_from_each_other() -> None:
    collapsed = Ensemble([one_direction(seed) for seed in range(3)])
    others, more = (Ensemble([random(seed) for seed in seeds]) for seeds in (range(3), range(3, 6)))
    found = contrast.analyze(collapsed, others, numbers=NUMBERS).numbers
    assert found[NUMBERS[0]].first == pytest.approx([1.0] * 3)
    assert found[NUMBERS[0]].apart
    assert found[NUMBERS[0]].difference.value > 0.5
    assert found[NUMBERS[1]].apart
    assert found[NUMBERS[1]].difference.value < -0.5
    same = contrast.analyze(others, more, numbers=NUMBERS).numbers
    assert not any(number.apart for number in same.values())


def test_swapping_the_sides_turns_the_difference_round() -> None:
    a, b = Ensemble([one_direction(0), one_direction(1)]), Ensemble([random(0), random(1)])
    there, back = (contrast.analyze(*sides, numbers=NUMBERS[1:]).numbers[NUMBERS[1]] for sides in ((a, b), (b, a)))
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert there.difference.low == pytest.approx(-back.difference.high)


@pytest.mark.parametrize("name", ["rank", "rank.matrices", "nowhere.number", "rank.stable"])
def test_a_name_that_leads_to_no_number_is_refused(name) -> None:
    ensemble = Ensemble([random(0)])
    with pytest.raises(UserError, match="expected"):
        contrast.analyze(ensemble, ensemble, numbers=[name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("phases.x", "phases takes a table"),
        ("grokking.p", "grokking takes a trajectory"),
        ("subject.step", "expected a number such as rank.mean_relative_stable_rank, got 'subject.step'"),
        ("nowhere.number", "expected a number such as rank.mean_relative_stable_rank, got 'nowhere.number'"),
    ],
)
def test_what_is_no_analysis_of_a_subject_is_refused_for_what_it_is(name, message) -> None:
    with pytest.raises(UserError, match=message):
        contrast.analyze(Ensemble([random(0)]), Ensemble([random(1)]), numbers=[name])


def test_an_error_inside_an_analysis_is_not_taken_for_a_wrong_name(monkeypatch) -> None:
    monkeypatch.setattr(rank, "analyze", lambda subject: subject.nonsense)
    with pytest.raises(AttributeError, match="nonsense"):
        contrast.analyze(Ensemble([random(0)]), Ensemble([random(1)]), numbers=["rank.mean_relative_stable_rank"])


def test_the_figure_shows_every_run_and_the_means() -> None:
    a, b = Ensemble([one_direction(0), one_direction(1)]), Ensemble([random(0), random(1)])
    result = contrast.analyze(a, b, names=("small", "large"), numbers=NUMBERS)
    figure = contrast.figures(result)[NUMBERS[1]]
    assert [list(trace.y) for trace in figure.data[::2]] == [
        list(result.numbers[NUMBERS[1]].first),
        list(result.numbers[NUMBERS[1]].second),
    ]
    assert figure.data[3].error_y.array[0] == pytest.approx(
        result.numbers[NUMBERS[1]].second_mean.high - result.numbers[NUMBERS[1]].second_mean.value
    )
