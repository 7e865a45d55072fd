"""A sweep whose classes were made by hand: shares, the direction of every axis, and the panels they are drawn in."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from interp.statistics import wilson
from interp.sweeps import small_multiples
from interp.sweeps.regimes import LIU, PEARCE, labels, pearce
from interp.sweeps.small_multiples import STAGE
from interp.sweeps.small_multiples_figures import loss_curves
from tasks.base import UserError

DECAYS, WIDTHS, SIZES, SEEDS = (0.01, 0.1, 1.0), (16, 64), (750, 1250, 1750), (0, 1, 2)
NUMBERS = {
    "high train": (1e-2, 1.0, 10.0),
    "high test": (1e-7, 1.0, 1e6),
    "train and test drop together": (1e-7, 1e-7, 10.0),
    "grokking": (1e-7, 1e-7, 1e6),
}


def row(decay, width, size, seed, label, **more):
    train, test, ratio = NUMBERS[label]
    return {
        "path": f"cells/{decay}-{width}-{size}-{seed}",
        "seed": seed,
        "training.weight_decay": decay,
        "model.d_hidden": width,
        "task.n_train": size,
        "min_train_loss": train,
        "min_test_loss": test,
        "max_loss_ratio": ratio,
        "error": None,
    } | more


def said(decay, width, size, seed):
    """Much decay fits nothing; without it the test loss stays high; between them seeds differ, but for much data."""
    if decay == 1.0:
        return "high train"
    if decay == 0.01:
        return "high test" if size < 1750 else "train and test drop together"
    return "grokking" if seed and size < 1750 else "train and test drop together"


def table():
    rows = [row(d, w, n, s, said(d, w, n, s)) for d in DECAYS for w in WIDTHS for n in SIZES for s in SEEDS]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def found():
    return small_multiples.analyze(table())


def test_shares_are_of_seeds_with_wilsons_interval(found):
    cell = found.cell(weight_decay=0.1, d_hidden=64, n_train=750)
    assert cell.counts == {"high train": 0, "high test": 0, "train and test drop together": 1, "grokking": 2}
    grokking = cell.shares["grokking"]
    assert grokking.value == pytest.approx(2 / 3)
    assert (grokking.low, grokking.high) == pytest.approx(wilson(2 / 3, 3))
    assert found.cell(weight_decay=1.0, d_hidden=16, n_train=750).shares["high train"].low == pytest.approx(
        0.44, abs=0.01
    )
    assert sum(share.value for share in cell.shares.values()) == 1
    assert cell.paths == tuple(f"cells/0.1-64-750-{seed}" for seed in SEEDS)


def test_counts_are_of_the_whole_sweep_and_the_classes_are_the_rules_own(found):
    assert found.counts == {"high train": 18, "high test": 12, "train and test drop together": 16, "grokking": 8}
    assert found.n_runs == sum(found.counts.values()) == 54
    assert found.classes == PEARCE.labels[:-1]
    assert len(found.cells) == 18


def test_more_decay_leads_through_the_stages_and_the_width_does_nothing(found):
    decay = found.trend("training.weight_decay", STAGE)
    assert decay.correlation.value > 0.8
    assert decay.p_value < 0.05
    assert found.trend("training.weight_decay", "high train").correlation.value > 0.7
    assert found.trend("training.weight_decay", "high test").correlation.value < -0.4
    for of in (*found.classes, STAGE):
        assert found.trend("model.d_hidden", of).correlation.value == pytest.approx(0, abs=1e-12)
        assert found.trend("model.d_hidden", of).p_value == 1
    assert found.trend("task.n_train", "train and test drop together").correlation.value > 0.3


def test_a_class_in_the_middle_has_its_centre_there_on_the_axis_scale(found):
    centres = found.centres["training.weight_decay"]
    assert centres["high test"].value == pytest.approx(0.01)
    assert centres["grokking"].value == pytest.approx(0.1)
    assert centres["high train"].value == pytest.approx(1.0)
    together = centres["train and test drop together"]  # of 16 runs 6 at 0.01, 10 at 0.1
    assert together.value == pytest.approx(10 ** (-(6 * 2 + 10) / 16))
    assert together.low <= together.value <= together.high


def test_both_thresholds_are_arguments_of_the_rules():
    assert small_multiples.analyze(table(), rules=pearce(ratio=1e7)).counts["grokking"] == 0
    assert small_multiples.analyze(table(), rules=pearce(ratio=5)).counts["train and test drop together"] == 0
    assert small_multiples.analyze(table(), rules=pearce(low_loss=2.0)).counts["high train"] == 0
    assert labels(table(), pearce()) == labels(table(), PEARCE)


def test_a_failed_run_counts_as_failed_and_a_cell_without_runs_has_no_shares():
    some = table()
    some.loc[:2, "error"] = "ValueError: it"
    found = small_multiples.analyze(some)
    first = found.cell(weight_decay=0.01, d_hidden=16, n_train=750)
    assert (first.n_runs, first.n_failed, first.shares) == (0, 3, {})
    assert found.n_failed == 3
    heights = small_multiples.figures(found)["classes"].data[0].y
    assert math.isnan(heights[0])


def test_the_order_of_rows_and_the_names_of_seeds_change_nothing(found):
    shuffled = table().sample(frac=1, random_state=1)
    shuffled["seed"] = 7 - shuffled["seed"]
    again = small_multiples.analyze(shuffled)
    for one, two in zip(found.trends, again.trends, strict=True):
        assert one.to_dict() == two.to_dict()
    assert [cell.counts for cell in found.cells] == [cell.counts for cell in again.cells]


def test_other_rules_and_other_axes_do_as_well():
    rows = [
        {
            "path": f"{p}-{s}",
            "seed": s,
            "task.p": p,
            "train_reached": 100.0,
            "test_reached": 100.0 * p,
            "delay": 100.0 * p,
        }
        for p in (5, 11, 23)
        for s in SEEDS
    ]
    found = small_multiples.analyze(pd.DataFrame(rows), rules=LIU)
    assert found.counts["grokking"] == 6
    assert found.trend("task.p", "grokking").correlation.value > 0.8
    assert all(trend.value != STAGE for trend in found.trends)
    assert set(small_multiples.figures(found)) == {"classes", "trends"}


def test_a_panel_shows_the_shares_of_its_cells(found):
    figure = small_multiples.figures(found)["classes"]
    assert len(figure.data) == len(WIDTHS) * len(SIZES) * 4
    grokking = [bar for bar in figure.data if bar.name == "grokking"]
    assert [list(bar.x) for bar in grokking] == [["0.01", "0.1", "1"]] * 6
    assert [bar.y[1] for bar in grokking] == pytest.approx([2 / 3, 2 / 3, 0] * 2)
    low, high = wilson(2 / 3, 3)
    assert grokking[0].error_y.array[1] == pytest.approx(high - 2 / 3)
    assert grokking[0].error_y.arrayminus[1] == pytest.approx(2 / 3 - low)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert {"d_hidden 16", "d_hidden 64", "n_train 750", "training.weight_decay"} <= set(titles)


def test_loss_curves_draw_each_seed_twice_in_the_panel_of_its_cell(tmp_path):
    some = table()
    some = some[some["model.d_hidden"] == 16]
    for path, decay in zip(some["path"], some["training.weight_decay"], strict=True):
        (tmp_path / path).mkdir(parents=True)
        lines = [{"step": step, "train_loss": decay, "test_loss": None if step else 2.0} for step in (0, 100)]
        (tmp_path / path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure = loss_curves(some, tmp_path, where={"task.n_train": 750})
    assert len(figure.data) == len(DECAYS) * len(SEEDS) * 2
    train = figure.data[0]
    assert list(train.x) == [50, 100]  # step 0 has no place on a logarithmic axis
    assert train.y[0] == pytest.approx(0.01, abs=1e-6)
    assert figure.data[1].y[1] is None
    assert {trace.line.dash for trace in figure.data} == {"solid", "dash"}
    assert "grokking 2/3" in [annotation.text for annotation in figure.layout.annotations]
    with pytest.raises(UserError, match="the table has none there"):
        loss_curves(some, tmp_path, where={"task.n_train": 7})
    with pytest.raises(UserError, match="expected two axes that vary"):
        loss_curves(table(), tmp_path)


@pytest.mark.parametrize(
    ("change", "how", "message"),
    [
        (lambda t: t.drop(columns="max_loss_ratio"), {}, "add them by with_transitions"),
        (lambda t: t, {"axes": ["training.weight_decay"]}, "model.d_hidden varies too"),
        (lambda t: t, {"axes": ["task.seeds"]}, "expected an axis of the sweep"),
        (lambda t: t, {"axes": ["task.n_train", "task.n_train"]}, "expected axes that differ"),
        (lambda t: pd.concat([t, t]), {}, "expected one run per seed and cell"),
        (lambda t: t.assign(error="it failed"), {}, "every row of the table has an error"),
    ],
)
def test_a_mistake_is_named(change, how, message):
    with pytest.raises(UserError, match=message):
        small_multiples.analyze(change(table()), **how)


def test_more_than_three_axes_are_measured_and_not_drawn():
    more = pd.concat([table().assign(**{"task.k": k, "path": [f"{k}-{i}" for i in range(54)]}) for k in (2, 3)])
    found = small_multiples.analyze(more)
    assert len(found.cells) == 36
    assert np.isfinite([trend.correlation.value for trend in found.trends]).all()
    with pytest.raises(UserError, match="at most 3 axes"):
        small_multiples.figures(found)
