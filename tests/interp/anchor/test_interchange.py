"""Interchange interventions on models whose route is known, because it was built in."""

import math
from dataclasses import replace

import pytest
import torch

from interp.anchor import interchange
from interp.anchor.roles import layer_output
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.anchor import AnchorComposition
from tasks.models.config import TransformerConfig
from tasks.models.constructed import composer, mirror
from tasks.models.initialization import Initialization, initialize
from tasks.models.transformer import shapes

pytestmark = pytest.mark.slow
TASK = AnchorComposition(key_low=20, key_high=59, sequence_length=6, d_vocab=84, split_modulus=7)


@pytest.fixture(scope="module")
def composes() -> interchange.InterchangeResult:
    return interchange.analyze(Subject.of(*composer(TASK), TASK), n_sequences=150)


@pytest.fixture(scope="module")
def mirrors() -> interchange.InterchangeResult:
    return interchange.analyze(Subject.of(*mirror(TASK), TASK), n_sequences=150)


def moved(result: interchange.InterchangeResult, change: str, boundary: int, role: str) -> float:
    return next(
        node.moved.value for node in result.nodes if (node.change, node.boundary, node.role) == (change, boundary, role)
    )


def test_in_a_model_that_composes_the_key_has_passed_into_the_anchors(composes) -> None:
    assert composes.route == composes.rule == "inferential"
    assert composes.accuracy == composes.carried == composes.first_anchor_moves == 1.0
    assert composes.paired < 0.05
    assert moved(composes, "key", 1, "key") < 0.05  # the key's own place no longer matters
    assert moved(composes, "key", 1, "first anchor") == 1.0
    assert moved(composes, "second anchor", 1, "second anchor") == 1.0


def test_in_a_model_that_mirrors_the_pair_is_formed_apart_from_the_key(mirrors) -> None:
    assert (mirrors.route, mirrors.rule) == ("symmetric", "undetermined")  # the pair was formed before
    assert mirrors.accuracy == mirrors.paired == 1.0
    assert mirrors.carried < 0.05
    assert moved(mirrors, "key", 1, "key") == 1.0
    assert moved(mirrors, "first anchor", 1, "last") > 0.7  # sources include the taught exception's mirror
    assert moved(mirrors, "first anchor", 1, "first anchor") < 0.3


@pytest.mark.parametrize("result", ["composes", "mirrors"])
def test_at_the_embedding_every_patch_is_the_source_itself(result, request) -> None:
    found = request.getfixturevalue(result)
    for change in ("key", "first anchor", "second anchor"):
        assert moved(found, change, 0, change) == 1.0


@pytest.mark.parametrize("result", ["composes", "mirrors"])
def test_every_control_stays_near_chance(result, request) -> None:
    found = request.getfixturevalue(result)
    for share in (found.noise_moves, found.random_vector, found.arbitrary_labels, found.control_carried):
        assert share < 0.1


def test_a_patched_anchor_answers_the_held_out_pair_by_the_models_own_rule(composes, mirrors) -> None:
    def at(result: interchange.InterchangeResult, change: str, boundary: int) -> interchange.Recombination:
        return next(r for r in result.recombined if (r.change, r.boundary) == (change, boundary))

    for change in ("first anchor", "second anchor"):
        assert at(composes, change, 0).inferential.value == at(mirrors, change, 0).symmetric.value == 1.0
        assert at(composes, change, 1).inferential.value == 1.0
        assert at(mirrors, change, 1).stayed.value == 1.0  # the anchors have left their places
    assert (composes.composed, composes.mirrored) == (1.0, 0.0)
    assert (mirrors.composed, mirrors.mirrored) == (0.0, 0.0)  # at the embedding, which does not count, it mirrors


@pytest.mark.parametrize("build", [composer, mirror])
def test_random_weights_show_no_route(build) -> None:
    found = interchange.analyze(Subject.of(*build(TASK), TASK).randomized(3), n_sequences=60)
    assert found.route == found.rule == "undetermined"


