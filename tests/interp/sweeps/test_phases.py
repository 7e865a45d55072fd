"""Phase diagrams of tables whose answer is known, of learning curves made by hand, and of a grid trained here."""

import json
import math
import os
import types

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from interp import probe
from interp.subject import Subject
from interp.sweeps import boundary, cells, columns, phase_figures, phases
from interp.sweeps.cells import Axis
from interp.weights import condensation
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.models.config import TransformerConfig
from tasks.models.initialization import Initialization
from tasks.training import TrainingConfig, train

GAMMAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
DEPTHS = (2, 3, 4)
STEP_AT = {2: 0.45, 3: 0.55, 4: 0.65}


def row(seed, gamma, depth, **more):
    inferential = float(gamma > STEP_AT[depth])
    return {
        "path": f"cells/{seed}-{gamma}-{depth}-{more.get('training.learning_rate', 0)}",
        "seed": seed,
        "init.gamma": gamma,
        "model.n_layers": depth,
        "train_accuracy": 1.0,
        "test_accuracy": 0.2 if gamma == 0.3 else 1.0,
        "held_out_inferential": inferential,
        "held_out_symmetric": 1 - inferential,
        "max_held_out_inferential": 1.0,
        "error": None,
    } | more


def steps(seeds=(0, 1, 2)):
    return pd.DataFrame([row(s, g, d) for s in seeds for d in DEPTHS for g in GAMMAS])


def scattered(seed=0, n_seeds=4):
    """A gradual transition whose place differs from seed to seed, cells missing here and there."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 0.12, n_seeds)
    rows = []
    for s in range(n_seeds):
        for d in DEPTHS:
            for g in GAMMAS:
                share = 1 / (1 + math.exp(-30 * (g - STEP_AT[d] - shift[s])))
                rows.append(row(s, g, d, held_out_inferential=share, held_out_symmetric=1 - share))
    return pd.DataFrame(rows).drop(index=[3, 20, 41]).reset_index(drop=True)


def diagram(table, **more):
    return phases.analyze(table, x="init.gamma", y="model.n_layers", **more)


def numbers(result):
    """All that was found, without the folders' names."""
    found = result.to_dict()
    for point in found["points"]:
        del point["paths"]
    return json.dumps(found)


AXIS = Axis(name="init.gamma", values=GAMMAS, scale="linear")


def test_the_boundary_of_a_step_lies_midway_between_the_grid_values_around_it_and_the_interval_holds_both():
    found = diagram(steps()).boundary
    assert found.direction == "rises"
    assert [crossing.y for crossing in found.crossings] == list(DEPTHS)
    for crossing in found.crossings:
        assert crossing.where == "crosses"
        assert crossing.location.value == pytest.approx(STEP_AT[crossing.y], abs=0.005)
        assert crossing.location.low == pytest.approx(STEP_AT[crossing.y] - 0.05)
        assert crossing.location.high == pytest.approx(STEP_AT[crossing.y] + 0.05)
    assert found.agreement == 1
    assert found.control_agreement < 0.8


def test_a_share_that_falls_has_the_same_boundary_in_the_other_direction():
    found = diagram(steps(), boundary_of="held_out_symmetric").boundary
    assert found.direction == "falls"
    assert found.crossings[1].location.value == pytest.approx(0.55, abs=0.005)


def test_seeds_that_disagree_put_the_boundary_between_theirs_and_the_interval_around_all():
    values = np.array([[[float(g > at) for g in GAMMAS]] for at in (0.35, 0.55, 0.75)])
    found = boundary.boundary(values, AXIS).crossings[0].location
    assert found.value == pytest.approx(0.55, abs=0.01)
    assert (found.low, found.high) == pytest.approx((0.35, 0.75), abs=0.02)
    assert (found.n, found.n_units, found.method) == (18, 3, "bootstrap")


