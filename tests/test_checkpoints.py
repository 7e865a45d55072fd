"""The shipped checkpoints: golden numbers, and what the project promises of them."""

from pathlib import Path

import pytest
import torch

from interp import Ensemble, Subject
from interp.anchor import attention, interchange, relabelling
from interp.modular import fourier
from interp.probe import examine
from interp.weights import condensation
from tasks.training import Run

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
TINY = CHECKPOINTS / "tiny"
SOLUTIONS = {"small": "inferential", "large": "symmetric", "very-large": "memorising"}
"""Scale of the initial weights → how its three shipped runs solve the task."""


def folders(where: Path) -> list[Path]:
    return sorted(config.parent for pattern in ("*", "*/seed-*") for config in where.glob(f"{pattern}/config.json"))


@pytest.mark.parametrize(
    "folder", [*folders(CHECKPOINTS), *folders(TINY)], ids=lambda folder: str(folder.relative_to(CHECKPOINTS))
)
def test_every_shipped_run_is_finished_and_records_its_command(folder) -> None:
    run = Run.load(folder)
    assert run.finished
    assert run.config.command.startswith("python -m tasks train ")
    assert not (folder / "resume.safetensors").exists()


def test_the_shipped_folders_stay_small() -> None:
    def size(folder: Path) -> int:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    assert size(CHECKPOINTS) < 40e6
    assert size(TINY) < 200e3 * len(folders(TINY))


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", [*folders(CHECKPOINTS), *folders(TINY)], ids=lambda folder: str(folder.relative_to(CHECKPOINTS))
)
def test_a_shipped_run_performs_as_its_metrics_say(folder) -> None:
    run = Run.load(folder)
    found = Subject.load(run).performance
    rel = 1e-3 if run.config.training.snapshot_dtype == "same" else 1e-2  # eleven bits are left of a weight
    for key, value in run.metrics[-1].items():
        if key in found:
            assert found[key] == pytest.approx(value, rel=rel, abs=1e-8), key


@pytest.mark.slow
def test_the_tiny_addition_model_multiplies_in_fourier_space_and_did_not_before() -> None:
    assert examine(Subject.load(TINY / "modular")).verdict.solution == "generalising by Fourier multiplication"
    assert examine(Subject.load(TINY / "modular", 0)).verdict.solution == "undetermined"


@pytest.mark.slow
def test_the_tiny_anchor_model_is_symmetric() -> None:
    assert examine(Subject.load(TINY / "anchor")).verdict.solution == "symmetric"


def test_the_tiny_parity_network_knows_the_bits_and_did_not_before() -> None:
    assert examine(Subject.load(TINY / "parity"), ["parity"]).verdict.solution == "generalising by k bits"
    assert examine(Subject.load(TINY / "parity", 0), ["parity"]).verdict.solution == "undetermined"


def test_five_neurons_on_a_circle_add_by_periodic_features_and_did_not_before() -> None:
    found, before = (examine(Subject.load(TINY / "circle", step), ["neuron_waves"]) for step in ("last", 0))
    assert found.verdict.solution == "generalising by periodic features"
    assert before.verdict.solution == "undetermined"
    assert found.performance["test_accuracy"] == 1


def test_twenty_four_neurons_memorise_and_then_add_by_periodic_features() -> None:
    folder = CHECKPOINTS / "perceptron"
    early, late = (examine(Subject.load(folder, step), ["neuron_waves"]) for step in (1_000, "last"))
    assert early.verdict.solution == "memorising"
    assert late.verdict.solution == "generalising by periodic features"
    assert late.results["neuron_waves"].frequencies == (4, 19, 13, 22)


@pytest.mark.slow
def test_the_published_setting_grokked_as_promised() -> None:
    subject = Subject.load(CHECKPOINTS / "modular-addition")
    found = fourier.analyze(subject)
    assert 3 <= len(found.key_frequencies) <= 6
    assert subject.performance["test_loss"] < 1e-5
    assert found.neurons_explained_share >= 0.8
    assert found.cos_variance >= 0.9
    assert found.control_neurons_explained_share < 0.05
    assert found.control_cos_variance < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "solution"), SOLUTIONS.items())
