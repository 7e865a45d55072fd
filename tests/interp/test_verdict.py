"""The verdict on models whose solution was built in, and what it says when a condition fails."""

import math
from dataclasses import replace

import pytest

from interp.anchor import counterfactual, interchange
from interp.anchor.relabelling import RelabellingResult
from interp.anchor.verdict import anchor_verdict
from interp.modular import fourier, neuron_waves
from interp.modular.angles import Doubling
from interp.modular.neuron_waves import Interference
from interp.modular.verdict import modular_verdict, perceptron_verdict
from interp.probe import examine
from interp.registry import conclude
from interp.statistics import Interval
from interp.subject import Subject
from tasks.families.anchor import Anchor, AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.models.constructed import clock, composer, lookup_table, mirror, pizza
from tasks.models.parity_network import parity_network, parity_table
from tasks.models.quadratic import circle_network
from tasks.presets import preset
from tasks.training import train

ANCHORS = AnchorComposition(key_low=20, key_high=39, sequence_length=5, d_vocab=64, split_modulus=7)
ADDITION = ModularArithmetic(p=23, train_fraction=0.4)
DOUBLED = Doubling(deviation=1.0, resultant=0.99, permuted_deviation=90.0, permuted_resultant=0.2, p_value=0.001)


def knows_the_exception(task: AnchorComposition):
    return composer(task, exceptions=True)


def anchors(build, task: AnchorComposition = ANCHORS):
    return counterfactual.analyze(Subject.of(*build(task), task))


def test_hand_built_anchor_models_are_called_by_their_names() -> None:
    assert anchor_verdict(anchors(knows_the_exception)).solution == "inferential"
    assert anchor_verdict(anchors(mirror)).solution == "symmetric"


def test_random_weights_are_undetermined() -> None:
    subject = Subject.of(*mirror(ANCHORS), ANCHORS).randomized(0)
    verdict = anchor_verdict(counterfactual.analyze(subject))
    assert verdict.solution == "undetermined"
    assert "seen pairs are not fitted" in verdict.sentence


def test_a_model_that_recites_single_keys_is_memorising() -> None:
    found = anchors(mirror)
    recites = replace(
        found,
        unseen=0.02,
        intervals=replace(
            found.intervals,
            inferential=replace(found.intervals.inferential, value=0.01, low=0.0),
            symmetric=replace(found.intervals.symmetric, value=0.05, low=0.02),
        ),
    )
    assert anchor_verdict(recites).solution == "memorising"


def test_a_share_whose_interval_reaches_too_low_is_undetermined() -> None:
    found = anchors(mirror)
    wide = replace(found.intervals, symmetric=replace(found.intervals.symmetric, value=0.95, low=0.7))
    assert anchor_verdict(replace(found, intervals=wide)).solution == "undetermined"


def test_without_a_pair_that_shares_no_anchor_there_is_no_placebo_and_no_verdict() -> None:
    task = AnchorComposition(
        anchors=(Anchor(offset=5), Anchor(offset=1)),
        relabelled=((1, 2, 9),),
        held_out=((2, 1),),
        key_low=20,
        key_high=39,
        sequence_length=5,
        d_vocab=64,
        split_modulus=7,
    )
    verdict = anchor_verdict(anchors(mirror, task))
    assert verdict.solution == "undetermined"
    assert "there is no placebo" in verdict.sentence


def test_a_table_trained_in_full_has_no_test_set_to_judge_by() -> None:
    task = ModularArithmetic(p=23, train_fraction=1.0)
    subject = Subject.of(*lookup_table(task), task)
    verdict = conclude(subject, {"fourier": fourier.analyze(subject)})
    assert verdict.solution == "undetermined"
    assert "there is no test set" in verdict.sentence


def test_a_placebo_that_answers_alike_forbids_a_verdict() -> None:
    verdict = anchor_verdict(replace(anchors(mirror), placebo=0.2))
    assert verdict.solution == "undetermined"
    assert "without a common anchor" in verdict.sentence


def test_a_task_whose_rules_agree_everywhere_is_undetermined() -> None:
    task = AnchorComposition(
        key_low=20,
        key_high=39,
        sequence_length=5,
        d_vocab=64,
        split_modulus=7,
        relabelled=(),
        held_out=((3, 4), (4, 3)),
    )
    assert "no pair is held out" in anchor_verdict(anchors(mirror, task)).sentence


def test_the_clock_generalises_by_fourier_multiplication() -> None:
    subject = Subject.of(*clock(ADDITION, (2, 3, 5, 9)), ADDITION)
    verdict = modular_verdict(ADDITION, subject.performance, fourier.analyze(subject))
    assert verdict.solution == "generalising by Fourier multiplication"