def test_a_row_on_one_side_of_a_half_has_no_crossing_and_its_interval_ends_where_the_axis_does():
    values = np.array([[[0.0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]]] * 2)
    below, crosses, above = boundary.boundary(values, AXIS, Axis(name="d", values=DEPTHS, scale="linear")).crossings
    assert (below.where, crosses.where, above.where) == ("below", "crosses", "above")
    assert math.isnan(below.location.value)
    assert (below.location.low, below.location.high) == (0.8, 0.8)
    assert (above.location.low, above.location.high) == (0.3, 0.3)


def test_a_share_that_is_the_same_everywhere_is_flat_and_its_boundary_may_be_anywhere():
    found = boundary.boundary(np.full((2, 1, 6), 0.2), AXIS)
    assert found.direction == "flat"
    assert found.crossings[0].where == "below"
    assert (found.crossings[0].location.low, found.crossings[0].location.high) == (0.3, 0.8)


def test_one_seed_has_the_grid_for_an_interval_and_says_that_nothing_was_resampled():
    result = diagram(steps(seeds=(7,)))
    location = result.boundary.crossings[0].location
    assert location.method == "none"
    assert (location.low, location.high) == pytest.approx((0.4, 0.5))
    assert result.at(0.8, 2).values["held_out_inferential"].low == pytest.approx(0.2065, abs=1e-3)  # Wilson, n = 1
    assert result.n_seeds == 1


def test_missing_and_failed_cells_are_left_out_and_counted():
    table = steps()
    table.loc[(table["seed"] == 1) & (table["model.n_layers"] == 3), ["error", "held_out_inferential"]] = [
        "diverged",
        0.9,
    ]
    gone = (table["init.gamma"] == 0.5) & (table["model.n_layers"] == 2)
    result = diagram(table[~gone])
    point, empty = result.at(0.3, 3), result.at(0.5, 2)
    assert (point.n_seeds, point.n_runs, point.n_failed, point.values["held_out_inferential"].value) == (2, 2, 1, 0)
    assert point.paths["held_out_inferential"] == ("cells/0-0.3-3-0", "cells/2-0.3-3-0")
    assert (empty.n_seeds, empty.n_runs, empty.label, empty.paths["held_out_inferential"]) == (0, 0, None, ())
    assert math.isnan(result.grid("held_out_inferential")[0, 2])
    assert np.isnan(result.grid("held_out_inferential")).sum() == 1
    assert (result.n_runs, result.n_failed) == (45, 6)
    assert result.boundary.crossings[1].location.value == pytest.approx(0.55, abs=0.005)


def test_a_table_in_which_everything_failed_is_refused():
    with pytest.raises(UserError, match="every row of the table has an error"):
        diagram(steps().assign(error="out of memory"))


def test_neither_the_order_of_rows_nor_the_names_of_seeds_change_a_number():
    table = scattered()
    shuffled = table.sample(frac=1, random_state=1)
    renamed = table.assign(seed=table["seed"].map({0: 12, 1: 3, 2: 99, 3: 0}))
    assert numbers(diagram(shuffled)) == numbers(diagram(table))
    assert numbers(diagram(renamed)) == numbers(diagram(table))


def test_an_interval_over_three_seeds_is_their_range():
    table = pd.DataFrame([row(s, 0.5, 2, held_out_inferential=v) for s, v in enumerate((0.2, 0.7, 0.9))])
    found = phases.analyze(table, x="init.gamma").points[0].values["held_out_inferential"]
    assert found.value == pytest.approx(0.6)
    assert (found.low, found.high) == pytest.approx((0.2, 0.9))


