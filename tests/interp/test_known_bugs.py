"""Mistakes that public code of progress measures makes or invites, each where it matters: what the wrong way gives, and
that this code gives something else."""

import math

import pytest
import torch
from torch import Tensor

from interp import waves
from interp.modular import fourier, readout, restricted
from interp.modular.addition import addition_table
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.models.constructed import pizza
from tasks.training.objective import cross_entropy

P = 13


def pairs(p: int) -> tuple[Tensor, Tensor]:
    a, b = torch.meshgrid(torch.arange(p), torch.arange(p), indexing="ij")
    return a.flatten(), b.flatten()


A, B = pairs(P)
TARGETS = (A + B) % P
TRAIN = torch.rand(P * P, generator=torch.Generator().manual_seed(0)) < 0.3


def loss(logits: Tensor, where: Tensor | None = None) -> float:
    losses = cross_entropy(logits, TARGETS)
    return float((losses if where is None else losses[where]).mean())


def test_the_last_frequency_is_not_skipped():
    logits = restricted.cosine_logits(P, {2: 6.0, 6: 6.0})
    variance = fourier.logit_variance(logits, P)
    one_short = tuple(k for k in range(1, P // 2) if variance[k - 1] > 0.005)  # 1 … (p−1)/2 − 1
    assert one_short == (2,)
    assert fourier.key_frequencies(variance) == (2, 6)
    wrong, right = (loss(restricted.restricted_logits(logits, keys)) for keys in (one_short, (2, 6)))
    assert wrong == pytest.approx(0.773, abs=1e-3)
    assert right == pytest.approx(0.00543, abs=1e-5)
    assert right == pytest.approx(loss(logits))


def test_a_frequency_and_its_mirror_image_are_counted_once():
    logits = restricted.cosine_logits(P, {2: 1.0})
    power = torch.fft.fft(logits[:, 0].reshape(P, P), dim=0).abs().pow(2).sum(1)
    assert (torch.nonzero(power > 1e-9).flatten()).tolist() == [2, P - 2]  # both, of one cosine
    twice = 2 * restricted.trig_part(logits, P, [2])  # their directions are the same
    assert float(twice.pow(2).sum() / logits.pow(2).sum()) == pytest.approx(4)
    assert loss(twice) < 0.8 * loss(restricted.restricted_logits(logits, [2]))
    assert restricted.trig_share(logits, P, [2]) == pytest.approx(1)
    with pytest.raises(UserError, match="k and p − k are the same"):
        restricted.trig_part(logits, P, [2, P - 2])


def test_a_loss_of_high_precision_is_computed_in_it():
    logits = torch.zeros(P * P, P)
    logits[torch.arange(P * P), TARGETS] = 25.0
    in_name_only = -logits.log_softmax(-1).gather(1, TARGETS[:, None]).double().mean()
    assert float(in_name_only) == 0.0
    assert loss(logits) == pytest.approx(math.log1p(12 * math.exp(-25)), rel=1e-6)
    assert loss(logits) == pytest.approx(1.667e-10, rel=1e-3)


def test_projections_use_the_whole_grid_and_only_the_mean_of_losses_the_split():
    logits = restricted.cosine_logits(P, {2: 6.0}) + 8 * torch.cos(A + 2.0 * B).unsqueeze(1) * torch.cos(
        torch.arange(P, dtype=torch.float64)
    )
    D = restricted.key_directions(P, [2])[:, TRAIN]
    on_split = logits[TRAIN] - D.T @ (D @ logits[TRAIN])  # not even a projection: D's rows have norms of about .3
    assert float((D @ D.T - torch.eye(2)).abs().max()) > 0.5
    wrong = float(cross_entropy(on_split, TARGETS[TRAIN]).mean())
    right = loss(restricted.excluded_logits(logits, [2]), TRAIN)
    assert abs(wrong - right) > 0.5


def test_directions_of_the_sum_hold_no_difference():
    difference = torch.cos(2 * torch.pi * 2 / P * (A - B)).double().unsqueeze(1).expand(-1, P)
    block = waves.spectrum_2d(difference, P)[1:, 1:][2:4, 2:4]  # the whole 2 × 2 block of frequency 2
    assert float(block.pow(2).sum() / difference.pow(2).sum()) == pytest.approx(1)
    assert restricted.trig_share(difference, P, [2]) < 1e-12


def test_another_code_base_s_order_of_sine_and_cosine_is_another_basis():
    k, logits = 2, restricted.cosine_logits(P, {2: 1.0})
    F, (cosine, _) = waves.fourier_basis(P), restricted.key_directions(P, [k])

    def explained(wave: Tensor) -> float:
        s = logits @ wave
        return float((cosine @ s) ** 2 / s.pow(2).sum())

    assert explained(F[2 * k]) < 1e-20  # const, sin, cos, …: there the cosine has an even index, here the sine
    assert explained(F[2 * k - 1]) == pytest.approx(1)
    assert float(readout.wave_fits(logits, torch.eye(P), [k]).cosine) == pytest.approx(1)


def test_the_mean_term_can_decide_a_restricted_loss():
    bias = torch.linspace(0, 9, P, dtype=torch.float64)
    held_back = restricted.cosine_logits(P, {2: 4.0, 5: 4.0}) - bias
    logits = held_back + bias - held_back.mean(0)  # a model whose waves need no bias, and one added
    logits = logits + bias
    with_mean = loss(restricted.restricted_logits(logits, [2, 5]))
    without = loss(restricted.restricted_logits(logits, [2, 5], with_mean=False))
    assert with_mean > 10 * without
    assert loss(logits) == pytest.approx(with_mean)


def test_a_frequency_of_the_embedding_that_the_logits_do_not_use_is_no_key():
    task = ModularArithmetic(p=31)
    config, params = pizza(task, (3, 4, 11))
    W_E = torch.zeros(32, config.d_model + 2)
    x = torch.arange(31)
    W_E[:31, :-2] = params["embed.W_E"][:31]
    W_E[:31, -2:] = 3 * torch.stack([torch.cos(2 * torch.pi * 8 * x / 31), torch.sin(2 * torch.pi * 8 * x / 31)], 1)
    power = fourier.power_spectrum(W_E[:31])
    by_norm = (torch.nonzero(power.sqrt() > power.sqrt().max() / 4).flatten() + 1).tolist()
    logits = addition_table(Subject.of(config, params, task)).logits
    assert 8 in by_norm
    assert fourier.key_frequencies(fourier.logit_variance(logits, 31)) == (3, 4, 11)


def test_the_residual_of_the_read_out_is_of_the_squared_norm():
    W = torch.zeros(4, P, dtype=torch.float64)
    W[:2], W[2] = 10 * readout.output_waves(P, [2]), readout.output_waves(P, [3])[0]
    P_K = readout.output_waves(P, [2])
    of_norms = float((W - W @ P_K.T @ P_K).norm() / W.norm())
    assert of_norms == pytest.approx(0.0705, abs=1e-4)
    assert readout.readout_residual(W, [2]) == pytest.approx(1 / 201)


def test_dependent_entries_of_a_representation_span_no_more_than_their_rank():
    angle = 2 * torch.pi * 2 / P * torch.arange(P, dtype=torch.float64)
    entries = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1)  # of a rotation matrix
    Q = torch.linalg.qr(entries).Q  # four columns of a matrix of rank two: two are arbitrary
    W = torch.randn(400, P, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    arbitrary = float((W @ Q).pow(2).sum() / W.pow(2).sum())
    assert arbitrary == pytest.approx(4 / P, abs=0.03)
    assert 1 - readout.readout_residual(W, [2]) == pytest.approx(2 / P, abs=0.03)


def test_the_logit_of_the_equals_sign_is_dropped():
    task = ModularArithmetic(p=31)
    config, params = pizza(task, (3, 4, 11))
    W_U = torch.cat([params["unembed.W_U"], params["unembed.W_U"][:, :1] * 2], dim=1)
    config = type(config)(**{**config.__dict__, "d_vocab_out": 32})
    subject = Subject.of(config, {**params, "unembed.W_U": W_U}, task)
    table = addition_table(subject)
    with_it = float(cross_entropy(subject.logits(task.all_inputs()), task.all_targets()).mean())
    assert table.logits.shape == (31**2, 31)
    assert with_it > 0.05 > 1e-3 > float(cross_entropy(table.logits, table.targets).mean())