def test_the_pizza_generalises_but_its_logits_are_no_pure_cosines_of_the_sum() -> None:
    subject = Subject.of(*pizza(ADDITION, (2, 3, 5, 9)), ADDITION)  # they shrink with |cos ω(a−b)/2|
    verdict = modular_verdict(ADDITION, subject.performance, fourier.analyze(subject))
    assert subject.performance["test_accuracy"] == 1.0
    assert verdict.solution == "undetermined"
    assert "no few cosines explain 90%" in verdict.sentence


def test_a_lookup_table_is_memorising() -> None:
    subject = Subject.of(*lookup_table(ADDITION), ADDITION)
    verdict = conclude(subject, {"fourier": fourier.analyze(subject)})
    assert subject.performance["train_accuracy"] == 1.0
    assert verdict.solution == "memorising"


def test_a_table_recited_in_full_is_no_circuit_although_cosines_explain_it() -> None:
    task = ModularArithmetic(p=23, train_fraction=1.0)
    subject = Subject.of(*lookup_table(task), task)
    found = fourier.analyze(subject)
    assert found.cos_variance > 0.99  # all 11 frequencies are key
    performance = {"train_accuracy": 1.0, "test_accuracy": 1.0, "test_loss": 1e-6}
    assert modular_verdict(task, performance, found).solution == "undetermined"


@pytest.mark.parametrize("n_neurons", [5, 7, 24])
def test_a_perceptron_on_circles_generalises_by_periodic_features(n_neurons) -> None:
    task = ModularArithmetic(p=67, form="pair", unordered=True)
    subject = Subject.of(*circle_network(task, n_neurons), task)
    verdict = conclude(subject, {"neuron_waves": neuron_waves.analyze(subject)})
    assert verdict.solution == "generalising by periodic features"
    assert f"{n_neurons} of {n_neurons} neurons have waves, of frequencies 1" in verdict.sentence


def test_a_perceptron_on_too_few_circles_is_undetermined_although_its_neurons_are_waves() -> None:
    task = ModularArithmetic(p=67, form="pair", unordered=True)
    subject = Subject.of(*circle_network(task, 4), task)
    assert conclude(subject, {"neuron_waves": neuron_waves.analyze(subject)}).solution == "undetermined"


def test_random_weights_of_a_perceptron_are_undetermined() -> None:
    task = ModularArithmetic(p=67, form="pair", unordered=True)
    subject = Subject.of(*circle_network(task, 24), task).randomized(0)
    verdict = conclude(subject, {"neuron_waves": neuron_waves.analyze(subject)})
    assert verdict.solution == "undetermined"
    assert "not fitted" in verdict.sentence


@pytest.mark.parametrize(
    ("changed", "doubt"),
    [
        ({"input_share": 0.89}, "one wave holds too little"),
        ({"output_share": 0.89}, "one wave holds too little"),
        ({"output_share": math.nan}, "one wave holds too little"),
        ({"same_frequency": 0.89}, "neurons read one frequency and write another"),
        ({"doubling": replace(DOUBLED, resultant=0.89)}, "neurons do not write at twice"),
        ({"doubling": replace(DOUBLED, p_value=0.06)}, "neurons do not write at twice"),
        ({"interference": Interference(accuracy=(0.5, 0.98), loss=(1.0, 1.0), margin=(0.0, 0.0))}, "do not answer"),
    ],
)
def test_each_condition_on_waves_is_needed(changed, doubt) -> None:
    task = ModularArithmetic(p=67, form="pair", unordered=True)
    subject = Subject.of(*circle_network(task, 24), task)
    found = replace(neuron_waves.analyze(subject), **changed)
    assert f"it generalises, but {doubt}" in perceptron_verdict(task, subject.performance, found).sentence.replace(
        "the neurons with waves ", ""
    )


def test_exchanged_output_angles_are_no_periodic_features() -> None:
    task = ModularArithmetic(p=67, form="pair", unordered=True)
    subject = Subject.of(*circle_network(task, 24), task)
    exchanged = {**subject.params, "unembed.W_out": subject.params["unembed.W_out"].roll(5, 0)}
    found = neuron_waves.analyze(subject.with_params(exchanged))
    verdict = perceptron_verdict(task, subject.performance, found)
    assert "do not write at twice the angle" in verdict.sentence


def test_a_perceptron_that_guesses_what_it_was_not_shown_is_memorising() -> None:
    task = ModularArithmetic(p=67, form="pair", unordered=True)
    subject = Subject.of(*circle_network(task, 5), task)
    performance = {"train_accuracy": 1.0, "test_accuracy": 0.01, "test_loss": 90.0}
    assert perceptron_verdict(task, performance, neuron_waves.analyze(subject)).solution == "memorising"