def test_the_best_is_taken_per_value_before_the_mean_over_seeds_and_names_its_run():
    rates = {1e-4: (0.9, 0.1), 2e-4: (0.2, 0.7), 3e-4: (0.4, 0.6)}
    table = pd.DataFrame(
        [
            row(
                seed,
                g,
                2,
                **{"training.learning_rate": rate},
                held_out_inferential=inf - 0.1 * seed,
                held_out_symmetric=sym,
            )
            for seed in (0, 1)
            for g in (0.5, 0.6)
            for rate, (inf, sym) in rates.items()
        ]
    )
    point = diagram(table, over=["training.learning_rate"]).at(0.5, 2)
    assert point.values["held_out_inferential"].value == pytest.approx(0.85)
    assert point.values["held_out_symmetric"].value == pytest.approx(0.7)
    assert point.paths["held_out_symmetric"] == ("cells/0-0.5-2-0.0002", "cells/1-0.5-2-0.0002")
    assert (point.n_seeds, point.n_runs) == (2, 6)
    table.loc[table["training.learning_rate"] == 3e-4, "held_out_symmetric"] = math.nan
    point = diagram(table, over=["training.learning_rate"]).at(0.5, 2)
    assert point.paths["held_out_symmetric"] == ("cells/0-0.5-2-0.0002", "cells/1-0.5-2-0.0002")
    table.loc[table["training.learning_rate"] == 1e-4, "error"] = "diverged"
    assert diagram(table, over=["training.learning_rate"]).at(0.5, 2).values[
        "held_out_inferential"
    ].value == pytest.approx(0.35)


def test_an_axis_that_varies_unnamed_is_refused_and_one_that_walks_along_is_not():
    table = steps()
    together = table.assign(**{"training.warmup_steps": table["model.n_layers"] * 100})
    assert diagram(together).n_runs == len(table)
    apart = pd.concat([table.assign(**{"training.weight_decay": decay}) for decay in (0.0, 1.0)])
    with pytest.raises(UserError, match=r"training\.weight_decay varies too"):
        diagram(apart)
    with pytest.raises(UserError, match="share theirs"):
        diagram(pd.concat([table, table]))


def test_final_and_largest_over_training_stand_side_by_side():
    point = diagram(steps()).at(0.3, 2)
    assert (point.values["held_out_inferential"].value, point.maxima["held_out_inferential"].value) == (0, 1)
    assert "held_out_symmetric" not in point.maxima  # the table has no largest value of it


@pytest.mark.parametrize(
    ("values", "scale", "coordinates"),
    [
        ((1e-4, 1e-3, 1e-2), "log", [-4, -3, -2]),
        ((0, 0.01, 0.1, 1), "log", [-3, -2, -1, 0]),
        ((1e-4, 2e-4, 3e-4), "linear", [1e-4, 2e-4, 3e-4]),
        ((2, 3, 4, 5, 6), "linear", [2, 3, 4, 5, 6]),
        ((1, 2, 4, 8, 16), "log", np.log10([1, 2, 4, 8, 16])),
        (("add", "subtract"), "category", [0, 1]),
    ],
)
def test_an_axis_is_logarithmic_where_its_values_lie_evenly_so(values, scale, coordinates):
    found = cells.axis(pd.DataFrame({"init.x": [*values[::-1], values[0]]}), "init.x")
    assert (found.values, found.scale) == (values, scale)
    np.testing.assert_allclose(found.coordinates, coordinates)
    if scale != "category":
        assert [found.position(v) for v in values] == pytest.approx(range(len(values)))
        assert [found.value_at(c) for c in found.coordinates] == pytest.approx(values)


def test_on_a_logarithmic_axis_the_boundary_lies_in_the_geometric_middle():
    decays = (0.0, 0.01, 0.1, 1.0)
    table = pd.DataFrame(
        [
            row(s, 0.5, 2, **{"training.weight_decay": d}, held_out_inferential=float(d > 0.05))
            for s in (0, 1)
            for d in decays
        ]
    )
    found = phases.analyze(table, x="training.weight_decay").boundary.crossings[0].location
    assert found.value == pytest.approx(math.sqrt(0.01 * 0.1), rel=0.03)
    assert (found.low, found.high) == pytest.approx((0.01, 0.1))