def test_three_seeds_of_each_scale_of_initial_weights_end_in_its_solution(scale, solution) -> None:
    subjects = Ensemble.load(CHECKPOINTS / f"anchor-{scale}-init").subjects
    reports = [examine(subject, ["counterfactual"]) for subject in subjects]
    assert [report.verdict.solution for report in reports] == [solution] * 3


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "solution"), SOLUTIONS.items())
def test_patched_activations_and_one_more_exception_do_not_contradict_the_answers(scale, solution) -> None:
    subject = Ensemble.load(CHECKPOINTS / f"anchor-{scale}-init").subjects[0]
    rule, route, call = {
        "inferential": ("inferential", "undetermined", "does not follow"),  # its parts stand apart up to the last layer
        "symmetric": ("undetermined", "symmetric", "follows"),  # the pair is formed in the first
        "memorising": ("undetermined", "undetermined", "does not follow"),
    }[solution]
    patched = interchange.analyze(subject)
    assert (patched.rule, patched.route) == (rule, route)
    assert relabelling.analyze(subject).mirror_call == call


def test_the_anchor_runs_differ_in_seed_and_scale_of_their_initial_weights_alone() -> None:
    configs = [
        subject.run.config for scale in SOLUTIONS for subject in Ensemble.load(CHECKPOINTS / f"anchor-{scale}-init")
    ]
    first = configs[0].decides()
    for other in (config.decides() for config in configs):
        assert {key for key in first if first[key] != other[key]} <= {"init", "seed"}
        assert {key for key in first["init"] if first["init"][key] != other["init"][key]} <= {"gamma"}
    gammas = {config.init.gamma for config in configs}
    assert len(gammas) == 3


@pytest.mark.slow
def test_the_published_seed_infers_from_small_weights_and_mirrors_from_large_ones() -> None:
    """Of Zhang et al.'s log: the answers when the pairs are fitted, within 3 points; the transient at γ = 0.5."""
    asked = ["counterfactual", "interchange"]
    small, large = (examine(Subject.load(CHECKPOINTS / f"anchor-published-{gamma}"), asked) for gamma in (0.8, 0.5))
    assert (small.verdict.solution, large.verdict.solution) == ("inferential", "symmetric")
    for report, published in ((small, (0.964, 0.0)), (large, (0.0, 1.0))):
        found = report.results["counterfactual"]
        assert (found.inferential, found.symmetric) == pytest.approx(published, abs=0.03)
        assert (found.seen, found.unseen) == pytest.approx((1.0, 1.0), abs=0.005)
    assert small.results["interchange"].rule == "inferential"
    assert large.results["interchange"].route == "symmetric"
    after = {row["step"] // 370: row for row in large.subject.run.metrics}
    assert after[3]["held_out_symmetric"] == pytest.approx(0.753, abs=0.03)
    assert after[3]["train_accuracy"] == pytest.approx(0.973, abs=0.01)
    assert all(after[epoch]["held_out_symmetric"] == 1 for epoch in (6, 7))


@pytest.mark.slow
def test_the_published_models_have_the_published_weights_and_the_symmetric_one_its_flow() -> None:
    small, large = (Subject.load(CHECKPOINTS / f"anchor-published-{gamma}") for gamma in (0.8, 0.5))
    flow = attention.analyze(large)
    assert flow.pattern == "symmetric"
    few, many = condensation.analyze(small), condensation.analyze(large)
    assert 3 <= few.directions <= 5
    assert few.opposite_share > 0.2  # an anti-parallel block
    assert (many.directions, many.groups) == (0, 200)
    keys = large.params["embed.W_E"][40:80].double()
    spread = torch.linalg.svdvals(keys - keys.mean(0)).square()
    assert (spread / spread.sum())[:2].tolist() == pytest.approx([0.0457, 0.0432], abs=1e-3)
