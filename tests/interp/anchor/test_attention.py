"""Information flow of models whose flow is known, because it was built in."""

import pytest
import torch

from interp import theme
from interp.anchor import attention
from interp.anchor.roles import ROLES
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.models.constructed import composer, mirror

TASK = AnchorComposition(key_low=20, key_high=39, sequence_length=6, d_vocab=64, split_modulus=7)
SCORES = ("gather_anchors", "fetch_key", "key_to_first", "key_to_second", "collect_anchors")


@pytest.fixture(scope="module")
def composes() -> attention.AttentionResult:
    return attention.analyze(Subject.of(*composer(TASK), TASK))


@pytest.fixture(scope="module")
def mirrors() -> attention.AttentionResult:
    return attention.analyze(Subject.of(*mirror(TASK), TASK))


def test_a_model_that_composes_brings_the_key_to_the_anchors_and_then_collects_them(composes) -> None:
    assert composes.pattern == "inferential"
    for name in ("key_to_first", "key_to_second", "collect_anchors"):
        assert getattr(composes, name) == pytest.approx(1.0, abs=1e-6)
    assert composes.gather_anchors < 0.5


def test_a_model_that_mirrors_gathers_the_anchors_and_then_fetches_the_key(mirrors) -> None:
    assert mirrors.pattern == "symmetric"
    assert mirrors.gather_anchors == pytest.approx(1.0, abs=1e-6)
    assert mirrors.fetch_key == pytest.approx(1.0, abs=1e-6)
    assert mirrors.collect_anchors == pytest.approx(0.0, abs=1e-6)
    first, second = ROLES.index("first anchor"), ROLES.index("second anchor")
    assert mirrors.attention[0, 0, ROLES.index("last"), [first, second]].tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("build", [composer, mirror])
def test_random_weights_show_neither_pattern(build) -> None:
    found = attention.analyze(Subject.of(*build(TASK), TASK).randomized(3), control_seed=4)
    assert found.pattern == "undetermined"


@pytest.mark.parametrize("found", ["composes", "mirrors"])
def test_random_weights_stand_beside_every_score(found, request) -> None:
    result = request.getfixturevalue(found)
    assert all(0 <= getattr(result, f"control_{name}") < 0.5 for name in SCORES)


def test_a_pattern_that_random_weights_show_too_is_no_evidence(monkeypatch) -> None:
    subject = Subject.of(*mirror(TASK), TASK)
    monkeypatch.setattr(Subject, "randomized", lambda self, seed: self)
    assert attention.analyze(subject).pattern == "undetermined"


def test_attention_is_summed_over_attended_places_and_averaged_over_attending_ones() -> None:
    pattern = torch.zeros(1, 1, 6, 6)
    pattern[0, 0, 0, 0] = pattern[0, 0, 1, 1] = 1  # noise, then the key to itself
    pattern[0, 0, 2, :3] = torch.tensor([0.2, 0.5, 0.3])
    pattern[0, 0, 3, 2] = 1
    pattern[0, 0, 4, :5] = torch.tensor([0.1, 0.2, 0.3, 0.0, 0.4])  # noise again
    pattern[0, 0, 5] = torch.tensor([0.25, 0.05, 0.2, 0.1, 0.15, 0.25])
    flow = attention.role_attention(pattern, torch.tensor([1]), TASK)[0, 0]
    noise, key, first, second, last = range(5)
    assert flow[first, key] == pytest.approx(0.5)
    assert flow[first, noise] == pytest.approx(0.2)
    assert flow[last, noise] == pytest.approx(0.4)  # positions 0 and 4
    assert flow[noise, noise] == pytest.approx((1 + 0.5) / 2)
    assert flow[noise, first] == pytest.approx((0 + 0.3) / 2)
    assert flow[second].tolist() == [0, 0, 1, 0, 0]
    assert flow.sum(-1).tolist() == pytest.approx([1.0] * 5)


def test_a_role_without_a_place_has_no_row_and_nobody_attends_to_it() -> None:
    task = AnchorComposition(key_low=20, key_high=39, sequence_length=4, d_vocab=64)
    flow = attention.role_attention(torch.eye(4).expand(2, 1, 4, 4), torch.tensor([0, 0]), task)
    assert flow[:, :, 0].isnan().all()
    assert (flow[:, :, 1:, 0] == 0).all()
    assert attention.analyze(Subject.of(*mirror(task), task)).pattern == "symmetric"


def test_with_several_heads_a_score_takes_one_head_for_all_sequences() -> None:
    edges = torch.zeros(2, 3, 2, 5, 5)  # layer, example, head
    last, key = ROLES.index("last"), ROLES.index("key")
    edges[-1, :, 0, last, key] = torch.tensor([0.9, 0.0, 0.0])
    edges[-1, :, 1, last, key] = torch.tensor([0.4, 0.4, 0.4])
    assert attention.scores(edges)["fetch_key"].tolist() == pytest.approx([0.4, 0.4, 0.4])


def test_intervals_resample_keys_and_positions(mirrors) -> None:
    n = sum(at <= 2 for _, at in TASK.combinations("seen").tolist())
    assert mirrors.intervals.fetch_key.n_units == n
    assert mirrors.intervals.fetch_key.n == 15 * n


def test_one_layer_has_no_flow_of_two_steps() -> None:
    config, params = mirror(TASK)
    kept = {name: value for name, value in params.items() if not name.startswith("blocks.1")}
    from dataclasses import replace

    with pytest.raises(UserError, match="expected a model of at least two layers"):
        attention.analyze(Subject.of(replace(config, n_layers=1), kept, TASK))


def test_the_figures_draw_the_pattern_and_every_layer(composes, mirrors) -> None:
    made = attention.figures(composes)
    assert list(made) == ["flow", *(f"layer {layer}, head {head}" for layer in (1, 2) for head in (1, 2))]
    assert list(attention.figures(mirrors)) == ["flow", "layer 1", "layer 2"]
    drawn = [trace.hovertext for trace in attention.figures(mirrors)["flow"].data if trace.hovertext]
    assert "layer 1: last attends to first anchor, 0.50" in drawn
    assert "layer 2: last attends to key, 1.00" in drawn
    assert not any("layer 2: last attends to first anchor" in text for text in drawn)


def test_the_flow_has_a_colour_for_each_published_pattern(composes, mirrors) -> None:
    def colours(result) -> dict[str, str]:
        edges = [trace for trace in attention.figures(result)["flow"].data if trace.hovertext]
        return {edge.hovertext.rpartition(",")[0]: edge.line.color for edge in edges}

    blue, orange = theme.CATEGORIES[:2]
    assert colours(mirrors)["layer 1: last attends to first anchor"] == orange
    assert colours(mirrors)["layer 2: last attends to key"] == orange
    assert colours(composes)["layer 1: first anchor attends to key"] == blue
    assert colours(composes)["layer 2: last attends to first anchor"] == blue
