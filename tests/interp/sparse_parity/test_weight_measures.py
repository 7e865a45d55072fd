"""Measures of weights made by hand, and the table of a small sweep, which knows of the test set the labels alone."""

import json
import math

import pandas as pd
import pytest
import torch

from interp.sparse_parity.weight_measures import rule_measures, weight_measures
from interp.sweeps.snapshots import snapshots
from tasks.base import UserError
from tasks.sweep import SweepSpec, run_sweep

SPEC = SweepSpec(
    task="parity",
    preset="tiny",
    base={
        "training.steps": 400,
        "training.evaluate_every": 50,
        "training.snapshots": (0, 60, 150),
        "task.n_test": 200,
        "model.d_hidden": (16,),
    },
    axes={"training.weight_decay": (0.1, 0.3)},
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    return out, run_sweep(SPEC, out, engine="here")


def test_a_network_that_reads_one_bit_has_all_its_mass_there():
    W_in = torch.zeros(4, 3)
    W_in[1] = 2.0
    found = weight_measures(W_in, torch.ones(3))
    assert found["largest_bit"] == 1
    assert found["bit_gini"] == pytest.approx(3 / 4)
    assert found["neuron_gini"] == pytest.approx(0)
    assert found["stable_rank"] == pytest.approx(1)
    assert found["mean_absolute_cosine"] == pytest.approx(1)
    assert found["log_input_norm"] == pytest.approx(math.log10(math.sqrt(12)))
    assert "log_constant_norm" not in found
    assert rule_measures(W_in, (1,)) == pytest.approx(
        {"relevant_share": 1, "log_relevant_mass": math.log10(12), "log_distractor_mass": -12}
    )


def test_the_rule_is_asked_for_in_the_rule_measures_alone():
    W_in, w_out = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.ones(5)
    other = W_in[[3, 4, 5, 0, 1, 2]]  # the same network with other bits relevant
    assert weight_measures(W_in, w_out) == pytest.approx(weight_measures(other, w_out))
    assert rule_measures(W_in, (0, 1)) != pytest.approx(rule_measures(other, (0, 1)))
    assert rule_measures(W_in, (0, 1)) == pytest.approx(rule_measures(other, (3, 4)))


def test_a_network_of_zeros_has_norms_and_no_shares():
    found = weight_measures(torch.zeros(4, 3), torch.zeros(3), torch.zeros(3))
    assert found["log_input_norm"] == found["log_constant_norm"] == -12
    assert math.isnan(found["bit_gini"])
    assert math.isnan(found["largest_bit"])


@pytest.mark.slow
def test_each_snapshot_is_a_row_with_the_last_evaluation_before_it(sweep):
    out, table = sweep
    found = snapshots(table, out)
    assert len(found) == 2 * 4
    first = found[found["path"] == found["path"][0]]
    assert first["step"].tolist() == [0, 60, 150, 400]
    logged = {
        row["step"]: row for row in map(json.loads, (out / first["path"][0] / "metrics.jsonl").read_text().splitlines())
    }
    assert first["train_accuracy"].tolist() == [logged[step]["train_accuracy"] for step in (0, 50, 150, 400)]
    assert first["train.log_loss"].tolist()[1] == pytest.approx(math.log10(logged[50]["train_loss"]), abs=1e-5)
    reached = [step for step, row in logged.items() if row["test_accuracy"] >= 0.99]
    assert set(first["generalised"]) == {min(reached, default=math.inf)}
    assert first["rule.relevant_share"].iloc[-1] > 0.5 > first["rule.relevant_share"].iloc[0]
    assert (first["weights.subnetwork_share"].between(1 / 16, 1)).all()


@pytest.mark.slow
def test_other_test_numbers_change_the_label_and_nothing_else(sweep, tmp_path):
    import shutil

    out, table = sweep
    other = tmp_path / "other"
    shutil.copytree(out, other)
    for path in table["path"]:
        file = other / path / "metrics.jsonl"
        rows = [json.loads(line) | {"test_loss": 9.0, "test_accuracy": 0.25} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tested = table.assign(test_loss=9.0, test_accuracy=0.25, max_test_accuracy=0.25)
    one, two = snapshots(table, out), snapshots(tested, other)
    assert (two["generalised"] == math.inf).all()
    assert (one["generalised"] < math.inf).any()
    pd.testing.assert_frame_equal(one.drop(columns="generalised"), two.drop(columns="generalised"))


@pytest.mark.slow
def test_a_failed_cell_is_left_out_and_another_task_refused(sweep, tmp_path):
    out, table = sweep
    failed = table.assign(error=["ValueError: it", None])
    assert set(snapshots(failed, out)["path"]) == {table["path"][1]}
    modular = SweepSpec(task="modular", base={"training.steps": 2}, axes={"training.weight_decay": (0.1, 0.3)})
    other = run_sweep(modular, tmp_path, engine="here")
    with pytest.raises(UserError, match="expected a sparse parity in an MLP of one hidden layer"):
        snapshots(other, tmp_path)
