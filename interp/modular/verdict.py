"""How a model does arithmetic mod p: by Fourier multiplication, by periodic features, or from a table."""

import math
from collections.abc import Mapping
from typing import Any

from interp.modular.fourier import FourierResult
from interp.modular.neuron_waves import NeuronWavesResult
from interp.subject import Subject
from interp.thresholds import FITTED, PLACEBO, RECITES
from interp.verdict import Verdict
from tasks.families.modular import ModularArithmetic

NEEDS = ("fourier", "neuron_waves")
SOLUTIONS = (
    "generalising by Fourier multiplication",
    "generalising by periodic features",
    "memorising",
    "undetermined",
)
GUESSING = 0.99
"""Share of the loss of guessing, ln p, from which a loss is no better than guessing."""
FEW = 0.25
"""Largest number of key frequencies, as a share of p: a recited table has power at all of the p/2 there are."""
COSINES = 0.90
"""Share of the logits' variance in cos ω(a+b−c) of the key frequencies that Fourier multiplication must explain."""
WAVES = 0.90
"""Share of a neuron's weights that one wave must hold, on both sides of it; share of neurons that write the frequency
they read; and resultant of the doubled angles."""
FOURIER_RULE = (
    f"Fourier multiplication: test accuracy ≥ {FITTED}, cosines of the key frequencies, at most {FEW} p of them, "
    f"≥ {COSINES} of the logits' variance, and those of random weights ≤ {PLACEBO}; memorising: train accuracy "
    f"≥ {FITTED}, test accuracy ≤ {RECITES} and test loss no better than that of guessing, ln p"
)
PERIODIC_RULE = (
    f"periodic features: train and test accuracy ≥ {FITTED}, the neurons with waves answer ≥ {FITTED} of all pairs by "
    f"themselves, one wave holds ≥ {WAVES} of what they read and one ≥ {WAVES} of what they write, of the same "
    f"frequency in ≥ {WAVES} of them, and they write at twice the angle they read at (resultant ≥ {WAVES}; exchanged "
    f"angles p ≤ {PLACEBO}); memorising: as for transformers"
)
RULE = f"of transformers, {FOURIER_RULE}; of perceptrons, {PERIODIC_RULE}"


def verdict(subject: Subject, results: Mapping[str, Any]) -> Verdict:
    """By periodic features where the neurons' waves were looked at, else by Fourier multiplication."""
    task = subject.task
    if not isinstance(task, ModularArithmetic):
        raise TypeError(f"expected modular arithmetic, got {type(task).__name__}")
    waves = results.get("neuron_waves")
    if isinstance(waves, NeuronWavesResult):
        return perceptron_verdict(task, subject.performance, waves)
    return modular_verdict(task, subject.performance, results.get("fourier"))


def modular_verdict(task: ModularArithmetic, performance: Mapping[str, float], result: FourierResult | None) -> Verdict:
    """Fourier multiplication or memorising, by ``FOURIER_RULE``."""
    train, test = performance["train_accuracy"], performance["test_accuracy"]
    numbers = (
        f"train accuracy {train:.1%}, test accuracy {test:.1%}, test loss {performance['test_loss']:.2g} "
        f"(guessing: {math.log(task.p):.2f})"
    )
    found = ""
    if result is not None:
        found = "; no key frequencies"
        if result.key_frequencies:
            keys, sign = ", ".join(map(str, result.key_frequencies)), "−" if task.operation == "subtract" else "+"
            found = (
                f"; key frequencies {keys}, whose cosines of a{sign}b−c explain {result.cos_variance:.1%} of the "
                f"logits' variance (random weights {result.control_cos_variance:.2%})"
            )
        if result.neurons_explained_share is not None:
            found += (
                f"; {result.neurons_explained_share:.1%} of neurons follow one frequency "
                f"(random weights {result.control_neurons_explained_share:.1%})"
            )
    if _recites(task, performance):
        solution = "memorising"
    elif (
        test >= FITTED
        and result is not None
        and result.cos_variance >= COSINES
        and len(result.key_frequencies) <= FEW * task.p
        and result.control_cos_variance <= PLACEBO
    ):
        solution = "generalising by Fourier multiplication"
    else:
        solution = "undetermined"
        if unlearned := _unlearned(performance):
            doubt = unlearned
        elif result is None:
            doubt = "it generalises, how was not asked (fourier was not run or does not apply)"
        elif result.control_cos_variance > PLACEBO:
            doubt = "the cosines explain random weights, too"
        else:
            doubt = f"it generalises, but no few cosines explain {COSINES:.0%} of its logits"
        numbers = f"{doubt}; {numbers}"
    return Verdict(solution=solution, sentence=f"{solution}: {numbers}{found}.", rule=FOURIER_RULE)


