"""Swap tables against models whose solution is known, because it was built in."""

import pytest
import torch

from interp.anchor import counterfactual
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.constructed import composer, mirror, pizza

TASK = AnchorComposition(key_low=20, key_high=39, sequence_length=5, d_vocab=64, split_modulus=7)


@pytest.fixture(scope="module")
def composes() -> counterfactual.CounterfactualResult:
    return counterfactual.analyze(Subject.of(*composer(TASK), TASK))


@pytest.fixture(scope="module")
def mirrors() -> counterfactual.CounterfactualResult:
    return counterfactual.analyze(Subject.of(*mirror(TASK), TASK))


def test_a_model_that_composes_is_inferential_on_the_held_out_pair(composes) -> None:
    assert (composes.held_out, composes.inferential, composes.symmetric, composes.other) == ((4, 3), 1.0, 0.0, 0.0)
    assert composes.deviations == {0: 1.0}
    assert composes.intervals.inferential.low > 0.9  # 54 keys and positions that all agree: Wilson
    assert composes.unseen_intervals.inferential.value == 1.0


def test_a_model_that_mirrors_is_symmetric_on_the_held_out_pair(mirrors) -> None:
    assert (mirrors.inferential, mirrors.symmetric, mirrors.other) == (0.0, 1.0, 0.0)
    assert mirrors.deviations == {4: 1.0}
    assert mirrors.symmetric_deviation == 4


def test_every_trained_pair_is_seen_to_give_its_taught_answer(mirrors) -> None:
    assert mirrors.seen == mirrors.seen_min == mirrors.unseen == 1.0
    table = {row.pair: row for row in mirrors.pairs if row.keys == "seen"}
    assert table[3, 4].role == "relabelled"
    assert table[3, 4].taught.value == 1.0
    assert table[3, 4].shares.inferential.value == 0.0  # it was taught wrong, and learnt it
    assert table[1, 2].shares.inferential.value == table[1, 2].shares.symmetric.value == 1.0  # the rules agree there
    assert len(table) == 16


def test_the_model_that_composes_does_not_know_the_exception_it_was_built_without(composes) -> None:
    taught = {row.pair: row.taught.value for row in composes.pairs if row.keys == "seen"}
    assert taught[3, 4] == composes.seen_min == 0.0
    assert composes.seen == pytest.approx(14 / 15)


def test_the_placebo_asks_pairs_without_a_common_anchor(composes) -> None:
    assert set(composes.placebo_pairs) == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert composes.placebo == 0.0


def test_the_placebo_sees_a_model_that_answers_every_pair_like_the_held_out_one() -> None:
    config, params = composer(AnchorComposition(**{**TASK.__dict__, "anchors": (TASK.anchors[3], TASK.anchors[2]) * 2}))
    fooled = counterfactual.analyze(Subject.of(config, params, TASK))
    assert fooled.placebo == pytest.approx(0.5)  # (1,2) and (2,1) now stand for −8−2, (1,1) and (2,2) do not


def test_random_weights_follow_neither_rule(composes) -> None:
    assert composes.control_inferential < 0.15
    assert composes.control_symmetric < 0.15
    assert composes.control_seen < 0.15


def test_rule_shares_count_units_not_sequences() -> None:
    answers = torch.tensor([1, 1, 1, 1, 2, 2, 3, 3])
    units = torch.arange(8) // 2
    shares = counterfactual.rule_shares(answers, torch.full((8,), 1), torch.full((8,), 2), units)
    assert (shares.inferential.value, shares.symmetric.value, shares.other.value) == (0.5, 0.25, 0.25)
    assert (shares.inferential.n, shares.inferential.n_units) == (8, 4)
    assert shares.inferential.low < 0.5 < shares.inferential.high


def test_the_deviations_are_counted_from_the_answer_by_the_rule() -> None:
    found = counterfactual.deviation_shares(torch.tensor([14, 14, 10, 7]), torch.full((4,), 10))
    assert found == {4: 0.5, 0: 0.25, -3: 0.25}


def test_without_a_relabelled_mirror_nothing_tells_the_rules_apart() -> None:
    task = AnchorComposition(
        key_low=20,
        key_high=39,
        sequence_length=5,
        d_vocab=64,
        split_modulus=7,
        relabelled=(),
        held_out=((3, 4), (4, 3)),
    )
    result = counterfactual.analyze(Subject.of(*composer(task), task))
    assert result.held_out is None
    assert result.inferential is None
    assert result.deviations == {}


def test_another_task_is_refused() -> None:
    task = ModularArithmetic(p=13)
    with pytest.raises(UserError, match="expected a model of AnchorComposition"):
        counterfactual.analyze(Subject.of(*pizza(task, (1, 3)), task))


def test_the_figures_show_the_table_and_the_deviations(mirrors) -> None:
    made = counterfactual.figures(mirrors)
    assert made["table"].data[0].z[3][2] == 0.0  # (4,3) in row 4, column 3
    assert made["table"].data[0].z[0][1] == 1.0
    assert list(made["deviations"].data[0].x) == ["+4"]
    assert list(made["deviations"].data[0].y) == [1.0]
    assert "every answer's deviation" in made["deviations"].layout.title.subtitle.text


def test_the_placebo_is_asked_on_keys_that_were_not_taught(monkeypatch) -> None:
    subject = Subject.of(*composer(TASK, exceptions=True), TASK)
    honest = subject.answers
    unseen = {tuple(combination) for combination in TASK.combinations("unseen").tolist()}

    def slips_on_unseen_keys(inputs):
        answers = honest(inputs)
        for row, tokens in enumerate(inputs.tolist()):
            first = next(at for at, token in enumerate(tokens) if token <= TASK.n_anchors)
            if set(tokens[first : first + 2]) <= {1, 2} and (tokens[first - 1], first - 1) in unseen:
                answers[row] = tokens[first - 1] - 10  # what (4,3) would be by the rule
        return answers

    monkeypatch.setattr(subject, "answers", slips_on_unseen_keys)
    found = counterfactual.analyze(subject)
    assert found.seen == 1.0
    assert found.placebo == 1.0