def test_a_route_that_a_control_shows_too_is_no_evidence(monkeypatch) -> None:
    monkeypatch.setattr(Subject, "randomized", lambda self, seed: self)
    assert interchange.analyze(Subject.of(*mirror(TASK), TASK), n_sequences=60).route == "undetermined"
    assert interchange.analyze(Subject.of(*composer(TASK), TASK), n_sequences=60).rule == "undetermined"


def test_without_a_held_out_pair_there_is_no_rule_to_tell() -> None:
    task = replace(TASK, relabelled=(), held_out=())
    found = interchange.analyze(Subject.of(*composer(task), task), n_sequences=60)
    assert (found.rule, found.recombined) == ("undetermined", ())
    assert math.isnan(found.composed)
    assert math.isnan(found.control_mirrored)


@pytest.mark.parametrize("normalization", ["none", "pre", "post"])
def test_patching_every_position_of_a_boundary_gives_the_sources_answers(normalization) -> None:
    config = TransformerConfig(
        n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=24, n_ctx=6, d_vocab=84, normalization=normalization
    )
    subject = Subject.of(config, initialize(shapes(config), config, Initialization(gamma=0.3), 0), TASK)
    base, source = (TASK.grid(pair, "seen").inputs[:40] for pair in ((1, 2), (2, 4)))
    answers, expected = subject.answers(base), subject.answers(source)
    assert not torch.equal(answers, expected)
    for boundary in (0, 1, 2):
        assert torch.equal(interchange.patch(subject, base, source, boundary, range(6)), expected)
        assert torch.equal(interchange.patch(subject, base, source, boundary, []), answers)


def test_a_random_vector_has_the_sources_norm_and_is_the_same_for_the_same_seed(monkeypatch) -> None:
    subject = Subject.of(*mirror(TASK), TASK)
    base, source = (TASK.grid(pair, "seen").inputs[:7] for pair in ((1, 2), (2, 4)))
    seen = []
    original = Subject.logits

    def logits(self, inputs, edits):
        shown = torch.zeros(7, 6, self.config.d_model)
        seen.append(next(iter(edits.values()))(shown)[:, 3])
        return original(self, inputs, edits)

    monkeypatch.setattr(Subject, "logits", logits)
    for _ in range(2):
        interchange.patch(subject, base, source, 1, [3], random_vector=5)
    taken = subject.activations(source, ["blocks.0.hook_resid_post"])[1]["blocks.0.hook_resid_post"][:, 3]
    torch.testing.assert_close(seen[0].norm(dim=-1), taken.norm(dim=-1))
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[0], taken)


def test_transformer_lens_finds_the_same_logits_by_its_own_interchange() -> None:
    tools = pytest.importorskip("transformer_lens.tools.analysis.interchange")
    subject = Subject.of(*composer(TASK), TASK)
    base, source = (TASK.grid(pair, "seen").inputs[::9] for pair in ((1, 2), (2, 4)))
    model, last = subject.model, TASK.answer_position
    name, at = layer_output(subject.config, 0), torch.full((len(base),), 2)

    def answer_logits(tokens):
        return model(tokens)[:, last]

    taken = tools.collect_activations(model, name, source, answer_logits, positions=at)
    whole = tools.SubspaceInterchange(torch.eye(subject.config.d_model))
    theirs = tools.intervened_logits(model, name, whole, base, taken, answer_logits, positions=at)
    assert torch.equal(interchange.patch(subject, base, source, 1, [2]), theirs.argmax(-1))
    assert not torch.equal(theirs.argmax(-1), subject.answers(base))


def test_what_cannot_be_patched_is_refused() -> None:
    subject = Subject.of(*mirror(TASK), TASK)
    tokens = TASK.grid((1, 2), "seen").inputs
    with pytest.raises(UserError, match="expected a boundary between 0 and 2, got 3"):
        interchange.patch(subject, tokens, tokens, 3, [0])


def test_the_figures_show_every_patch_and_the_two_that_decide(mirrors) -> None:
    made = interchange.figures(mirrors)
    assert list(made) == ["nodes", "routes"]
    assert len(made["nodes"].data[0].z) == 6  # three changes at two boundaries
    assert list(made["routes"].data[0].y) == [mirrors.carried, mirrors.paired]