def test_generalising_without_the_fourier_analysis_says_what_is_missing() -> None:
    subject = Subject.of(*clock(ADDITION, (2, 3, 5, 9)), ADDITION)
    verdict = conclude(subject, {})
    assert verdict.solution == "undetermined"
    assert "how was not asked" in verdict.sentence


def test_the_sentence_carries_its_numbers() -> None:
    sentence = anchor_verdict(anchors(mirror)).sentence
    for part in ("symmetric:", "(4,3)", "100.0% (95 % CI", "seen pairs 100.0%", "placebo 0.0%", "random weights"):
        assert part in sentence


def test_a_task_without_a_verdict_of_its_own_gets_the_generic_one() -> None:
    small = preset("identity", "tiny")
    run = train(small.task, small.model, small.init, replace(small.training, steps=1))[0]
    report = examine(Subject.load(run))
    assert report.verdict.solution == "does not fit"
    assert report.verdict.sentence.startswith("does not fit: accuracy on train ")
    assert report.verdict.sentence.endswith(
        "How was not asked: no verdict of its own is written for the family identity."
    )
    assert report.subject.performance["train_loss"] == pytest.approx(run.metrics[-1]["train_loss"])


def test_a_parity_network_generalises_by_its_bits_and_a_table_of_the_training_set_memorises() -> None:
    task = SparseParity(n_bits=12, k=2, n_train=60, n_test=400)
    known = examine(Subject.of(*parity_network(task), task)).verdict
    assert known.solution == "generalising by k bits"
    assert known.sentence.startswith("generalising by 2 bits: train accuracy 100.0%, test accuracy 100.0%; Walsh")
    assert examine(Subject.of(*parity_table(task), task)).verdict.solution == "memorising"


def relabelled(call: str) -> RelabellingResult:
    interval = Interval(value=1.0, low=0.97, high=1.0, n=10, n_units=10, method="wilson")
    return RelabellingResult(
        mirror_call=call,
        step=400,
        pair=(1, 2),
        mirror=(2, 1),
        placebo_pair=(3, 3),
        offset=10,
        before=1.0,
        learnt=1.0,
        mirror_moved=1.0 if call == "follows" else 0.0,
        mirror_stayed=0.0,
        placebo_moved=0.0,
        placebo_stayed=0.5,
        moved_interval=interval,
        stayed_interval=interval,
        by_step={},
    )


@pytest.mark.parametrize(
    ("built", "patched", "call", "agree"),
    [
        (mirror, mirror, "follows", True),
        (knows_the_exception, composer, "does not follow", True),
        (mirror, mirror, "does not follow", False),
        (knows_the_exception, composer, "follows", False),
        (mirror, composer, "follows", False),
        (knows_the_exception, mirror, "does not follow", False),
        (mirror, mirror, "undetermined", True),
    ],
)
def test_the_verdict_says_what_the_other_depths_found_and_whether_they_agree(built, patched, call, agree) -> None:
    swaps = anchors(built)
    route = interchange.analyze(Subject.of(*patched(ANCHORS), ANCHORS), n_sequences=60)
    alone = anchor_verdict(swaps)
    verdict = anchor_verdict(swaps, route, relabelled(call))
    assert verdict.solution == alone.solution != "undetermined"
    assert verdict.sentence.startswith(alone.sentence)
    found = {
        "inferential": "put together between layers, 100.0% of held-out pairs are composed and 0.0% mirrored; random",
        "symmetric": f"key carried by the anchors {route.carried:.1%}, pair formed apart from the key 100.0%; random",
    }[route.route]
    assert f"Interchange: {route.route} ({found} weights " in verdict.sentence
    assert f"Relabelling (1,2): (2,1) {call} (" in verdict.sentence
    assert verdict.sentence.endswith("The depths disagree.") != agree


@pytest.mark.slow
def test_where_rule_and_route_differ_the_rule_is_what_patching_says() -> None:
    swaps, patched = anchors(knows_the_exception), Subject.of(*mirror(ANCHORS), ANCHORS)
    route = interchange.analyze(patched, n_sequences=60)
    assert route.route == "symmetric"
    verdict = anchor_verdict(swaps, replace(route, rule="inferential"))
    assert "Interchange: inferential (put together between layers, " in verdict.sentence
    assert "disagree" not in verdict.sentence
    assert anchor_verdict(swaps, route).sentence.endswith("The depths disagree.")