@pytest.mark.parametrize(("passes_at", "ends"), [(0.001, (0.001, 0.01)), (0.05, (0.01, 0.1))])
def test_the_band_around_a_boundary_stands_where_the_points_do_on_an_axis_with_a_zero(passes_at, ends):
    decays = (0.0, 0.01, 0.1, 1.0)
    shares = {"training.weight_decay": decays, "held_out_inferential": [float(d > passes_at) for d in decays]}
    rows = [row(0, 0.5, 2, **dict(zip(shares, values, strict=True))) for values in zip(*shares.values(), strict=True)]
    result = phases.analyze(pd.DataFrame(rows), x="training.weight_decay")
    figure = phase_figures.curves(result, "held_out_inferential")
    assert list(figure.data[0].x) == pytest.approx([0.001, 0.01, 0.1, 1.0])
    band, line = figure.layout.shapes
    assert (band.x0, band.x1) == pytest.approx(ends)
    assert ends[0] < line.x0 < ends[1]


def test_no_band_is_drawn_where_nothing_passes_a_half():
    table = steps()[lambda rows: rows["model.n_layers"] == 2].assign(held_out_inferential=0.2)
    result = phases.analyze(table, x="init.gamma")
    assert result.boundary.crossings[0].where == "below"
    figure = phase_figures.curves(result, "held_out_inferential")
    assert not figure.layout.shapes
    assert "grey" not in figure.layout.title.subtitle.text


def test_one_axis_twice_and_an_order_parameter_of_words_are_refused():
    table = steps().assign(host="b")
    with pytest.raises(UserError, match=r"expected two axes, got init.gamma as x and as y"):
        phases.analyze(table, x="init.gamma", y="init.gamma", over=["model.n_layers"])
    with pytest.raises(UserError, match="expected columns of numbers as order parameters, 'host' holds words"):
        diagram(table, values=["host"])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_the_logistic_fit_is_where_its_gradient_vanishes_whatever_the_shares(seed, n):
    rng = np.random.default_rng(seed)
    design = np.stack([rng.normal(size=n), np.ones(n)], axis=1)
    shares = rng.choice([0.0, 1.0, 0.3], size=(3, n))
    weights = rng.integers(0, 9, size=(3, n)).astype(float)
    ridge = np.array([1e-3, 1e-6])
    found = boundary.logistic(design, shares, weights, ridge)
    gradient = (weights * (shares - 1 / (1 + np.exp(-found @ design.T)))) @ design - ridge * found
    np.testing.assert_allclose(gradient, 0, atol=1e-7)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_rank_correlation_has_the_sign_of_the_effect_and_an_interval_and_a_control(sign):
    rng = np.random.default_rng(0)
    rates, decays = np.meshgrid(np.arange(5), np.arange(4))
    values = sign * rates + 0.5 * decays + rng.normal(0, 0.5, size=(5, 4, 5))
    x = Axis(name="training.learning_rate", values=(1, 2, 3, 4, 5), scale="linear")
    found = boundary.trend(values, x, value="inferential")
    assert found.correlation.value == pytest.approx(np.mean([spearmanr(rates.ravel(), v.ravel())[0] for v in values]))
    assert sign * found.correlation.low > 0.5
    assert sign * found.correlation.high > 0.5
    assert found.p_value == 0.001
    y = Axis(name="training.weight_decay", values=(1, 2, 3, 4), scale="linear")
    assert boundary.trend(values, y, along="y").correlation.value > 0.1


def test_an_axis_without_effect_has_a_large_p_value_however_strong_the_other():
    rng = np.random.default_rng(1)
    values = 10 * np.arange(4.0)[:, None] + rng.normal(size=(3, 4, 5))
    x = Axis(name="a", values=(1, 2, 3, 4, 5), scale="linear")
    assert boundary.trend(values, x).p_value > 0.05
    assert boundary.trend(np.zeros((2, 1, 5)), x).correlation.value == 0
    assert boundary.trend(np.zeros((2, 1, 5)), x).p_value == 1


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_rank_correlations_are_scipys_with_ties_and_missing_cells_in_any_order(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4, size=(2, 3, 5)).astype(float)
    values[rng.random(values.shape) < 0.2] = np.nan
    orders = rng.random((4, 3, 5)).argsort(-1)
    found = boundary.rank_correlations(values, orders)
    for i, of_seed in enumerate(values):
        for j, order in enumerate(orders):
            moved = np.take_along_axis(of_seed, order, axis=1)
            there = np.isfinite(moved)
            at, seen = np.nonzero(there)[1], moved[there]
            expected = 0 if len(set(at)) < 2 or len(set(seen)) < 2 else spearmanr(at, seen)[0]
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


