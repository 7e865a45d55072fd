"""Areas under the curve counted by hand and by scikit-learn, over folds and groups, and their intervals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from interp.statistics import resamples
from interp.sweeps.grouped_scores import auc, fitted, folds, median, pairs, predicted, summed

SCORE = np.array([0.9, 0.4, 0.6, 0.1])
HITS = np.array([True, True, False, False])


def test_an_area_counts_pairs_and_half_of_those_that_tie():
    groups = np.array([0, 1, 0, 1])
    assert auc(SCORE, HITS, groups).value == 3 / 4  # 0.4 < 0.6 alone is wrong
    assert auc(np.array([0.9, 0.6, 0.6, 0.1]), HITS, groups).value == 3.5 / 4
    assert auc(SCORE, HITS, groups, within=True).value == 1  # in group 0: 0.9 > 0.6, in group 1: 0.4 > 0.1


def test_pairs_ranked_by_two_models_are_not_compared():
    groups, fold = np.array([0, 1, 0, 1]), np.array([0, 1, 0, 1])
    found = pairs(SCORE, HITS, groups, fold)
    assert found.number.tolist() == [[1, 0], [0, 1]]
    assert auc(SCORE, HITS, groups, fold).value == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_without_folds_the_area_is_scikit_learns_and_any_rising_function_of_the_score_keeps_it(seed):
    rng = np.random.default_rng(seed)
    score, groups = rng.integers(0, 8, 40) / 8, rng.integers(0, 6, 40)
    hits = rng.random(40) < 0.4
    hits[:2] = True, False
    groups = np.unique(groups, return_inverse=True)[1]
    assert auc(score, hits, groups).value == pytest.approx(roc_auc_score(hits, score))
    assert auc(np.exp(3 * score), hits, groups) == auc(score, hits, groups)
    assert auc(1 - score, hits, groups).value == pytest.approx(1 - auc(score, hits, groups).value)


def test_what_is_the_same_for_a_whole_group_gives_a_half_within_groups_and_has_no_interval():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 8)
    hits = rng.random(80) < groups / 10
    found = auc(groups / 10, hits, groups, within=True)
    assert found.value == 0.5
    assert found.method == "none"
    assert auc(groups / 10, hits, groups).low > 0.6


def test_a_fold_takes_whole_groups_and_hits_in_each():
    groups = np.repeat(np.arange(20), 3)
    hits = groups % 2 == 0
    fold = folds(groups, hits)
    assert all(len(set(fold[groups == group])) == 1 for group in range(20))
    assert sorted(set(fold)) == [0, 1, 2, 3, 4]
    assert all(0 < hits[fold == number].mean() < 1 for number in range(5))


def test_a_prediction_comes_from_a_model_that_saw_no_run_of_the_group():
    groups = np.arange(30)
    fold = folds(groups, groups % 2 == 0)
    X = np.eye(30)  # each run has a feature of its own: nothing can be learnt of one that was held out
    y = groups % 3 == 0
    models = fitted(LogisticRegression, X, y, fold)
    found = predicted(models, X, fold)
    for number in range(5):
        assert np.ptp(found[fold == number]) == 0
        assert models[number].n_features_in_ == 30


def test_a_constant_prediction_is_below_a_half_across_folds_and_a_half_where_only_pairs_of_one_fold_count():
    groups = np.arange(40)
    hits = groups < 20
    fold = np.where(np.arange(40) % 20 < 5, 0, 1)
    hits[fold == 0], hits[0] = True, False  # folds that differ in their share of hits
    told = predicted(fitted(DummyClassifier, np.zeros((40, 1)), hits, fold), np.zeros((40, 1)), fold)
    assert auc(told, hits, groups).value < 0.5
    assert auc(told, hits, groups, fold).value == 0.5


def test_where_all_other_runs_have_one_label_that_label_is_predicted():
    fold = np.array([0, 0, 1, 1])
    y = np.array([True, False, True, True])
    found = predicted(fitted(LogisticRegression, np.zeros((4, 1)), y, fold), np.zeros((4, 1)), fold)
    assert found[:2].tolist() == [1, 1]


def test_a_ratio_of_sums_and_a_median_are_those_of_the_runs_and_wider_where_groups_agree_within():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), 5)
    drawn = resamples(12)
    values = rng.normal(size=60)
    found = summed(lambda n, total: total / n, drawn, groups, values)
    assert found.value == pytest.approx(values.mean())
    assert found.low < values.mean() < found.high
    assert (found.n, found.n_units) == (60, 12)
    alike = summed(lambda n, total: total / n, drawn, groups, rng.normal(size=12)[groups])
    assert alike.high - alike.low > 1.5 * (found.high - found.low)
    middle = median(drawn, groups, values)
    assert middle.value == pytest.approx(np.sort(values)[29])
    assert middle.low < middle.value < middle.high


def test_one_group_has_no_interval():
    found = auc(SCORE, HITS, np.zeros(4, dtype=int))
    assert math.isnan(found.low)
    assert found.value == 0.75
