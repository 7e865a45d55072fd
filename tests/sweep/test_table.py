"""The table of results, and the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from interp.sweeps import phases
from interp.sweeps.cells import axis, succeeded
from tasks.base import UserError
from tasks.sweep.command import Sweep, find
from tasks.sweep.execute import run_sweep
from tasks.sweep.grid import SweepSpec
from tasks.sweep.ready import READY
from tasks.sweep.table import table, write_plan
from tasks.training.run import Run


def test_a_row_holds_the_last_evaluation_and_the_largest_accuracies_of_its_run(small, tmp_path):
    spec = small(axes={"training.learning_rate": [3e-2, 1e-3]}, seeds=[1, 0])
    found = run_sweep(spec, tmp_path, engine="here")
    assert list(zip(found["training.learning_rate"], found["seed"], strict=True)) == [
        (1e-3, 0),
        (1e-3, 1),
        (3e-2, 0),
        (3e-2, 1),
    ]
    for row in found.to_dict("records"):
        run = Run.load(tmp_path / row["path"])
        assert (run.config.training.learning_rate, run.config.seed) == (row["training.learning_rate"], row["seed"])
        last = run.metrics[-1]
        assert {name: row[name] for name in last if name not in ("step", "final")} == {
            name: value for name, value in last.items() if name not in ("step", "final")
        }
        assert row["last_step"] == last["step"] == 12
        assert row["max_train_accuracy"] == max(each["train_accuracy"] for each in run.metrics)
        assert "max_train_loss" not in row
        assert row["seconds"] > 0


def test_the_table_is_rebuilt_from_the_folders_and_leaves_out_what_has_not_ended(small, tmp_path):
    spec = small(axes={"training.snapshots": [2, (0, 4)]}, seeds=[0, 1])
    whole = run_sweep(spec, tmp_path, engine="here")
    assert list(whole["training.snapshots"]) == ["2", "2", "[0, 4]", "[0, 4]"]
    (tmp_path / "table.parquet").unlink()
    pd.testing.assert_frame_equal(table(tmp_path), whole, check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), whole, check_exact=True)
    metrics = tmp_path / whole["path"][3] / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    (metrics.parent / "cell.json").unlink()
    pd.testing.assert_frame_equal(table(tmp_path), whole.iloc[:3], check_exact=True)


def ended(out: Path, spec: SweepSpec) -> None:
    """A sweep whose cells have finished, but for their weights."""
    out.mkdir(exist_ok=True)
    write_plan(out, spec, spec.cells())
    for number, cell in enumerate(spec.cells()):
        folder = out / "cells" / cell.key
        folder.mkdir(parents=True, exist_ok=True)
        line = {"step": 12, "train_accuracy": 1.0, "test_accuracy": number / 10, "final": True}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")


def test_a_folder_takes_its_own_sweep_or_a_wider_one_and_no_other(small, tmp_path):
    first, other = small(seeds=[0]), small(seeds=[1])
    wider = small(seeds=[0, 1])
    ended(tmp_path, first)
    before = (tmp_path / "spec.json").read_bytes()
    with pytest.raises(UserError, match="or a wider one, 2 of its 2 cells are not in this one: choose another folder"):
        run_sweep(other, tmp_path, engine="here")
    assert (tmp_path / "spec.json").read_bytes() == before
    ended(tmp_path, wider)
    assert len(table(tmp_path)) == 4


def test_a_command_gives_its_own_rows_where_a_second_one_has_widened_the_sweep(small, tmp_path):
    first, wider = small(seeds=[0]), small(seeds=[0, 1])
    plan = write_plan(tmp_path, first, first.cells())
    ended(tmp_path, wider)
    assert set(table(tmp_path, plan)["key"]) == {cell.key for cell in first.cells()}
    assert set(pd.read_parquet(tmp_path / "table.parquet")["key"]) == {cell.key for cell in wider.cells()}


def test_what_has_no_host_or_error_is_null_and_not_the_word_none(small, tmp_path):
    spec = small(seeds=[0])
    ended(tmp_path, spec)
    record = {"seconds": None, "host": "a", "error": "OSError: full"}
    folder = tmp_path / "cells" / spec.cells()[1].key
    (folder / "metrics.jsonl").unlink()
    (folder / "cell.json").write_text(json.dumps(record))
    for found in (table(tmp_path), pd.read_parquet(tmp_path / "table.parquet")):
        assert found["error"].isna().tolist() == [True, False]
        assert found["host"].isna().tolist() == [True, False]
        assert succeeded(found) == [True, False]
        assert str(found["error"].dtype) == "string"


def test_an_axis_of_lists_of_one_number_is_numbers_and_any_other_is_ordered_text(tmp_path):
    def found(widths: list[tuple[int, ...]]) -> pd.DataFrame:
        out = tmp_path / str(len(str(widths)))
        ended(out, SweepSpec(task="parity", preset="paper", axes={"model.d_hidden": widths}))
        return table(out)

    assert found([(128,), (8,), (16,)])["model.d_hidden"].tolist() == [8, 16, 128]
    both = found([(128,), (16, 8), (8,), (16,)])
    assert both["model.d_hidden"].tolist() == ["[8]", "[16]", "[16, 8]", "[128]"]
    assert axis(both, "model.d_hidden").values == ("[8]", "[16]", "[16, 8]", "[128]")


def test_none_is_a_value_of_an_axis_at_its_end(small, tmp_path):
    ended(tmp_path, small(axes={"training.batch_size": [None, 512, 64]}, seeds=[0, 1]))
    result = phases.analyze(table(tmp_path), x="training.batch_size", values=["test_accuracy"])
    assert result.x.values == ("64", "512", "null")
    means = [point.values["test_accuracy"].value for point in result.points]
    assert means == pytest.approx([0.45, 0.25, 0.05])


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected the spec\.json of a sweep in"):
        table(tmp_path)


def test_a_sweep_is_found_by_file_or_by_name(tmp_path):
    (tmp_path / "a.toml").write_text('task = "modular"\n')
    assert find(str(tmp_path / "a.toml")).task == "modular"
    with pytest.raises(UserError, match=r"expected a \.toml or \.py file or a sweep among .*data-and-decay.*, got 'b'"):
        find("b")


@pytest.mark.parametrize("name", READY)
def test_every_ready_sweep_has_cells_that_differ(name):
    assert len({cell.key for cell in READY[name].cells()}) > 1


def test_the_command_writes_the_table_and_ends_with_status_one_where_a_cell_failed(small, tmp_path, capsys):
    for gammas, status in (([0.5, 0.8], None), ([0.5, -1000.0], 1)):
        spec = tmp_path / "spec.py"
        given = small(axes={"init.gamma": gammas}).to_dict()
        spec.write_text(f"from tasks.sweep import SweepSpec\nSPEC = SweepSpec.from_dict({given!r})\n")
        command = Sweep(spec=str(spec), out=tmp_path / str(status), engine="here", quiet=True)
        if status is None:
            command()
            assert "table.parquet: 2 cells finished, 0 failed" in capsys.readouterr().out
        else:
            with pytest.raises(SystemExit) as ended:
                command()
            assert ended.value.code == status
            printed = capsys.readouterr()
            assert "1 cells finished, 1 failed" in printed.out
            assert "OverflowError" in printed.err


def test_importing_the_command_loads_nothing_heavy():
    heavy = ("torch", "pandas", "pyarrow", "joblib", "distributed")
    code = f"import sys, tasks.sweep.command; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