def curve(train_at, test_at, last=20_000, every=100):
    """A learning curve whose accuracies pass 0.9 at these steps."""
    return [
        {
            "step": step,
            "train_accuracy": 0.95 if step >= train_at else 0.1,
            "test_accuracy": 0.9 if step >= test_at else 0.89,
            "train_loss": 1e-6 if step >= train_at else 1.0,
            "test_loss": 1e-6 if step >= test_at else 2.0,
        }
        for step in range(0, last + 1, every)
    ]


@pytest.mark.parametrize(
    ("train_at", "test_at", "liu"),
    [
        (200, 1100, "comprehension"),
        (200, 1200, "grokking"),
        (200, 15_000, "grokking"),
        (200, math.inf, "memorisation"),
        (math.inf, math.inf, "confusion"),
        (1100, 200, "comprehension"),
        (math.inf, 200, "undetermined"),
    ],
)
def test_the_four_phases_of_liu_are_read_off_learning_curves(train_at, test_at, liu):
    found = phases.LIU.label(columns_of(curve(train_at, test_at)))
    assert found == liu


def columns_of(metrics):
    from interp.sweeps.regimes import transitions

    return transitions(metrics)


def test_not_reached_is_infinite_and_not_logged_has_no_value():
    assert columns_of(curve(200, math.inf))["test_reached"] == math.inf
    assert math.isnan(columns_of(curve(200, math.inf))["delay"])
    assert all(map(math.isnan, columns_of([]).values()))
    unmeasured = [{"step": 0, "train_accuracy": 1.0, "train_loss": 0.1, "test_accuracy": None, "test_loss": None}]
    assert math.isnan(columns_of(unmeasured)["test_reached"])
    assert phases.LIU.label(columns_of(unmeasured)) == "undetermined"


@pytest.mark.parametrize(
    ("train_loss", "test_loss", "peak", "pearce"),
    [
        (1e-3, 1e-6, 0.1, "high train"),
        (1e-6, 1e-3, 0.1, "high test"),
        (1e-6, 1e-6, 0.04, "train and test drop together"),
        (1e-6, 1e-6, 0.06, "grokking"),
    ],
)
def test_the_classes_of_pearce_come_in_their_order(train_loss, test_loss, peak, pearce):
    metrics = [
        {"step": 0, "train_loss": 1.0, "test_loss": 1.0},
        {"step": 1, "train_loss": 1e-6, "test_loss": peak},  # its ratio, with 2⁻²³ added, is 0.893e6 · peak
        {"step": 2, "train_loss": train_loss, "test_loss": test_loss},
    ]
    if train_loss > 1e-5:
        metrics[1]["train_loss"] = train_loss
    assert phases.PEARCE.label(columns_of(metrics)) == pearce


@pytest.mark.parametrize(
    ("train_accuracy", "test_accuracy", "inferential", "symmetric", "solution"),
    [
        (0.98, 1.0, 1.0, 0.0, "unfitted"),
        (1.0, 1.0, 0.90, 0.0, "inferential"),
        (1.0, 1.0, 0.0, 0.95, "symmetric"),
        (1.0, 0.3, 0.1, 0.2, "memorising"),
        (1.0, 0.3, 0.1, 0.21, "undetermined"),
        (1.0, 1.0, math.nan, 0.0, "undetermined"),
    ],
)
def test_an_anchor_run_is_labelled_by_its_row(train_accuracy, test_accuracy, inferential, symmetric, solution):
    run = {
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
        "held_out_inferential": inferential,
        "held_out_symmetric": symmetric,
    }
    assert phases.ANCHOR.label(run) == solution


def test_a_grid_point_has_the_label_of_more_than_half_of_its_runs():
    table = steps(seeds=(0, 1))
    table.loc[(table["seed"] == 1) & (table["init.gamma"] == 0.8), "train_accuracy"] = 0.5
    result = diagram(table)
    assert (result.at(0.8, 2).label, result.at(0.8, 2).labels) == ("mixed", {"inferential": 1, "unfitted": 1})
    assert result.at(0.7, 2).label == "inferential"
    assert result.at(0.4, 2).label == "symmetric"


