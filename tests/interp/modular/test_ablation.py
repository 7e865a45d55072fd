"""Frequencies and neurons ablated in networks built by hand, where what must come of it is known."""

import math

import pytest
import torch

from interp.modular import ablation
from interp.modular.addition import addition_table
from interp.statistics import Interval
from interp.subject import Subject
from tasks.families.modular import ModularArithmetic
from tasks.models.constructed import clock, lookup_table, pizza
from tasks.training.objective import cross_entropy

KEYS = (3, 4, 11)
TASK = ModularArithmetic(p=31)


def test_a_part_goes_to_zero_to_its_mean_and_to_another_pairs_value():
    part = torch.tensor([[0.0, 4.0], [2.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    rest, targets = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(3, 2), torch.tensor([0, 0, 1])
    drawn = torch.tensor([[[0, 2], [1, 1]], [[0, 2], [0, 2]]])
    found = ablation.ablate(part, rest, targets, drawn)
    assert found.zero == pytest.approx((2 * math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 3)
    assert found.mean == pytest.approx((2 * math.log(1 + math.e**0) + math.log(1 + math.e**0)) / 3)
    moved = (math.log(1 + math.exp(-3)) + math.log(1 + math.exp(3))) / 2  # both have 3, 0 of pair 1
    own = (math.log(1 + math.exp(3)) + math.log(1 + math.exp(0))) / 2
    assert found.resampled.value == pytest.approx((moved + own) / 2)
    assert found.resampled.n_units == 2


def test_the_pairs_shown_in_a_draw_differ_and_get_values_of_others_in_another_order():
    drawn = ablation.couples(31**2, seed=0)
    assert drawn.shape == (ablation.N_DRAWS, 2, ablation.N_SHOWN)
    assert all(len(set(row.tolist())) == ablation.N_SHOWN for draw in drawn for row in draw)
    assert float((drawn[:, 0] == drawn[:, 1]).double().mean()) < 0.01
    assert ablation.couples(25, seed=0).shape == (ablation.N_DRAWS, 2, 25)
    assert not torch.equal(drawn, ablation.couples(31**2, seed=1))


@pytest.mark.parametrize("build", [clock, pizza])
def test_keys_of_other_pairs_give_other_pairs_answers_wherever_they_come_from(build):
    subject = Subject.of(*build(TASK, KEYS), TASK)
    table = addition_table(subject)
    found, full = ablation.ablations(subject, table, KEYS), float(cross_entropy(table.logits, table.targets).mean())
    ceiling = ablation.shuffled_labels(table)
    for place, at in found.items():
        assert at.resampled.low > math.log(31), place  # confident and wrong is worse than not knowing
        assert at.resampled.value == pytest.approx(ceiling.value, rel=0.3), place
        assert at.control_resampled.value == pytest.approx(full, rel=0.3), place
    # the whole embedding is these waves: what is resampled is the pair itself
    assert found["embedding"].resampled.value == pytest.approx(ceiling.value, rel=1e-5)


def test_a_part_of_the_keys_resampled_costs_more_the_more_there_are():
    subject = Subject.of(*clock(TASK, KEYS), TASK)
    table = addition_table(subject)
    one, two, three = (ablation.ablations(subject, table, KEYS[:n])["logits"] for n in (1, 2, 3))
    assert one.resampled.high < two.resampled.low < two.resampled.high < three.resampled.low
    assert one.without < one.resampled.low  # a wrong wave misleads, an absent one does not


def test_the_table_known_by_heart_loses_no_more_by_any_two_frequencies_than_by_two_others():
    task = ModularArithmetic(p=23, train_fraction=0.6)
    subject = Subject.of(*lookup_table(task), task)
    found = ablation.ablations(subject, addition_table(subject), (3, 7))
    for place in ("neurons", "logits"):
        at = found[place]
        assert at.resampled.value == pytest.approx(at.control_resampled.value, rel=0.05), place


def test_the_neurons_of_a_key_carry_it_and_as_many_others_do_not():
    subject = Subject.of(*pizza(TASK, KEYS, neurons_per_frequency=9), TASK)
    table = addition_table(subject)
    full = float(cross_entropy(table.logits, table.targets).mean())
    found = ablation.neuron_ablations(table, KEYS)
    assert list(found) == list(KEYS)
    for k, at in found.items():
        assert at.n_neurons == 9
        # of a pizza without skip connection a key's neurons write its waves and nothing else
        own = ablation.ablations(subject, table, (k,))["neurons"]
        assert at.mean > 10 * full
        assert at.resampled.value > at.mean
        assert own.without > 10 * full
        assert at.control_mean.low > full  # these belong to the two other keys
    without = ablation.without_neurons(table, torch.arange(27) < 9)
    assert found[3].mean == pytest.approx(float(cross_entropy(without, table.targets).mean()))


def test_a_key_without_neurons_of_its_own_loses_nothing():
    task = ModularArithmetic(p=23, train_fraction=0.6)
    subject = Subject.of(*lookup_table(task), task)
    table = addition_table(subject)
    (at,) = ablation.neuron_ablations(table, (3,)).values()
    full = float(cross_entropy(table.logits, table.targets).mean())
    assert at.n_neurons == 0
    assert (at.zero, at.mean) == pytest.approx((full, full))
    assert at.control_mean.value == pytest.approx(at.resampled.value)


def test_with_every_neuron_a_keys_own_there_are_no_random_ones():
    subject = Subject.of(*pizza(TASK, (3,), neurons_per_frequency=9), TASK)
    table = addition_table(subject)
    (at,) = ablation.neuron_ablations(table, (3,)).values()
    assert at.n_neurons == 9
    assert isinstance(at.control_mean, Interval)
    shown = ablation.couples(31**2, 0)[:, 0].flatten()
    assert at.control_mean.value == pytest.approx(float(cross_entropy(table.logits, table.targets)[shown].mean()))
