"""How a model composes anchors: it infers, takes the symmetric short cut, or memorises."""

from collections.abc import Mapping
from typing import Any

from interp.anchor.counterfactual import CounterfactualResult
from interp.anchor.interchange import InterchangeResult
from interp.anchor.relabelling import RelabellingResult
from interp.statistics import Interval
from interp.subject import Subject
from interp.thresholds import FITTED, FOLLOWS, FOLLOWS_LOW, NEITHER, PLACEBO, RECITES, followed
from interp.verdict import Verdict

NEEDS = ("counterfactual", "interchange", "relabelling")
SOLUTIONS = ("inferential", "symmetric", "memorising", "undetermined")
RULE = (
    f"a rule is followed if it explains ≥ {FOLLOWS} of the answers on the held-out pair with lower bound "
    f"≥ {FOLLOWS_LOW}, placebo ≤ {PLACEBO} and seen pairs ≥ {FITTED}; memorising: seen ≥ {FITTED}, unseen keys "
    f"≤ {RECITES} and neither rule above {NEITHER}"
)


def verdict(subject: Subject, results: Mapping[str, Any]) -> Verdict:
    """The verdict that the results allow; *undetermined* where the analysis that decides was not run."""
    swaps = results.get("counterfactual")
    if not isinstance(swaps, CounterfactualResult):
        sentence = "undetermined: the analysis counterfactual was not run."
        return Verdict(solution="undetermined", sentence=sentence, rule=RULE)
    return anchor_verdict(swaps, results.get("interchange"), results.get("relabelling"))


def anchor_verdict(
    result: CounterfactualResult,
    interchange: InterchangeResult | None = None,
    relabelling: RelabellingResult | None = None,
) -> Verdict:
    """Inferential, symmetric or memorising, by ``RULE``: the answers on the held-out pair decide. What
    interventions on activations and on the trained model say stands behind, and whether it agrees."""
    if result.held_out is None or result.intervals is None:
        why = "undetermined: no pair is held out on which composing and mirroring give different answers."
        return Verdict(solution="undetermined", sentence=why, rule=RULE)
    if result.placebo is None:
        why = "undetermined: every trained pair shares an anchor with the held-out one, so there is no placebo."
        return Verdict(solution="undetermined", sentence=why, rule=RULE)
    shares = {"inferential": result.intervals.inferential, "symmetric": result.intervals.symmetric}
    fitted = result.seen >= FITTED
    quiet = result.placebo <= PLACEBO
    solution = "undetermined"
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
    return Verdict(solution=solution, sentence=sentence, rule=RULE)


def _other_depths(solution, interchange: InterchangeResult | None, relabelling: RelabellingResult | None) -> str:
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


def _share(interval: Interval) -> str:
    """A share with its interval, in per cent."""
    return f"{interval.value:.1%} (95 % CI {100 * interval.low:.1f}–{100 * interval.high:.1f})"
