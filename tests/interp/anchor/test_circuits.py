"""Circuits behind cuts, against models whose solution was built in and numbers worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch

from interp.anchor import circuits
from interp.anchor.cutting import Edge, Skip, cut_off, edits
from interp.statistics import Interval
from interp.subject import Subject
from interp.weights import projection
from tasks.base import UserError
from tasks.families.anchor import Anchor, AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.constructed import composer, mirror, pizza
from tasks.models.transformer import shapes

TASK = AnchorComposition(key_low=20, key_high=39, sequence_length=5, d_vocab=64, split_modulus=7)
KEY, FIRST, SECOND, LAST = 1, 2, 3, 4


@pytest.fixture(scope="module")
def composes() -> circuits.CircuitsResult:
    return circuits.analyze(Subject.of(*composer(TASK), TASK))


@pytest.fixture(scope="module")
def mirrors() -> circuits.CircuitsResult:
    return circuits.analyze(Subject.of(*mirror(TASK), TASK))


def random_subject(task: AnchorComposition = TASK, **changes) -> Subject:
    """A model with random weights in double precision."""
    architecture = {
        "n_layers": 2, "d_model": 12, "n_heads": 2, "d_head": 4, "n_ctx": 6, "d_vocab": 64, "d_mlp": 16,
    }  # fmt: skip
    config = TransformerConfig(**(architecture | changes))
    rng = torch.Generator().manual_seed(0)
    params = {
        name: torch.randn(shape, generator=rng, dtype=torch.float64) for name, shape in shapes(config).items()
    }  # fmt: skip
    return Subject.of(config, params, task)


def sequences(position: int, tokens: range) -> torch.Tensor:
    """One sequence with the key, (3,4) and noise, and each of these tokens at one position."""
    inputs = torch.tensor([[25, 30, 3, 4, 33]]).repeat(len(tokens), 1)
    inputs[:, position] = torch.tensor(tokens)
    return inputs


def spread(subject: Subject, position: int, cuts, tokens: range, **options) -> float:
    """How far the logits move, at most, while one token changes."""
    made = edits(cuts, subject.config, TASK.n_ctx, **options)
    logits = subject.logits(sequences(position, tokens), made)
    assert bool(logits.isfinite().all())
    return float((logits - logits[0]).abs().max())


ARCHITECTURES = [
    {},
    {"normalization": "post"},
    {"normalization": "pre", "attention_bias": True},
    {"d_mlp": None, "normalization": "post"},
    {"causal": False},
    {"attention_mix": 0.5},
    {"n_layers": 1},
    {"n_layers": 3, "normalization": "post"},
]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("position", [0, KEY])
def test_after_cut_a_the_logits_do_not_change_with_the_key(architecture, position) -> None:
    subject = random_subject(**architecture)
    assert spread(subject, position, (), range(20, 40)) > 0.1
    assert spread(subject, position, cut_off(position, subject.config.n_layers, 5), range(20, 40)) < 1e-12


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_after_cut_b_the_logits_do_not_change_with_the_second_anchor(architecture) -> None:
    subject = random_subject(**architecture)
    assert spread(subject, SECOND, (), range(1, 5)) > 0.1
    assert spread(subject, SECOND, cut_off(SECOND, subject.config.n_layers, 5), range(1, 5)) < 1e-12


@pytest.mark.parametrize("position", [KEY, SECOND])
@pytest.mark.parametrize("normalization", ["none", "pre", "post"])
def test_what_is_not_cut_off_still_reaches_the_answer(position, normalization) -> None:
    subject = random_subject(normalization=normalization)
    cuts = cut_off(position, 2, 5)
    for other in {0, KEY, FIRST, SECOND} - {position}:
        assert spread(subject, other, cuts, range(20, 40)) > 0.01


def test_every_edge_to_another_position_is_needed() -> None:
    subject = random_subject(causal=False)
    cuts = cut_off(KEY, 2, 5)
    needed = [cut for cut in cuts if isinstance(cut, Edge) and cut.query != KEY]
    assert len(needed) == 5
    for left in needed:
        assert spread(subject, KEY, [cut for cut in cuts if cut != left], range(20, 40)) > 0.01


def test_behind_the_softmax_the_cut_token_still_acts_on_the_others() -> None:
    assert spread(random_subject(), KEY, cut_off(KEY, 2, 5), range(20, 40), after_softmax=True) > 0.01


def test_masked_scores_share_the_lost_weight_and_weights_set_to_zero_do_not() -> None:
    subject = random_subject()
    inputs, name = sequences(KEY, range(20, 40)), "blocks.0.attn.hook_pattern"
    _, whole = subject.activations(inputs, [name])
    cut = [Edge(0, KEY, LAST)]
    for after_softmax, total in ((False, 1.0), (True, 1 - whole[name][:, :, LAST, KEY])):
        made = edits(cut, subject.config, 5, after_softmax=after_softmax)
        _, kept = subject.activations(inputs, [name], made)
        torch.testing.assert_close(kept[name][:, :, LAST].sum(-1), torch.ones(20, 2).double() * total)
        assert float(kept[name][:, :, LAST, KEY].abs().max()) == 0
        torch.testing.assert_close(kept[name][:, :, :LAST], whole[name][:, :, :LAST])


@pytest.mark.parametrize("after_softmax", [False, True])
@pytest.mark.parametrize("attention_mix", [1.0, 0.5])
def test_a_query_left_without_keys_takes_nothing(after_softmax, attention_mix) -> None:
    subject = random_subject(attention_mix=attention_mix)
    made = edits([Edge(0, 0, 0)], subject.config, 5, after_softmax=after_softmax)
    logits, kept = subject.activations(sequences(KEY, range(20, 40)), ["blocks.0.attn.hook_z"], made)
    assert bool(logits.isfinite().all())
    assert float(kept["blocks.0.attn.hook_z"][:, 0].abs().max()) == 0
    assert float(kept["blocks.0.attn.hook_z"][:, 1:].abs().min()) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES[:4], ids=str)
def test_a_cut_skip_leaves_what_attention_brought_at_its_position_only(architecture) -> None:
    subject = random_subject(**architecture)
    names = [f"blocks.0.hook_{part}" for part in ("attn_out", "resid_mid", "resid_pre")]
    made = edits([Skip(0, FIRST), Skip(0, KEY)], subject.config, 5)
    _, kept = subject.activations(sequences(KEY, range(20, 40)), names, made)
    brought, mid, before = (kept[name] for name in names)
    assert torch.equal(mid[:, [KEY, FIRST]], brought[:, [KEY, FIRST]])
    others = [0, SECOND, LAST]
    assert torch.equal(mid[:, others], (before + brought)[:, others])


@pytest.mark.parametrize("cut", [Edge(2, 0, 1), Edge(0, 5, 1), Edge(0, 0, 5), Edge(0, -1, 1), Skip(0, 5), Skip(-1, 0)])
def test_an_edge_that_does_not_exist_is_refused(cut) -> None:
    with pytest.raises(UserError, match="expected layers below 2 and positions below 5"):
        edits([cut], random_subject().config, 5)


def test_cutting_off_means_all_edges_before_the_last_layer_and_one_in_it() -> None:
    assert cut_off(1, 2, 3) == (Edge(0, 1, 0), Edge(0, 1, 1), Edge(0, 1, 2), Skip(0, 1), Edge(1, 1, 2))
    assert cut_off(0, 1, 3) == (Edge(0, 0, 2),)


def test_distances_of_orders_are_those_worked_out_by_hand() -> None:
    logits = torch.tensor([[[0.0], [1.0], [10.0], [13.0]], [[5.0], [5.0], [5.0], [7.0]]])
    mirrored, apart = circuits.order_distances(logits, [(1, 2), (2, 1), (1, 3), (3, 1)])
    assert mirrored.tolist() == [2.0, 1.0]  # (1 + 3)/2 and (0 + 2)/2
    assert apart.tolist() == [11.0, 1.0]  # (10 + 13 + 9 + 12)/4 and (0 + 2 + 0 + 2)/4
    assert circuits.ratio_of_means(mirrored, apart).value == pytest.approx(3 / 12)


def test_a_double_anchor_is_no_mirror_of_itself() -> None:
    mirrored, apart = circuits.order_distances(torch.tensor([[[0.0], [1.0], [10.0]]]), [(1, 2), (2, 1), (3, 3)])
    assert (mirrored.item(), apart.item()) == (1.0, 9.5)


def test_a_ratio_of_means_has_an_interval_that_knows_both_vary_together() -> None:
    below = torch.arange(1.0, 41.0)
    proportional = circuits.ratio_of_means(0.3 * below, below)
    assert proportional.value == pytest.approx(0.3)
    assert not proportional.high - proportional.low > 1e-6  # NaN where all values are the same
    loose = circuits.ratio_of_means(0.3 * below.flip(0), below)
    assert loose.low < 0.3 < loose.high
    assert circuits.ratio_of_means(below, torch.zeros(40)) is None


def test_the_interval_of_a_ratio_resamples_units() -> None:
    above, below, units = torch.arange(1.0, 41.0), torch.full((40,), 50.0), torch.arange(40) // 10
    assert circuits.ratio_of_means(above, below, units).n_units == 4


def test_block_means_are_those_worked_out_by_hand() -> None:
    rows = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    inside, outside = circuits.block_means(circuits.logit_cosines(rows), torch.tensor([50, 50, 51, 51]))
    half = math.sqrt(0.5)
    assert inside.tolist()[0] == pytest.approx([1.0, half])
    assert outside.tolist()[0] == pytest.approx([half / 2, half / 2])


def test_logits_of_zero_point_nowhere() -> None:
    cosine = circuits.logit_cosines(torch.tensor([[[0.0, 0.0], [3.0, 4.0]]]))
    assert cosine.tolist() == [[[0.0, 0.0], [0.0, pytest.approx(1.0)]]]


def test_the_silhouette_is_that_worked_out_by_hand() -> None:
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    worked_out = [1 - 1 / 10.5, 1 - 1 / 9.5, 1 - 1 / 9.5, 1 - 1 / 10.5]
    assert projection.silhouette(points, [0, 0, 1, 1]) == pytest.approx(sum(worked_out) / 4)


def test_a_model_that_composes_keeps_the_intermediate_value(composes) -> None:
    assert composes.verdict == "inferential"
    assert composes.scores.inside == pytest.approx(1.0)  # equal values, equal logits
    assert composes.contrast > 0.8
    assert composes.scores.outside == pytest.approx(composes.scores.inside - composes.contrast)


def test_the_model_that_composes_has_overlapping_orders_too(composes) -> None:
    assert composes.overlap == 0.0  # it composes on the noise before the anchors, and its maps commute
    assert composes.commutativity.value == 1.0


def test_a_model_that_composes_and_finds_no_token_before_the_anchors_tells_no_pair_apart() -> None:
    result = circuits.analyze(Subject.of(*composer(TASK), TASK), key_position=0, n_sequences=12, n_contexts=2)
    assert result.overlap is None
    assert result.verdict == "inferential"


def test_a_model_that_composes_but_for_exceptions_is_inferential() -> None:
    result = circuits.analyze(Subject.of(*composer(TASK, exceptions=True), TASK), n_sequences=12, n_contexts=2)
    assert result.verdict == "inferential"
    assert result.contrast < 0.7  # an exception of anchor 3 fires without its second anchor
    assert result.placebo.overlap.value > 0.2  # with the key, (3,4) is answered by its exception, (4,3) by the rule
    assert result.commutativity.value == pytest.approx(5 / 6)
    assert result.commutativity_held_out.value == 0.0


def test_a_model_that_mirrors_is_symmetric(mirrors) -> None:
    assert mirrors.verdict == "symmetric"
    assert mirrors.overlap == 0.0
    assert mirrors.scores.inside == 0.0  # the first anchor, read twice: another answer for each
    assert mirrors.contrast < 0.0
    assert mirrors.commutativity.value == mirrors.commutativity_held_out.value == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("build", [composer, mirror])
def test_random_weights_are_undetermined(build, seed) -> None:
    found = circuits.analyze(Subject.of(*build(TASK), TASK).randomized(100 + seed))
    assert found.verdict == "undetermined"
    assert abs(found.contrast) < 0.05
    assert found.overlap > 0.5


def test_intervals_resample_keys_and_intermediate_values(composes) -> None:
    assert (composes.scores.overlap.n, composes.scores.overlap.n_units) == (48, 20)
    assert (composes.scores.contrast.n, composes.scores.contrast.n_units) == (8 * 7, 7)
    assert (composes.commutativity.n, composes.commutativity.n_units) == (48 * 6, 20)
    assert (composes.commutativity_held_out.n, composes.commutativity_held_out.n_units) == (48, 20)


def test_the_control_beside_a_score_is_the_one_nearest_to_it(composes) -> None:
    assert len(composes.controls) == 3
    assert composes.control_overlap == min(control.overlap.value for control in composes.controls)
    assert composes.control_contrast == max(control.contrast.value for control in composes.controls)
    assert composes.controls[0].overlap.value != composes.controls[1].overlap.value


def test_the_key_stands_at_the_third_place_where_there_is_room(composes) -> None:
    assert composes.key_position == 1
    task = replace(TASK, sequence_length=9)
    result = circuits.analyze(random_subject(task, n_ctx=9), n_sequences=2, n_contexts=1)
    assert (result.key_position, result.placebo_position) == (2, 0)


def test_the_silhouettes_label_by_set_and_by_order() -> None:
    result = circuits.analyze(random_subject(), n_sequences=4, n_contexts=2)
    points = result.logits.flatten(0, 1)
    ordered = [10 * a + b for a, b in result.pairs] * 4
    unordered = [10 * min(pair) + max(pair) for pair in result.pairs] * 4
    assert result.scores.silhouette_ordered == pytest.approx(projection.silhouette(points, ordered))
    assert result.scores.silhouette_unordered == pytest.approx(projection.silhouette(points, unordered))
    assert result.scores.silhouette_ordered != pytest.approx(result.scores.silhouette_unordered)


@pytest.mark.slow
def test_the_options_reach_the_cuts_and_the_sequences() -> None:
    def found(**options) -> circuits.CircuitsResult:
        return circuits.analyze(random_subject(), n_sequences=4, n_contexts=2, **options)

    first, again, behind, other = found(), found(), found(after_softmax=True), found(seed=1)
    assert torch.equal(first.logits, again.logits)
    assert not torch.allclose(first.logits, behind.logits)
    assert not torch.allclose(first.cosine, behind.cosine)
    assert not torch.allclose(first.logits, other.logits)
    assert found(control_seed=1).controls[0].overlap.value == first.controls[1].overlap.value


def test_the_placebo_leaves_both_models_their_answers(composes, mirrors) -> None:
    for result in (composes, mirrors):
        assert result.placebo_position == 0
        assert result.placebo.overlap.value == 0.0
        assert result.placebo.contrast.value == pytest.approx(1.0)


def test_without_room_for_noise_there_is_no_placebo() -> None:
    task = replace(TASK, sequence_length=4)
    result = circuits.analyze(Subject.of(*mirror(task), task), n_sequences=12, n_contexts=2)
    assert result.placebo is None
    assert result.placebo_position is None
    assert result.verdict == "symmetric"


def interval(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high, n=10, n_units=10, method="bootstrap")


def scores(overlap: Interval | None, contrast: Interval) -> circuits.CircuitScores:
    return circuits.CircuitScores(
        overlap=overlap, contrast=contrast, silhouette_unordered=0.0, silhouette_ordered=0.0, inside=0.0, outside=0.0
    )


NEAR, FAR, FLAT, BLOCKS = interval(0.1, 0.2), interval(0.8, 0.9), interval(-0.1, 0.1), interval(0.6, 0.9)
RANDOM = scores(FAR, FLAT)


@pytest.mark.parametrize(
    ("found", "control", "commutativity", "expected"),
    [
        (scores(NEAR, BLOCKS), RANDOM, 1.0, "inferential"),
        (scores(FAR, BLOCKS), RANDOM, 0.0, "inferential"),
        (scores(None, BLOCKS), RANDOM, 1.0, "inferential"),
        (scores(NEAR, FLAT), RANDOM, 1.0, "symmetric"),
        (scores(NEAR, FLAT), RANDOM, 0.49, "undetermined"),
        (scores(FAR, FLAT), RANDOM, 1.0, "undetermined"),
        (scores(None, FLAT), RANDOM, 1.0, "undetermined"),
        (scores(NEAR, interval(0.1, 0.3)), RANDOM, 1.0, "undetermined"),
        (scores(NEAR, interval(0.4, 0.9)), RANDOM, 1.0, "undetermined"),
        (scores(interval(0.4, 0.6), FLAT), scores(interval(1.5, 1.7), FLAT), 1.0, "undetermined"),
        (scores(NEAR, FLAT), scores(interval(0.2, 0.4), FLAT), 1.0, "undetermined"),
        (scores(NEAR, FLAT), scores(None, FLAT), 1.0, "symmetric"),
        (scores(NEAR, BLOCKS), scores(FAR, interval(0.2, 0.4)), 1.0, "undetermined"),
    ],
)
def test_the_rule_asks_for_blocks_or_else_for_overlap_beyond_chance(found, control, commutativity, expected) -> None:
    assert circuits.decide(found, [RANDOM, control], commutativity) == expected


def test_without_an_overlap_to_compare_with_nothing_is_symmetric() -> None:
    assert circuits.decide(scores(NEAR, FLAT), [scores(None, FLAT)], 1.0) == "undetermined"


def test_the_intermediate_values_are_reached_by_every_first_anchor(composes) -> None:
    assert composes.values == tuple(t for t in range(25, 32) for _ in range(4))  # 20 ≤ t − 5 and t + 8 ≤ 39
    wide = AnchorComposition(sequence_length=4)
    rows = circuits._rows(wide)
    assert sorted(set(rows[:, 0].tolist())) == list(range(53, 63))  # ten from the middle of 25 … 91
    assert all(wide.anchors[a - 1](x) == t for t, x, a in rows.tolist())


def test_anchors_that_multiply_have_intermediate_values_where_all_of_them_meet() -> None:
    anchors = (Anchor(offset=0, multiplier=2), Anchor(offset=5), Anchor(offset=10))
    task = replace(TASK, anchors=anchors, relabelled=(), held_out=(), d_vocab=200)
    rows = circuits._rows(task).tolist()  # 2x is even and at least 40, x + 5 at most 44
    assert rows[:3] == [[40, 20, 1], [40, 35, 2], [40, 30, 3]]
    assert [t for t, _, _ in rows[::3]] == [40, 42, 44]


def test_anchors_without_common_intermediate_values_are_refused() -> None:
    anchors = (Anchor(offset=0, multiplier=2), Anchor(offset=5), Anchor(offset=-2))
    task = replace(TASK, anchors=anchors, relabelled=(), held_out=(), d_vocab=200)
    with pytest.raises(UserError, match="expected at least two intermediate values"):
        circuits.analyze(Subject.of(*composer(task), task))


def test_another_task_or_model_is_refused() -> None:
    modular = ModularArithmetic(p=13)
    with pytest.raises(UserError, match="expected a model of AnchorComposition"):
        circuits.analyze(Subject.of(*pizza(modular, (1, 3)), modular))
    config = MLPConfig(n_ctx=5, d_vocab=64, d_vocab_out=64, d_hidden=(4,), input="one_hot")
    with pytest.raises(UserError, match="expected a transformer"):
        circuits.analyze(Subject.of(config, {}, TASK))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_position": 2}, "expected a key position among 0 … 1, got 2"),
        ({"n_sequences": 1}, "expected at least 2 sequences"),
        ({"n_contexts": 0}, "expected at least 2 sequences and 1 context, got 48 and 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, message) -> None:
    with pytest.raises(UserError, match=message):
        circuits.analyze(random_subject(), **options)


def test_two_anchors_are_too_few() -> None:
    task = replace(TASK, anchors=TASK.anchors[:2], relabelled=(), held_out=())
    with pytest.raises(UserError, match="expected at least 3 anchors"):
        circuits.analyze(Subject.of(*composer(task), task))


def test_the_figures_show_orders_by_colour_and_values_in_blocks(composes, mirrors) -> None:
    made = circuits.figures(mirrors)
    names = [trace.name for trace in made["orders"].data]
    assert names[:2] == ["(1,2)", "(2,1)"]
    assert len(names) == 12
    for order, mirrored in zip(made["orders"].data[::2], made["orders"].data[1::2], strict=True):
        assert list(order.x) == pytest.approx(list(mirrored.x))
    blocks = circuits.figures(composes)["blocks"]
    assert blocks.data[0].z[0][3] == pytest.approx(1.0)  # value 25 by anchors 1 and 4
    assert blocks.data[0].z[0][4] < 0.5  # values 25 and 26
    assert "mean cosine 1.00 inside, 0.10 outside" in blocks.layout.title.subtitle.text.replace("<br>", " ")
    assert "-0.00" not in blocks.layout.title.subtitle.text
    assert list(blocks.layout.xaxis.ticktext) == [str(t) for t in range(25, 32)]
    assert list(blocks.layout.xaxis.tickvals)[:2] == [1.5, 5.5]