def test_rules_without_their_columns_are_refused():
    with pytest.raises(UserError, match=r"delay, test_reached, train_reached .* with_transitions"):
        diagram(steps(), rules=phases.LIU)


def test_hatching_lies_in_exactly_the_cells_whose_seen_accuracy_is_below_nine_tenths():
    table = steps()
    table.loc[(table["init.gamma"] == 0.8) & (table["model.n_layers"] == 4), "test_accuracy"] = 0.9
    table.loc[(table["init.gamma"] == 0.7) & (table["model.n_layers"] == 4), "test_accuracy"] = [0.9, 0.9, 0.89]
    result = diagram(table)
    made = phases.figures(result)["held_out_inferential"]
    hatch = next(trace for trace in made.data if trace.name == "hatching")
    middles = {
        (round((a + b) / 2), round((c + d) / 2))
        for a, b, c, d in zip(hatch.x[::3], hatch.x[1::3], hatch.y[::3], hatch.y[1::3], strict=True)
    }
    assert middles == {(0, 0), (0, 1), (0, 2), (4, 2)}
    ends = [(x, y) for x, y in zip(hatch.x, hatch.y, strict=True) if x is not None]
    assert all(-0.5 <= x <= 0.5 or 3.5 <= x <= 4.5 for x, _ in ends)


def test_a_cell_of_a_map_names_its_runs_in_hover_text_and_customdata():
    result = diagram(scattered())
    made = phases.figures(result)
    for name in ("held_out_inferential", "phases"):
        trace = made[name].data[0]
        for j, depth in enumerate(DEPTHS):
            for i, gamma in enumerate(GAMMAS):
                paths = result.at(gamma, depth).paths["held_out_inferential"]
                assert tuple(filter(None, trace.customdata[j][i])) == paths
                assert all(path in trace.hovertext[j][i] for path in paths)
    curve = made["held_out_inferential along x"].data[1]
    assert tuple(filter(None, curve.customdata[2])) == result.at(0.5, 3).paths["held_out_inferential"]


def test_the_boundary_is_drawn_where_it_lies_between_the_cells():
    made = phases.figures(diagram(steps()))["held_out_inferential"]
    drawn = [trace for trace in made.data if trace.name == "boundary"]
    assert drawn[-1].x == pytest.approx((1.5, 2.5, 3.5), abs=0.05)
    assert drawn[-1].y == (0, 1, 2)
    reach = [x + high for x, high in zip(drawn[-1].x, drawn[-1].error_x.array, strict=True)]
    assert reach == pytest.approx((2, 3, 4))


@pytest.mark.slow
def test_every_figure_names_its_axes_and_says_what_it_shows():
    one_axis = phases.analyze(scattered().query("`model.n_layers` == 3"), x="init.gamma")
    for made in (phases.figures(diagram(scattered())), phases.figures(one_axis)):
        for name, figure in made.items():
            title = figure.layout.title
            assert all(
                (title.text, title.subtitle.text, figure.layout.xaxis.title.text, figure.layout.yaxis.title.text)
            ), name
            assert "nan" not in figure.to_json().lower()
    assert set(phases.figures(one_axis)) == {"held_out_inferential along x", "held_out_symmetric along x", "phases"}


def test_a_result_prints_its_grid_and_travels_as_json():
    result = diagram(steps())
    page = result._repr_html_()
    assert "passes 1/2 along init.gamma at 2: 0.450 [0.400, 0.500]" in page
    assert page.count("<tr>") == 1 + len(DEPTHS)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["points"][0]["label"] == "symmetric"