def perceptron_verdict(task: ModularArithmetic, performance: Mapping[str, float], result: NeuronWavesResult) -> Verdict:
    """Periodic features or memorising, by ``PERIODIC_RULE``."""
    waves = {
        "one wave holds too little of the neurons' weights": result.input_share >= WAVES
        and result.output_share >= WAVES,
        "neurons read one frequency and write another": result.same_frequency >= WAVES,
        "neurons do not write at twice the angle they read at": result.doubling.resultant >= WAVES
        and result.doubling.p_value <= PLACEBO,
        "the neurons with waves do not answer by themselves": bool(result.frequencies)
        and result.interference.accuracy[-1] >= FITTED,
    }
    failed = next((doubt for doubt, holds in waves.items() if not holds), None)
    doubt = _unlearned(performance) or (failed and f"it generalises, but {failed}")
    solution = "undetermined" if doubt else "generalising by periodic features"
    if _recites(task, performance):
        solution, doubt = "memorising", None
    frequencies = ", ".join(map(str, result.frequencies)) or "none"
    numbers = (
        f"train accuracy {performance['train_accuracy']:.1%}, test accuracy {performance['test_accuracy']:.1%}, test "
        f"loss {performance['test_loss']:.2g} (guessing: {math.log(task.p):.2f}); {result.n_counted} of "
        f"{result.n_neurons} neurons have waves, of frequencies {frequencies}, which hold {result.input_share:.1%} of "
        f"what they read and {result.output_share:.1%} of what they write (random weights "
        f"{result.control_input_share:.1%}, {result.control_output_share:.1%}), {result.same_frequency:.1%} with one "
        f"frequency on both sides; output angles are twice the input angles but for {result.doubling.deviation:.1f}° "
        f"(resultant {result.doubling.resultant:.2f}; exchanged {result.doubling.permuted_deviation:.1f}°, p "
        f"{result.doubling.p_value:.3f}); these neurons by themselves answer "
        f"{(result.interference.accuracy or (math.nan,))[-1]:.1%} of all pairs"
    )
    return Verdict(
        solution=solution, sentence=f"{solution}: {f'{doubt}; ' if doubt else ''}{numbers}.", rule=PERIODIC_RULE
    )


def _recites(task: ModularArithmetic, performance: Mapping[str, float]) -> bool:
    """Whether a model of modular arithmetic knows what it was shown and guesses the rest."""
    fitted, unseen = performance["train_accuracy"] >= FITTED, performance["test_accuracy"] <= RECITES
    return fitted and unseen and performance["test_loss"] >= GUESSING * math.log(task.p)


def _unlearned(performance: Mapping[str, float]) -> str | None:
    """Why it cannot be said how a model generalises: it does not."""
    if performance["train_accuracy"] < FITTED:
        return f"the training set is not fitted (below {FITTED:.0%})"
    if math.isnan(performance["test_accuracy"]):
        return "there is no test set: every pair was trained on"
    return "it neither generalises nor recites" if performance["test_accuracy"] < FITTED else None
