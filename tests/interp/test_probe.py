"""The probe: which analyses run, the JSON others read, and a page that needs no network."""

import html
import json
import types

import pytest
import torch
from plotly.offline import get_plotlyjs

from interp.modular import fourier
from interp.probe import examine, main, run_folders
from interp.registry import ANALYSES, ANY, TAKES, analysis_modules
from interp.report.page import page
from interp.subject import Subject
from interp.sweeps import contrast
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.constructed import clock, mirror
from tasks.models.initialization import Initialization
from tasks.models.mlp import shapes as mlp_shapes
from tasks.registry import FAMILIES
from tasks.training.config import TrainingConfig
from tasks.training.trainer import train

ADDITION = ModularArithmetic(p=13, train_fraction=0.5)
ANCHORS = AnchorComposition(key_low=20, key_high=39, sequence_length=5, d_vocab=64, split_modulus=7)
MODEL = TransformerConfig(n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=24, d_vocab=14, d_vocab_out=13, n_ctx=3)


@pytest.fixture(scope="module")
def addition():
    return examine(Subject.of(*clock(ADDITION, (2, 3, 5)), ADDITION, step=7, name="clock"))


@pytest.fixture(scope="module")
def anchors():
    return examine(Subject.of(*mirror(ANCHORS), ANCHORS, name="mirror"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("checkpoints") / "run"
    training = TrainingConfig(steps=4, evaluate_every=2, snapshots=(2,))
    return train(ADDITION, MODEL, Initialization(), training, out=out)[0].path


def test_each_task_gets_the_analyses_that_apply_to_it(addition, anchors) -> None:
    for family, report in (("modular", addition), ("anchor", anchors)):
        lines = {name: line for name, line in ANALYSES.items() if line.takes == "subject" and line.applies(family)}
        named = [name for name, line in lines.items() if family not in line.on_request]
        assert [name for name in named if name in report.results] == list(report.results)
        assert set(named) - set(report.results) == set(report.skipped)
    assert set(addition.skipped) == {"neuron_waves"}  # of perceptrons
    assert not anchors.skipped
    assert list(addition.results) == ["fourier", "progress", "condensation", "rank", "collapse"]
    assert {"counterfactual", "interchange", "attention"} <= set(anchors.results)
    assert "relabelling" not in anchors.results
    assert addition.verdict.solution == "generalising by Fourier multiplication"
    assert anchors.verdict.solution == "symmetric"


def test_the_json_has_the_published_keys(addition, anchors) -> None:
    found = json.loads(json.dumps(addition.to_dict(), allow_nan=False))
    assert set(found) >= {"run", "task", "step", "verdict", "performance", "analyses"}
    assert (found["run"], found["step"], found["task"]["family"], found["task"]["p"]) == ("clock", 7, "modular", 13)
    assert set(found["verdict"]) >= {"solution", "sentence"}
    assert set(found["performance"]) == {"train_loss", "test_loss", "train_accuracy", "test_accuracy"}
    assert found["control_performance"]["test_accuracy"] < 0.5 < found["performance"]["test_accuracy"]
    assert found["analyses"]["fourier"]["key_frequencies"] == [2, 3, 5]
    swaps = json.loads(json.dumps(anchors.to_dict(), allow_nan=False))["analyses"]["counterfactual"]
    assert (swaps["inferential"], swaps["symmetric"], swaps["other"]) == (0.0, 1.0, 0.0)


def test_every_analysis_in_the_table_keeps_the_contract() -> None:
    for line in ANALYSES.values():
        module = __import__(line.module, fromlist=["analyze"])
        assert line.takes in TAKES
        assert callable(module.analyze)
        assert callable(module.figures)
        assert line.tasks == ANY or set(line.tasks) <= set(FAMILIES)
        assert set(line.on_request) <= set(FAMILIES)


def test_a_module_of_ones_own_is_an_analysis_too() -> None:
    own = types.ModuleType("somebodys.width")
    own.analyze = lambda subject: fourier.analyze(subject)  # type: ignore[attr-defined]
    report = examine(Subject.of(*clock(ADDITION, (2, 3, 5)), ADDITION), [own])
    assert list(report.results) == ["width"]


def test_an_analysis_of_another_task_is_skipped_and_says_so() -> None:
    report = examine(Subject.of(*clock(ADDITION, (2, 3, 5)), ADDITION), ["counterfactual", "rank"])
    assert list(report.results) == ["rank"]
    assert report.skipped == {"counterfactual": "it applies to anchor, not to modular"}


def test_a_module_without_figures_has_its_numbers_on_the_page_and_no_figure() -> None:
    own = types.ModuleType("somebodys.width")
    own.analyze = fourier.analyze  # type: ignore[attr-defined]
    text = page([examine(Subject.of(*clock(ADDITION, (2, 3, 5)), ADDITION), [own])])
    assert "width: key frequencies" in text
    assert "run-0-width" not in text


def test_a_module_that_takes_a_trajectory_is_refused() -> None:
    own = types.ModuleType("somebodys.story")
    own.analyze, own.TAKES = fourier.analyze, "trajectory"  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="takes a trajectory"):
        examine(Subject.of(*clock(ADDITION, (2, 3, 5)), ADDITION), [own])
    with pytest.raises(UserError, match="contrast takes a pair of ensembles: call its analyze"):
        analysis_modules([contrast], "modular")


def test_what_runs_on_request_for_a_family_runs_where_it_is_named_and_by_itself_for_the_others() -> None:
    config = MLPConfig(n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(8,), input="one_hot")
    params = {name: torch.ones(shape) for name, shape in mlp_shapes(config).items()}
    subject = Subject.of(config, params, ModularArithmetic(p=7, form="pair"))
    report = examine(subject)
    assert "representation" not in report.results
    assert "got a perceptron: representation.analyze" in report.skipped["fourier"]
    assert list(examine(subject, ["representation"]).results) == ["representation"]
    assert "representation" in analysis_modules(None, "group")
    assert "relabelling" not in analysis_modules(None, "anchor")


def test_an_unknown_analysis_and_a_module_without_analyze_are_refused() -> None:
    subject = Subject.of(*clock(ADDITION, (2, 3, 5)), ADDITION)
    with pytest.raises(UserError, match="expected analyses among fourier"):
        examine(subject, ["fourrier"])
    with pytest.raises(UserError, match="has none"):
        examine(subject, [types.ModuleType("empty")])


def test_an_operation_without_a_circle_is_skipped_and_says_why() -> None:
    task = ModularArithmetic(p=13, operation="x2+xy+y2")
    report = examine(Subject.of(*clock(ADDITION, (2, 3, 5)), task))
    assert "expected a model of add or subtract" in report.skipped["fourier"]
    assert "fourier" not in report.results


def test_the_page_stands_alone(addition, anchors) -> None:
    text = page([addition, anchors])
    assert text.count(get_plotlyjs()) == 1
    text = text.replace(get_plotlyjs(), "")
    for reference in ('src="http', "src='http", 'href="http', "@import"):
        assert reference not in text
    for report in (addition, anchors):
        assert html.escape(report.verdict.sentence) in text
    assert "run-0-fourier-logits" in text
    assert "run-1-counterfactual-table" in text


def test_the_command_prints_a_verdict_per_run_and_writes_json_and_report(folder, tmp_path, capsys) -> None:
    main([str(folder), "--json", str(tmp_path / "out.json"), "--report", str(tmp_path / "out.html")])
    printed = capsys.readouterr().out
    assert "undetermined" in printed
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(entry["step"], entry["verdict"]["solution"]) for entry in found] == [(4, "undetermined")]
    assert "undetermined" in (tmp_path / "out.html").read_text()