TASK = AnchorComposition(key_low=20, key_high=39, sequence_length=4, d_vocab=64, split_modulus=5, sequences_per_pair=64)
MODEL = TransformerConfig(n_layers=1, d_model=16, n_heads=1, d_head=16, d_mlp=16, n_ctx=4, d_vocab=64)
TRAINING = TrainingConfig(steps=20, batch_size=64, evaluate_every=10, snapshots=2)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Four runs, two initialisations by two seeds, a cell that failed and one that never began."""
    out = tmp_path_factory.mktemp("sweep")
    rows = []
    for gamma in (0.4, 0.8):
        for seed in (0, 1):
            path = f"cells/{gamma}-{seed}"
            (run,) = train(TASK, MODEL, Initialization(gamma=gamma), TRAINING, seeds=[seed], out=out / path)
            last = {key: value for key, value in run.metrics[-1].items() if key not in ("step", "final")}
            rows.append({"key": path, "path": path, "seed": seed, "init.gamma": gamma, **last, "error": None})
    rows.append({"key": "f", "path": "cells/f", "seed": 2, "init.gamma": 0.4, "error": "diverged"})
    rows.append({"key": "g", "path": "cells/g", "seed": 2, "init.gamma": 0.8, "error": None})
    return out, pd.DataFrame(rows)


@pytest.mark.slow
def test_a_trained_grid_becomes_a_phase_diagram(sweep):
    out, table = sweep
    table = phases.with_transitions(table.iloc[:5], out)
    assert table["train_reached"].tolist()[:4] == [math.inf] * 4
    assert math.isnan(table["train_reached"][4])
    result = phases.analyze(table, x="init.gamma", rules=phases.LIU)
    assert [point.label for point in result.points] == ["confusion", "confusion"]
    expected = table["held_out_inferential"][2:4].mean()
    assert result.points[1].values["held_out_inferential"].value == pytest.approx(expected)
    assert (result.points[0].n_runs, result.points[0].n_failed) == (2, 1)
    assert phases.analyze(table, x="init.gamma").points[0].label == "unfitted"


@pytest.mark.slow
def test_analyses_become_columns_with_the_numbers_that_each_gives_alone(sweep):
    out, table = sweep
    found = phases.with_analyses(table, out, ["condensation", "rank"])
    assert list(found.columns[: len(table.columns)]) == list(table.columns)
    for at, path in enumerate(table["path"][:4]):
        alone = condensation.analyze(Subject.load(out / path))
        assert found["condensation.mean_absolute_cosine"][at] == alone.mean_absolute_cosine
        assert found["condensation.directions"][at] == alone.directions
    assert found["rank.mean_relative_stable_rank"][:4].notna().all()
    assert found["condensation.mean_absolute_cosine"][4:].isna().all()
    result = phases.analyze(found[:5], x="init.gamma", values=["condensation.mean_absolute_cosine"])
    assert result.boundary is None
    assert result.points[0].values["condensation.mean_absolute_cosine"].n == 2


@pytest.mark.slow
def test_a_column_is_computed_once_and_again_when_the_snapshot_changes(sweep, tmp_path, monkeypatch):
    out, table = sweep
    calls = []
    measure = condensation.analyze

    def counted(subject):
        calls.append(subject.name)
        return measure(subject)

    counted.__annotations__ = measure.__annotations__
    monkeypatch.setattr(condensation, "analyze", counted)
    first = phases.with_analyses(table, out, ["condensation"], fresh=True)
    assert len(calls) == 4
    pd.testing.assert_frame_equal(phases.with_analyses(table, out, ["condensation"]), first)
    assert len(calls) == 4
    snapshot = sorted((out / table["path"][0] / "snapshots").iterdir())[-1]
    os.utime(snapshot, ns=(1, 1))
    phases.with_analyses(table, out, ["condensation"])
    assert len(calls) == 5
    (out / table["path"][1] / columns.CACHE).write_text("{cut sho")
    pd.testing.assert_frame_equal(phases.with_analyses(table, out, ["condensation"]), first)
    assert len(calls) == 6
    monkeypatch.setattr(counted, "__annotations__", {"return": condensation.MatrixCondensation})
    phases.with_analyses(table, out, ["condensation"])  # the result has other fields now
    assert len(calls) == 10


@pytest.mark.slow
def test_kept_numbers_do_not_disturb_training_that_goes_on(sweep, tmp_path):
    path = tmp_path / "cell"
    (run,) = train(TASK, MODEL, training=TRAINING, out=path)
    before = run.params()
    table = pd.DataFrame([{"path": "cell", "seed": 0, "error": None}])
    kept = phases.with_analyses(table, tmp_path, ["condensation"])
    text = (path / columns.CACHE).read_text()
    (again,) = train(TASK, MODEL, training=TRAINING, out=path)
    assert again.metrics == run.metrics
    run.cut_back(10)  # as if it had been killed there
    assert not run.finished
    (continued,) = train(TASK, MODEL, training=TRAINING, out=path)
    assert all(torch.equal(value, before[name]) for name, value in continued.params().items())
    assert (path / columns.CACHE).read_text() == text
    after = phases.with_analyses(table, tmp_path, ["condensation"])
    pd.testing.assert_frame_equal(after, kept)


@pytest.mark.slow
def test_an_analysis_of_no_row_is_refused_with_the_reason_and_one_of_some_keeps_it(sweep):
    out, table = sweep
    one = phases.with_analyses(table, out, "condensation")
    pd.testing.assert_frame_equal(one, phases.with_analyses(table, out, ["condensation"]))
    with pytest.raises(UserError, match="fourier is of none: it applies to modular, not to anchor"):
        phases.with_analyses(table, out, "fourier")
    first = table["path"][0]
    picky = types.ModuleType("somebodys.picky")

    def analyze(subject):
        if subject.run.path == out / first:
            raise UserError("expected another model")
        return condensation.analyze(subject)

    picky.analyze = analyze
    some = phases.with_analyses(table, out, [picky])["picky.directions"]
    assert math.isnan(some[0])
    assert some[1:4].notna().all()
    assert json.loads((out / first / columns.CACHE).read_text())["picky"]["refused"] == "expected another model"
    for fresh in (True, False):  # from the run, and as kept
        with pytest.raises(UserError, match="picky is of none: expected another model"):
            phases.with_analyses(table[:1], out, [picky], fresh=fresh)


@pytest.mark.slow
def test_an_unknown_analysis_is_refused_and_one_that_takes_a_table_is_no_analysis_of_a_subject(sweep):
    out, table = sweep
    with pytest.raises(UserError, match="expected analyses among"):
        phases.with_analyses(table, out, ["condensations"])
    with pytest.raises(UserError, match="takes a table"):
        probe.analysis_modules([phases], "anchor")


def test_only_shares_have_a_boundary_and_a_scale_from_zero_to_one():
    assert phases.is_share("max_held_out_inferential")
    assert not phases.is_share("test_loss")
    table = steps().assign(test_loss=1.5)
    result = diagram(table, values=["test_loss"])
    assert result.boundary is None
    assert phase_figures.order_map(result, "test_loss").data[0].zmax is None
    with pytest.raises(UserError, match="between 0 and 1"):
        diagram(table, values=["test_loss"], boundary_of="test_loss")


def test_where_no_exception_is_taught_the_unseen_pairs_are_what_is_drawn():
    table = steps().drop(columns=["held_out_inferential", "held_out_symmetric", "max_held_out_inferential"])
    table = table.assign(unseen_pairs_accuracy=[0.1 if gamma < 0.5 else 0.9 for gamma in table["init.gamma"]])
    diagram = phases.analyze(table, x="init.gamma", y="model.n_layers")
    assert diagram.values == ("unseen_pairs_accuracy",)
    assert diagram.seen == "test_accuracy"
    assert diagram.boundary is not None
    assert all(0.4 < crossing.location.value < 0.5 for crossing in diagram.boundary.crossings)


def test_a_map_of_the_largest_value_says_so():
    diagram = phases.analyze(steps(), x="init.gamma", y="model.n_layers", values=["max_held_out_inferential"])
    drawn = phases.figures(diagram)["max_held_out_inferential"]
    assert "of the largest value over training" in drawn.layout.title.subtitle.text.replace("<br>", " ")
