"""How a model solves its task, in one sentence with the numbers that carry it.

Each solution has its rule written down once, here. A model that meets none is *undetermined*, and the sentence says
which condition failed. Thresholds are conventions of this toolkit, fixed before the shipped models were trained; those
that other analyses share are in ``interp.thresholds``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from interp.counterfactual import CounterfactualResult
from interp.fourier import FourierResult
from interp.interchange import InterchangeResult
from interp.neuron_waves import NeuronWavesResult
from interp.parity import PARITY_RULE, ParityResult
from interp.relabelling import RelabellingResult
from interp.result import Result
from interp.subject import Subject
from interp.thresholds import FITTED, FOLLOWS, FOLLOWS_LOW, PLACEBO, followed
from tasks.anchor import AnchorComposition
from tasks.modular import ModularArithmetic

Solution = Literal[
    "inferential",
    "symmetric",
    "memorising",
    "generalising by Fourier multiplication",
    "generalising by periodic features",
    "generalising by k bits",
    "undetermined",
]

RECITES = 0.50
"""Accuracy on unseen data at or below which a fitted model recites."""
NEITHER = 0.20
"""Share of a candidate rule up to which a reciting model does not follow it."""
GUESSING = 0.99
"""Share of the loss of guessing, ln p, from which a loss is no better than guessing."""
FEW = 0.25
"""Largest number of key frequencies, as a share of p: a recited table has power at all of the p/2 there are."""
COSINES = 0.90
"""Share of the logits' variance in cos ω(a+b−c) of the key frequencies that Fourier multiplication must explain."""