def test_all_steps_are_probed_in_order_and_json_alone_goes_to_standard_output(folder, capsys) -> None:
    main([str(folder), "--step", "all", "--only", "rank", "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    assert [entry["step"] for entry in found] == [0, 2, 4]
    assert all(list(entry["analyses"]) == ["rank"] for entry in found)


def test_a_folder_of_run_folders_stands_for_them(folder) -> None:
    assert run_folders([folder.parent]) == [folder]


def test_without_a_run_the_checkpoints_are_probed_but_not_those_for_tests(folder, monkeypatch) -> None:
    (folder.parent / "tiny").mkdir(exist_ok=True)
    monkeypatch.chdir(folder.parent.parent)
    monkeypatch.setattr("interp.probe.CHECKPOINTS", folder.parent)
    assert run_folders([]) == [folder]


STRANGERS = ["--layout", "transformer_lens", "--task", "modular", "p=13", "train_fraction=0.5"]


@pytest.fixture
def weights(tmp_path):
    """A file with the weights of the clock, as a stranger would publish them."""
    torch.save({"model": clock(ADDITION, (2, 3, 5)).params}, tmp_path / "clock.pt")
    return tmp_path / "clock.pt"


def test_weights_of_a_stranger_are_probed_with_their_layout_and_task(weights, capsys) -> None:
    main([str(weights), *STRANGERS, "--only", "fourier", "--json", "-"])
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["run"], found["step"]) == ("clock", None)
    assert (found["task"]["p"], found["task"]["train_fraction"]) == (13, 0.5)
    assert found["analyses"]["fourier"]["key_frequencies"] == [2, 3, 5]
    assert found["verdict"]["solution"] == "generalising by Fourier multiplication"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected files of weights with --layout and --task"),
        (STRANGERS[:2], "expected files of weights with --layout and --task"),
        (STRANGERS[2:], "such as FILE --layout progress_measures --task modular p=113"),
        ([*STRANGERS, "--step", "3"], "and without --step"),
        (
            [*STRANGERS[:4], "p=11"],
            "expected embed.W_E [d_vocab 12, d_model 27] in layout transformer_lens, got (14, 27)",
        ),
        (["--layout", "group_mlp", *STRANGERS[2:]], "expected W_x [d_vocab, d_embed] in layout group_mlp"),
        ([*STRANGERS, "q=2"], "ModularArithmetic has no field 'q'"),
        ([*STRANGERS, "p=x"], "expected a field and its value, such as p=113, got p=x"),
        (["--layout", "transformer_lens", "--task", "modulo", "p=13"], "expected a task family among"),
    ],
)
def test_a_mistake_about_weights_of_a_stranger_is_one_line_and_status_2(weights, arguments, message, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(weights), *arguments])
    captured = capsys.readouterr()
    assert (stop.value.code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert message in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "3"], "has none at 3: it has 0, 2, 4"),
        (["--step", "first"], "expected a step number, last or all, got 'first'"),
        (["--only", "fourrier"], "expected analyses among"),
        (["--only", ","], "after --only, got none"),
        (["--report", "/"], "is a folder"),
        (["--report", "/nowhere/at/all.html"], "does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(folder, capsys, arguments, message) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(folder), *arguments])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""


def test_outside_a_checkout_the_probe_says_what_to_give_it(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "python -m interp.probe RUN" in capsys.readouterr().err
