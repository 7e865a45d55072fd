"""Tables in which it is known what tells the future: one measure, none, or the cell alone."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from interp.sweeps import foresight
from interp.sweeps.foresight import ALL, BASE, CELL, LOSS, RULE, WEIGHTS
from tasks.base import UserError

N_CELLS, N_SEEDS, STEP, END = 40, 4, 1_000, 20_000


def made(told_by, seed=0, steps=(STEP, END)):
    """Runs of 40 cells. ``told_by(cell, rng)`` gives the log-odds of generalising and the measure of the weights."""
    rng = np.random.default_rng(seed)
    rows = []
    for cell in range(N_CELLS):
        for run in range(N_SEEDS):
            odds, measure = told_by(cell, rng)
            later = rng.random() < 1 / (1 + math.exp(-odds))
            left = 10 ** (1.5 + measure / 3)
            for step in steps:
                rows.append(
                    {
                        "path": f"cells/{cell}-{run}",
                        "seed": run,
                        "step": step,
                        "training.weight_decay": 0.01 * 10 ** (cell / N_CELLS),
                        "generalised": STEP + left if later else math.inf,
                        "train_accuracy": 1.0,
                        "train.log_loss": rng.normal(),
                        "weights.measure": measure,
                        "rule.noise": rng.normal(),
                    }
                )
    return pd.DataFrame(rows)


def decides(cell, rng):
    measure = rng.normal()
    return (50.0 if measure > 0 else -50.0), measure


def noise(cell, rng):
    return 0.0, rng.normal()


def proxy(cell, rng):
    """A measure that is a function of the cell, and so is the chance."""
    return 8 * (cell / N_CELLS - 0.5), cell / N_CELLS


def at_step(frame, **more):
    return foresight.analyze(frame, **({"models": ("linear",), "n_permutations": 0, "steps": [STEP]} | more)).at(STEP)


@pytest.fixture(scope="module")
def decided():
    return at_step(made(decides), n_permutations=10)


def gain(moment, of, over):
    return next(found for found in moment.gains if (found.of, found.over) == (of, over))


@pytest.mark.slow
def test_a_measure_that_decides_is_right_on_almost_every_pair_and_the_rest_is_not(decided):
    assert decided.score(WEIGHTS, "linear").auc.value > 0.99
    assert decided.score(WEIGHTS, "linear").auc_within.value > 0.99
    assert decided.score(WEIGHTS, "linear").balanced_accuracy.value > 0.9
    assert decided.score(WEIGHTS, "linear").brier.value < 0.05 < 0.2 < decided.brier_of_share
    assert decided.score(LOSS, "linear").auc.low < 0.5 < decided.score(LOSS, "linear").auc.high
    assert gain(decided, WEIGHTS, LOSS).auc.low > 0.2
    assert gain(decided, ALL, BASE).auc_within.low > 0.2


@pytest.mark.slow
def test_permuted_labels_are_told_by_chance_and_never_as_well_as_the_true_ones(decided):
    everywhere, within = decided.permuted
    assert (everywhere.within, within.within) == (False, True)
    assert everywhere.auc == pytest.approx(0.5, abs=0.05)
    assert within.auc == pytest.approx(0.5, abs=0.08)
    assert everywhere.p_value == within.p_value_within == 1 / 11


@pytest.mark.slow
def test_permuting_a_feature_costs_as_much_as_it_tells(decided):
    lost = decided.importances["linear"]
    assert lost["weights.measure"].value == pytest.approx(0.5, abs=0.06)
    assert all(abs(lost[name].value) < 0.02 for name in lost if name != "weights.measure")


@pytest.mark.slow
def test_noise_tells_nothing():
    found = [at_step(made(noise, seed)) for seed in range(4)]
    for features in (WEIGHTS, RULE, ALL):
        scores = [moment.score(features, "linear") for moment in found]
        assert np.mean([score.auc.value for score in scores]) == pytest.approx(0.5, abs=0.07)
        assert all(score.auc.low < 0.5 for score in scores)
        assert all(score.brier.value > moment.brier_of_share for score, moment in zip(scores, found, strict=True))


@pytest.mark.slow
def test_a_measure_that_only_says_which_cell_it_is_adds_nothing_to_the_hyper_parameters():
    found = at_step(made(proxy, 1), n_permutations=20)
    assert found.score(WEIGHTS, "linear").auc.low > 0.75
    assert gain(found, WEIGHTS, LOSS).auc.low > 0.15
    assert abs(gain(found, WEIGHTS, CELL).auc.value) < 0.02
    assert abs(gain(found, ALL, BASE).auc.value) < 0.02
    assert found.score(WEIGHTS, "linear").auc_within.value == 0.5
    within = next(permuted for permuted in found.permuted if permuted.within)
    assert within.auc == pytest.approx(found.score(ALL, "linear").auc.value, abs=0.05)  # the cell is left
    assert within.p_value_within > 0.05


@pytest.mark.slow
def test_boosted_trees_find_a_band_that_a_line_cannot():
    def band(cell, rng):
        measure = rng.normal()
        return (50.0 if abs(measure) < 0.6 else -50.0), measure

    found = at_step(made(band), models=("linear", "boosting"))
    assert found.score(WEIGHTS, "linear").auc.value < 0.65
    assert found.score(WEIGHTS, "boosting").auc.low > 0.9
    assert {timing.model for timing in found.timings} == {"linear", "boosting"}


@pytest.mark.slow
def test_the_number_of_steps_left_is_told_by_the_measure_that_sets_it_and_by_no_other(decided):
    timings = {timing.features: timing for timing in decided.timings}
    assert timings[WEIGHTS].r2.value > 0.99
    assert timings[WEIGHTS].factor.value == pytest.approx(1, abs=0.05)
    assert timings[WEIGHTS].predicted_steps_left == pytest.approx(timings[WEIGHTS].steps_left, rel=0.2)
    assert timings[LOSS].r2.value < 0.05
    assert timings[LOSS].factor.low > 1.1


@pytest.mark.slow
def test_runs_that_have_generalised_and_those_without_a_snapshot_are_left_out_and_counted():
    frame = made(noise)
    paths = sorted(set(frame["path"]))
    frame.loc[frame["path"].isin(paths[:7]), "generalised"] = STEP
    frame = frame[~((frame["path"] == paths[7]) & (frame["step"] == STEP))]
    frame.loc[frame["path"].isin(paths[8:11]), "train_accuracy"] = 0.7
    found = at_step(frame)
    assert (found.n_runs, found.n_generalised, found.n_missing, found.n_unfitted) == (152, 7, 1, 0)
    assert found.n_runs == found.n_later + int(np.isinf(frame[frame["step"] == STEP]["generalised"]).sum())
    memorised = at_step(frame, among="memorised")
    assert (memorised.n_runs, memorised.n_unfitted) == (149, 3)
    assert foresight.analyze(frame, models=("linear",), n_permutations=0).memorised_by == STEP


@pytest.mark.slow
def test_numbers_of_the_test_set_change_nothing():
    frame = made(decides)
    rng = np.random.default_rng(5)
    more = {name: rng.random(len(frame)) for name in ("test_loss", "test_accuracy", "max_test_accuracy", "last_step")}
    one, two = (json.dumps(at_step(f).to_dict(arrays=True)) for f in (frame, frame.assign(**more)))
    assert one == two


@pytest.mark.slow
def test_only_the_order_of_events_at_the_step_is_a_label():
    frame = made(decides)
    later = frame.assign(generalised=frame["generalised"] * 3)  # as many generalise, all after the step
    one, two = at_step(frame), at_step(later)
    assert [score.to_dict() for score in one.scores] == [score.to_dict() for score in two.scores]


def test_a_step_at_which_too_few_go_either_way_is_not_scored():
    frame = made(noise)
    frame["generalised"] = math.inf
    found = at_step(frame)
    assert (found.scores, found.timings, found.n_later) == ((), (), 0)
    with pytest.raises(UserError, match="a step that was scored"):
        foresight.figures(foresight.analyze(frame, models=("linear",), n_permutations=0))


def test_a_measure_without_a_value_in_some_runs_is_no_obstacle():
    frame = made(decides)
    frame["weights.gini"] = np.where(np.arange(len(frame)) % 9 == 0, np.nan, 0.3)
    assert at_step(frame).score(WEIGHTS, "linear").auc.value > 0.99


def test_the_sets_say_which_measures_know_the_rule():
    sets = foresight.analyze(made(noise), models=("linear",), n_permutations=0).feature_sets
    assert sets[WEIGHTS] == ("weights.measure",)
    assert sets[RULE] == ("weights.measure", "rule.noise")
    assert sets[CELL] == ("training.weight_decay",)
    assert not any("rule" in name for of, names in sets.items() if "rule" not in of for name in names)


def test_a_set_that_lacks_what_its_name_says_is_left_out():
    def sets(frame):
        return set(foresight.analyze(frame, steps=[STEP], models=("linear",), n_permutations=0).feature_sets)

    table = made(noise)
    assert sets(table.drop(columns=[name for name in table if name.startswith("rule.")])) == {
        LOSS, CELL, WEIGHTS, BASE, ALL
    }  # fmt: skip
    assert sets(table.assign(**{"training.weight_decay": 0.1})) == {LOSS, WEIGHTS, RULE}


@pytest.mark.slow
def test_figures_draw_the_scores_the_chosen_step_and_what_it_rests_on():
    result = foresight.analyze(made(decides), models=("linear",), n_permutations=2)
    made_of = foresight.figures(result)
    assert set(made_of) == {"auc, linear", "auc within cells, linear", "importances, linear", "steps left, linear"}
    drawn = {trace.name: trace for trace in made_of["auc, linear"].data}
    score = result.at(STEP).score(WEIGHTS, "linear").auc
    assert drawn[WEIGHTS].y == (score.value,)
    assert drawn[WEIGHTS].error_y.array[0] == pytest.approx(score.ends[1] - score.value)
    assert made_of["importances, linear"].data[0].x[0] == "weights.measure"
    points = made_of["steps left, linear"].data[0]
    assert len(points.x) == result.at(STEP).n_later


def test_a_mistake_is_named():
    frame = made(noise)
    with pytest.raises(UserError, match="generalised is missing"):
        foresight.analyze(frame.drop(columns="generalised"))
    with pytest.raises(UserError, match="70 has none"):
        foresight.analyze(frame, steps=[70])
    with pytest.raises(UserError, match="two of one step"):
        foresight.analyze(pd.concat([frame, frame]))
    with pytest.raises(UserError, match="got all, "):
        foresight.analyze(frame, models=())