WAVES = 0.90
"""Share of a neuron's weights that one wave must hold, on both sides of it; share of neurons that write the frequency
they read; and resultant of the doubled angles."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict(Result):
    """``solution``, the ``sentence`` that states it with its evidence, and the ``rule`` it was decided by."""

    solution: Solution
    sentence: str
    rule: str


ANCHOR_RULE = (
    f"a rule is followed if it explains ≥ {FOLLOWS} of the answers on the held-out pair with lower bound "
    f"≥ {FOLLOWS_LOW}, placebo ≤ {PLACEBO} and seen pairs ≥ {FITTED}; memorising: seen ≥ {FITTED}, unseen keys "
    f"≤ {RECITES} and neither rule above {NEITHER}"
)
MODULAR_RULE = (
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


def conclude(subject: Subject, results: Mapping[str, Any]) -> Verdict:
    """The verdict that the results allow; *undetermined* where the analysis that decides was not run."""
    swaps, fourier = results.get("counterfactual"), results.get("fourier")
    if isinstance(swaps, CounterfactualResult):
        return anchor_verdict(swaps, results.get("interchange"), results.get("relabelling"))
    if isinstance(subject.task, ModularArithmetic):
        if isinstance(waves := results.get("neuron_waves"), NeuronWavesResult):
            return perceptron_verdict(subject.task, subject.performance, waves)
        return modular_verdict(subject.task, subject.performance, fourier)
    if isinstance(parity := results.get("parity"), ParityResult):
        return parity_verdict(parity)
    if not isinstance(subject.task, AnchorComposition):
        sentence = f"undetermined: no solution has a rule yet for tasks of the family {subject.task.family}."
        return Verdict(solution="undetermined", sentence=sentence, rule="none")
    return Verdict(
        solution="undetermined", sentence="undetermined: the analysis counterfactual was not run.", rule=ANCHOR_RULE
    )


def anchor_verdict(
    result: CounterfactualResult,
    interchange: InterchangeResult | None = None,
    relabelling: RelabellingResult | None = None,
) -> Verdict:
    """Inferential, symmetric or memorising, by ``ANCHOR_RULE``: the answers on the held-out pair decide. What
    interventions on activations and on the trained model say stands behind, and whether it agrees."""
    if result.held_out is None or result.intervals is None:
        why = "undetermined: no pair is held out on which composing and mirroring give different answers."
        return Verdict(solution="undetermined", sentence=why, rule=ANCHOR_RULE)
    if result.placebo is None:
        why = "undetermined: every trained pair shares an anchor with the held-out one, so there is no placebo."
        return Verdict(solution="undetermined", sentence=why, rule=ANCHOR_RULE)
    shares = {"inferential": result.intervals.inferential, "symmetric": result.intervals.symmetric}
    fitted = result.seen >= FITTED
    quiet = result.placebo <= PLACEBO
    solution: Solution = "undetermined"
    if fitted and result.unseen <= RECITES and all(interval.value <= NEITHER for interval in shares.values()):
        solution = "memorising"
    for rule, interval in shares.items():
        if fitted and quiet and followed(interval):
            solution = "inferential" if rule == "inferential" else "symmetric"
    pair = "({},{})".format(*result.held_out)
    numbers = (
        f"on the held-out pair {pair}, {_share(shares['inferential'])} of answers compose the anchors, "
        f"{_share(shares['symmetric'])} copy the mirrored pair{_apart(result)}; seen pairs {result.seen:.1%} "
        f"(lowest {result.seen_min:.1%}), unseen keys {result.unseen:.1%}; placebo {result.placebo:.1%}; "
        f"random weights {result.control_inferential:.1%} and {result.control_symmetric:.1%}"
    )
    if solution == "undetermined":
        numbers = f"{_anchor_doubt(result, fitted, quiet)}; {numbers}"
    sentence = f"{solution}: {numbers}.{_other_depths(solution, interchange, relabelling)}"
    return Verdict(solution=solution, sentence=sentence, rule=ANCHOR_RULE)


def _other_depths(
    solution: Solution, interchange: InterchangeResult | None, relabelling: RelabellingResult | None
) -> str:
    """What the other two depths of the counterfactual say, and whether all agree."""
    said, text = [], ""
    if interchange is not None:
        decided = interchange.rule != "undetermined"
        said.append(interchange.rule if decided else interchange.route)
        text += f" Interchange: {said[0]} ({_put_together(interchange) if decided else _routes(interchange)})."
    if relabelling is not None:
        said.append(
            {"follows": "symmetric", "does not follow": "not symmetric"}.get(relabelling.mirror_call, "undetermined")
        )
        pair, mirror = ("({},{})".format(*p) for p in (relabelling.pair, relabelling.mirror))
        text += (
            f" Relabelling {pair}: {mirror} {relabelling.mirror_call} ({relabelling.mirror_moved:.1%} take the new "
            f"answer, {relabelling.mirror_stayed:.1%} keep theirs; placebo {relabelling.placebo_moved:.1%} and "
            f"{relabelling.placebo_stayed:.1%})."
        )
    agree = {"undetermined", solution, *(() if solution in ("symmetric", "undetermined") else ("not symmetric",))}
    if not agree.issuperset(said):
        text += " The depths disagree."
    return text


def _put_together(result: InterchangeResult) -> str:
    """How the held-out pair is answered where it is put together inside the model."""
    return (
        f"put together between layers, {result.composed:.1%} of held-out pairs are composed and {result.mirrored:.1%} "
        f"mirrored; random weights {result.control_composed:.1%} and {result.control_mirrored:.1%}"
    )


def _routes(result: InterchangeResult) -> str:
    """Where the key is when the pair is known."""
    return (
        f"key carried by the anchors {result.carried:.1%}, pair formed apart from the key {result.paired:.1%}; random "
        f"weights {result.control_carried:.1%} and {result.control_paired:.1%}"
    )


def _apart(result: CounterfactualResult) -> str:
    """How far the two answers lie apart, where that is the same for every key."""
    return "" if result.symmetric_deviation is None else f" (its answer lies {result.symmetric_deviation:+d} away)"


def _anchor_doubt(result: CounterfactualResult, fitted: bool, quiet: bool) -> str:
    """Which condition failed."""
    if not fitted:
        return f"seen pairs are not fitted (below {FITTED:.0%})"
    if not quiet:
        return f"pairs without a common anchor give the held-out pair's answer too (above {PLACEBO:.0%})"
    return f"no rule explains {FOLLOWS:.0%} of the answers"


def modular_verdict(task: ModularArithmetic, performance: Mapping[str, float], result: FourierResult | None) -> Verdict:
    """Fourier multiplication or memorising, by ``MODULAR_RULE``."""
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
        solution: Solution = "memorising"
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
    return Verdict(solution=solution, sentence=f"{solution}: {numbers}{found}.", rule=MODULAR_RULE)


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
    solution: Solution = "undetermined" if doubt else "generalising by periodic features"
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


def parity_verdict(result: ParityResult) -> Verdict:
    """Generalising by k bits or memorising, by ``PARITY_RULE``."""
    said, needed = result.solution.replace("by k bits", f"by {result.k} bits"), result.subnetwork
    sentence = (
        f"{said}: train accuracy {result.train_accuracy:.1%}, test accuracy {result.test_accuracy:.1%}; Walsh "
        f"coefficient of the relevant bits {result.walsh} (random weights {result.control_walsh:.3f}, largest other "
        f"subset {result.largest_other:.3f}); {result.relevant_share:.1%} of the bits' weight mass on them (random "
        f"weights {result.control_relevant_share:.1%}); {needed.size} of {needed.neurons} neurons do the work."
    )
    return Verdict(solution=result.solution, sentence=sentence, rule=PARITY_RULE)


def _share(interval: Any) -> str:
    """A share with its interval, in per cent."""
    return f"{interval.value:.1%} (95 % CI {100 * interval.low:.1f}–{100 * interval.high:.1f})"
