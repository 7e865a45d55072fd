"""Geometry against vectors placed by hand and models whose solution is known."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interp.anchor import boxes, geometry
from interp.subject import Subject
from interp.weights import projection
from tasks.base import UserError
from tasks.families.anchor import Anchor, AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.constructed import composer, mirror, pizza

TASK = AnchorComposition(key_low=20, key_high=39, sequence_length=5, d_vocab=64, split_modulus=7)
SAME_SECOND = "v, same second anchor"


@pytest.fixture(scope="module")
def composes() -> geometry.GeometryResult:
    return geometry.analyze(Subject.of(*composer(TASK), TASK))


@pytest.fixture(scope="module")
def mirrors() -> geometry.GeometryResult:
    return geometry.analyze(Subject.of(*mirror(TASK), TASK))


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def targets(offsets: list[int], n_keys: int) -> Tensor:
    """One kind per offset: key + offset."""
    return torch.tensor(offsets).unsqueeze(1) + torch.arange(n_keys)


@pytest.mark.slow
def test_a_model_that_composes_is_inferential_and_one_that_mirrors_symmetric(composes, mirrors):
    assert composes.verdict == "inferential"
    assert mirrors.verdict == "symmetric"


@pytest.mark.slow
@pytest.mark.parametrize("build", [composer, mirror])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_weights_are_undetermined(build, seed):
    random = Subject.of(*build(TASK), TASK).randomized(seed)
    assert geometry.analyze(random).verdict == "undetermined"


def test_the_model_that_composes_holds_the_first_maps_value_at_the_first_anchor():
    found = geometry.vectors(Subject.of(*composer(TASK), TASK))
    values = torch.tensor(sorted({anchor(x) for anchor in TASK.anchors for x in TASK.keys.tolist()}))
    held = values[found.u[..., : len(values)].argmax(-1)]
    expected = torch.stack([torch.from_numpy(anchor(TASK.keys)) for anchor in TASK.anchors])
    assert (held == expected).all()
    assert (found.u_at_key[..., : len(values)] == 0).all()


def test_plain_cosines_of_the_model_that_composes_are_those_worked_by_hand(composes):
    u = composes.model.boxes["u"]  # value and anchor, both one-hot: half is shared where the values agree
    assert (u.inside, u.outside, u.contrast.value) == pytest.approx((0.5, 0, 0.5))
    found = geometry.vectors(Subject.of(*composer(TASK), TASK))
    v = boxes.directions(found.v[:, :3, 1])  # (1,2), (2,2), (3,2)
    contrast = boxes.box_contrast(v, targets([6, 2, -1], 20))
    # seven parts, eight where the key stands so that the last position follows an anchor: every second draw
    assert contrast.inside == pytest.approx((6 / 7 + 7 / 8) / 2)
    assert contrast.sided.value == pytest.approx((1 / 7 + 1 / 8) / 2)


def test_centred_cosines_show_what_the_thresholds_are_taken_from(composes, mirrors):
    assert composes.model.boxes["u, centred"].sided.value == pytest.approx(1 / 1.75, abs=0.02)
    assert composes.model.boxes[SAME_SECOND].sided.value == pytest.approx(0.40, abs=0.02)
    assert composes.model.boxes["v, centred"].sided.value == pytest.approx(0.40 * 36 / 172, abs=0.02)
    for name in ("u", "u, centred", "v", "v, centred", SAME_SECOND):
        assert mirrors.model.boxes[name].contrast.value == pytest.approx(0, abs=1e-6)
        assert mirrors.model.boxes[name].sided.value == pytest.approx(0, abs=1e-6)


def test_each_condition_of_the_symmetric_verdict_is_needed(composes, mirrors):
    table, random = mirrors.model, mirrors.control
    assert geometry.solution(table, random) == "symmetric"
    assert geometry.solution(table, table) == "undetermined"  # random weights pass, too
    first, last, box = table.first_layer, table.last_layer, composes.model.boxes["v, same second anchor"]
    for changed in (
        {"key_in_u": 0.11},
        {"first_layer": replace(first, overlap=0.51)},
        {"first_layer": replace(first, pair=0.79)},
        {"last_layer": replace(last, key=0.09)},
        {"boxes": table.boxes | {SAME_SECOND: box}},
        {"boxes": table.boxes | {"u, centred": replace(box, sided=replace(box.sided, value=0.1, high=0.26))}},
    ):
        assert geometry.solution(replace(table, **changed), random) == "undetermined", changed


def test_each_condition_of_the_inferential_verdict_is_needed(composes):
    model, random = composes.model, composes.control
    assert geometry.solution(model, random) == "inferential"
    assert geometry.solution(model, model) == "undetermined"
    for name, least in (("u, centred", 0.25), (SAME_SECOND, 0.20)):
        box = model.boxes[name]
        for changed in ({"value": least - 0.01}, {"low": random.boxes[name].sided.value - 0.01, "method": "bootstrap"}):
            boxes = model.boxes | {name: replace(box, sided=replace(box.sided, **changed))}
            assert geometry.solution(replace(model, boxes=boxes), random) == "undetermined", (name, changed)


def test_nothing_is_composed_where_the_key_stands(composes):
    assert composes.model.boxes["u at the key, centred"].sided.value == pytest.approx(0, abs=1e-12)


def test_the_symmetric_table_holds_the_unordered_pair_first_and_the_key_later(composes, mirrors):
    first, last = mirrors.model.first_layer, mirrors.model.last_layer
    assert (first.pair, first.order, first.key, first.overlap) == pytest.approx((1, 0, 0, 0), abs=1e-9)
    assert last.key == pytest.approx(0.35, abs=0.02)
    assert last.overlap == pytest.approx(0, abs=1e-9)
    assert mirrors.model.key_in_u == 0
    assert composes.model.key_in_u == pytest.approx(1 / 1.75, abs=0.02)  # the value, beside the anchor's 1 − 1/4
    assert math.isnan(composes.model.first_layer.overlap)  # neither key nor anchors are there yet
    assert composes.model.last_layer.overlap > 0.9


def test_random_weights_of_the_same_shape_have_no_boxes(composes):
    for name, contrast in composes.control.boxes.items():
        assert abs(contrast.sided.value) < 0.05, name


@pytest.mark.slow
def test_a_model_that_knows_the_exceptions_composes_too():
    assert geometry.analyze(Subject.of(*composer(TASK, exceptions=True), TASK)).verdict == "inferential"


def test_cosines_are_averaged_over_draws_and_a_vector_of_zeros_has_none():
    vectors = torch.tensor([[[[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]], [[[1.0, 1.0], [5.0, 5.0], [0.0, 0.0]]]])
    rows = boxes.directions(vectors)[0]
    by_hand = torch.tensor([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]], dtype=torch.float64)
    assert torch.allclose(rows @ rows.T, by_hand)


def test_centring_removes_what_all_vectors_of_a_draw_share():
    vectors = gaussian(2, 3, 4, 5)
    moved = vectors + 10 * gaussian(2, 1, 1, 5, seed=1)
    centred = boxes.directions(vectors, centred=True)
    assert torch.allclose(boxes.directions(moved, centred=True), centred)
    assert not torch.allclose(boxes.directions(moved), centred, atol=0.1)


def test_vectors_named_by_their_target_have_cosine_one_in_boxes_and_none_outside():
    aims = targets([0, 1], 5)
    found = boxes.box_contrast(torch.eye(6, dtype=torch.float64)[aims], aims)
    assert (found.inside, found.outside, found.contrast.value, found.sided.value) == (1, 0, 1, 1)
    assert found.contrast.n == 8  # x with x − 1 and back
    assert found.sided.n == 6  # of these, those with a key on the other side
    assert found.contrast.n_units == 5


def test_keys_that_are_alike_because_they_are_near_pass_the_plain_contrast_and_not_the_sided_one():
    angle = 0.1 * torch.arange(30, dtype=torch.float64)
    near = torch.stack([angle.cos(), angle.sin()], dim=1).expand(2, -1, -1)
    found = boxes.box_contrast(near, targets([0, 3], 30))
    assert found.contrast.value > 0.3
    assert found.contrast.low > 0
    assert found.sided.value == pytest.approx(0, abs=1e-12)


def test_kinds_that_are_alike_whatever_the_key_make_no_contrast():
    kinds = torch.tensor([[1.0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    found = boxes.box_contrast(kinds.unsqueeze(1).expand(-1, 6, -1), targets([0, 1, 4], 6))
    assert found.inside > 0.3
    assert found.contrast.value == pytest.approx(0, abs=1e-12)
    assert found.sided.value == pytest.approx(0, abs=1e-12)
    assert found.contrast.low < 0 < found.contrast.high


def test_a_key_is_not_compared_with_itself():
    names = torch.eye(6, dtype=torch.float64).expand(2, -1, -1)
    found = boxes.box_contrast(names, targets([3, 3], 6))  # like (a, b) and (b, a)
    assert math.isnan(found.contrast.value)
    assert found.contrast.n == 0


def test_only_the_kinds_asked_for_are_compared():
    aims = targets([0, 1, 2], 8)
    rows = torch.eye(10, dtype=torch.float64)[aims]
    rows[2] = torch.eye(10, dtype=torch.float64)[:8]  # the third kind is named by its key
    together = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert boxes.box_contrast(rows, aims, together).inside == 1
    assert boxes.box_contrast(rows, aims).inside < 0.6


def test_the_interval_resamples_keys_and_covers_no_contrast_where_there_is_none():
    missed = 0
    for seed in range(40):
        rows = torch.nn.functional.normalize(gaussian(3, 20, 8, seed=seed), dim=-1)
        contrast = boxes.box_contrast(rows, targets([0, 2, 5], 20)).contrast
        missed += not contrast.low < 0 < contrast.high
    assert missed <= 6  # 2 expected; more than 6 of 40 has probability 0.003


def test_a_sum_of_anchors_loses_their_order_and_two_places_keep_it():
    one = torch.eye(2, dtype=torch.float64)
    first, second = one[:, None].expand(2, 2, 2), one.expand(2, 2, 2)
    added = boxes.contents((first + second)[None, :, :, None].expand(-1, -1, -1, 3, -1))
    assert (added.pair, added.order, added.key, added.overlap) == pytest.approx((1, 0, 0, 0))
    kept = boxes.contents(torch.cat([first, second], -1)[None, :, :, None].expand(-1, -1, -1, 3, -1))
    assert (kept.pair, kept.order, kept.key) == pytest.approx((0.5, 0.5, 0))
    assert kept.overlap == pytest.approx(2 / ((4 * math.sqrt(2) + 2) / 5))


def test_an_average_of_key_and_anchors_is_no_symmetric_table():
    anchors, keys = torch.eye(84, dtype=torch.float64)[:4], torch.eye(84, dtype=torch.float64)[4:]
    average = (anchors[:, None, None] + anchors[:, None] + keys) / 3
    found = boxes.contents(average.unsqueeze(0))
    share = 1.5 / (1.5 + 79 / 80)
    assert (found.pair, found.key, found.overlap) == pytest.approx((share, 1 - share, 0))
    assert found.pair < geometry.PAIR_FIRST - 0.15


def test_the_first_components_of_a_line_and_of_noise_are_known():
    line = torch.arange(5.0).unsqueeze(1) * torch.tensor([[3.0, 4.0]]) + 7
    found = projection.principal_components(line)
    assert torch.allclose(found.explained, torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found.coordinates[:, 0].abs(), torch.tensor([10.0, 5, 0, 5, 10], dtype=torch.float64))
    explained = torch.stack([projection.principal_components(gaussian(40, 400, seed=s)).explained for s in range(5)])
    assert explained.mean(0).tolist() == pytest.approx([0.043, 0.041], abs=0.001)
    assert explained.mean(0).tolist() == pytest.approx([0.0457, 0.0432], abs=0.004)  # published, large initial weights


def test_covariance_eigenvalues_equal_those_worked_by_hand():
    rows = torch.tensor([[2.0, 1.0], [0, 1], [1, 3], [1, -1]])
    assert projection.covariance_eigenvalues(rows).tolist() == pytest.approx([2, 0.5])


def test_the_order_score_is_the_larger_rank_correlation():
    values = torch.tensor([5, 6, 7])
    assert projection.order_score(torch.tensor([[1.0], [3.0], [2.0]]), values) == pytest.approx(0.5)
    assert projection.order_score(torch.tensor([[1.0, -1.0], [3.0, -7.0], [2.0, -9.0]]), values) == pytest.approx(1)
    assert projection.order_score(torch.zeros(3, 2), values) == 0
    ties = torch.tensor([5, 5, 6, 9])  # ranks 1.5, 1.5, 3, 4
    assert projection.order_score(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), ties) == pytest.approx(math.sqrt(0.9))


@pytest.mark.slow
def test_the_order_score_of_ties_is_scipys():
    from scipy.stats import rankdata

    coordinates, values = (4 * gaussian(30, 1)).round(), gaussian(30, seed=1).round()
    ranks = torch.from_numpy(rankdata(torch.stack([coordinates[:, 0], values]), axis=1))
    expected = abs(float(torch.corrcoef(ranks)[0, 1]))
    assert projection.order_score(coordinates, values) == pytest.approx(expected)
    assert len(values.unique()) < 10


def test_step_scores_of_residues_equal_those_worked_by_hand():
    rows = torch.eye(3)[torch.arange(6) % 3]  # 3 of 15 pairs are equal
    assert projection.step_scores(rows).tolist() == pytest.approx([-0.2, -0.2, 0.8, -0.2, -0.2])


@pytest.mark.parametrize("step", [3, 4])
def test_arithmetic_sequences_are_found_by_their_step(step):
    rows = torch.eye(step, 30, dtype=torch.float64)[torch.arange(72) % step] + 0.1 * gaussian(72, 30)
    found = projection.embedding_order(rows)
    assert found.arithmetic_steps == tuple(range(step, 10, step))
    assert found.period == step
    assert found.order < 0.5


def test_a_step_beside_a_higher_one_is_no_arithmetic_step():
    angle = math.pi / 4 * torch.arange(72, dtype=torch.float64)
    found = projection.embedding_order(torch.stack([angle.cos(), angle.sin()], 1))
    assert found.step_scores[6] == pytest.approx(math.sqrt(0.5), abs=0.02)  # of step 7, far above shuffled tokens
    assert found.arithmetic_steps == (8,)


def test_numbers_in_order_have_no_arithmetic_steps_and_shuffled_ones_no_order():
    angle = math.pi / 72 * torch.arange(72, dtype=torch.float64)
    rows = torch.cat([torch.stack([angle.cos(), angle.sin()], 1), 0.01 * gaussian(72, 30)], 1)
    found = projection.embedding_order(rows)
    assert found.order > 0.99
    assert found.order_p_value == 1 / (1 + projection.N_PERMUTATIONS)
    assert found.arithmetic_steps == ()
    shuffled = projection.embedding_order(rows[torch.randperm(72, generator=torch.Generator().manual_seed(1))])
    assert shuffled.order < 0.4
    assert shuffled.order_p_value > 0.05
    assert max(shuffled.step_scores) < shuffled.shuffled_step_score


@pytest.mark.slow
def test_the_t_sne_map_keeps_clusters_apart_and_is_the_same_each_time():
    rows = torch.cat([gaussian(20, 10), gaussian(20, 10, seed=1) + 20])
    shown = projection.tsne(rows)
    assert torch.equal(shown, projection.tsne(rows))
    near = torch.cdist(shown, shown)
    assert near[:20, :20].max() < near[:20, 20:].min()


@pytest.mark.slow
def test_eigenvalues_of_all_rows_can_be_asked_for():
    subject = Subject.of(*mirror(TASK), TASK)
    few, all_rows = geometry.analyze(subject, n_draws=1), geometry.analyze(subject, n_draws=1, all_rows=True)
    assert len(few.model.covariance_eigenvalues) == 24
    assert len(all_rows.model.covariance_eigenvalues) == 64


@pytest.mark.slow
def test_other_anchors_than_the_published_ones_can_be_looked_at():
    task = AnchorComposition(
        anchors=(Anchor(offset=1), Anchor(offset=3)), relabelled=(), held_out=((2, 1),), key_low=20, key_high=29,
        sequence_length=4, d_vocab=40, split_modulus=7,
    )  # fmt: skip
    result = geometry.analyze(Subject.of(*composer(task), task))
    assert result.shown_boxes == (((1, 1), (1, 2), 2), ((1, 1), (2, 2), 4))
    assert geometry.figures(result)["u"].data[0].x[0] == "20 with 1"


def test_other_tasks_are_refused():
    modular = ModularArithmetic(p=13)
    with pytest.raises(UserError, match="expected a model of AnchorComposition"):
        geometry.analyze(Subject.of(*pizza(modular, (1, 3)), modular))


@pytest.mark.slow
def test_the_map_of_v_has_one_pair_of_pairs_below_the_diagonal_and_another_above():
    random = Subject.of(*composer(TASK), TASK).randomized(5)
    result, v = geometry.analyze(random), geometry.vectors(random).v
    x, y = (result.shown_keys[i] - TASK.key_low for i in (1, 8))

    def cosine(first: Tensor, second: Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=1).mean())

    assert float(result.v_map[8, 1]) == pytest.approx(cosine(v[:, 2, 2, y], v[:, 1, 1, x]))
    assert float(result.v_map[1, 8]) == pytest.approx(cosine(v[:, 0, 1, x], v[:, 0, 2, y]))
    assert result.v_map.diagonal().isnan().all()


def test_the_figures_frame_equal_targets(composes):
    made = geometry.figures(composes)
    assert list(made) == ["v", "u", "contrasts", "anchor map", "embedding", "steps"]
    v = made["v"]
    assert composes.shown_boxes == (((3, 3), (2, 2), 6), ((1, 3), (1, 2), 3))
    frames = {(int(shape.y0 + 0.5), int(shape.x0 + 0.5)) for shape in v.layout.shapes}
    assert (6, 0) in frames
    assert (0, 3) in frames
    assert len(frames) == 5 + 8
    u, n = made["u"], len(composes.shown_keys)
    cosines = torch.tensor(u.data[0].z)
    for shape in u.layout.shapes:
        row, column = int(shape.y0 + 0.5), int(shape.x0 + 0.5)
        assert cosines[row, column] == 0.5
        first, second = (TASK.anchors[i // n](composes.shown_keys[i % n]) for i in (row, column))
        assert first == second
    assert len(made["anchor map"].data) == 16
