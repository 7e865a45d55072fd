"""Counterfactual swaps: one pair of anchors was taught wrong; does its mirror follow the rule, or the lie?

The relabelling (3,4): −10 → −6 is the intervention, made on the training data. On the pair that was never shown, (4,3),
the two candidate rules then give different answers: *inferential* composes the single anchors (x − 10), *symmetric*
gives what the mirror was taught (x − 6). Every other pair is asked too: there the rules agree, and the table says how
well it was learnt.

The first held-out pair whose rules differ is judged; all pairs are in the table.

Controls: the placebo asks a pair that shares no anchor with the held-out one whether it, too, follows the held-out
pair's answers; random weights of the same shape are asked the same questions.

Source of the task and of the answer classes: Zhang et al. 2024 (arXiv 2405.05409).
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from interp.result import Result
from interp.statistics import Interval, share
from interp.subject import Subject
from tasks.base import Examples, UserError
from tasks.families.anchor import AnchorComposition, Keys, Pair
from tasks.surroundings import ordinary_torch

if TYPE_CHECKING:
    import plotly.graph_objects as go

N_NOISE = 2
"""Sequences per (key, position), with noise of their own."""
SHOWN_DEVIATIONS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class RuleShares(Result):
    """Shares of answers that follow each candidate rule; where the rules agree, ``symmetric`` repeats ``inferential``.

    ``other`` follows neither. Intervals resample (key, position), not sequences.
    """

    inferential: Interval
    symmetric: Interval
    other: Interval


@dataclass(frozen=True, kw_only=True, eq=False)
class PairAnswers(Result):
    """One row of the swap table: what the model answers for an ordered pair, on one side of the key split.

    ``taught`` is the share that gives the answer training showed (for a held-out pair, the rule's).
    """

    pair: Pair
    role: str
    keys: Keys
    rules_differ: bool
    taught: Interval
    shares: RuleShares


@dataclass(frozen=True, kw_only=True, eq=False)
class CounterfactualResult(Result):
    """What ``analyze`` finds. Shares without a suffix are those of the held-out pair on seen keys.

    ``seen`` and ``seen_min`` are accuracies on trained pairs and seen keys, mean and worst pair; ``unseen`` is the mean
    on keys never trained at that position. ``placebo`` is the larger of the shares of a pair without common anchors
    that give the held-out pair's inferential or symmetric answer on unseen keys. ``deviations`` maps answer −
    inferential answer to its share; ``symmetric_deviation`` is that of the symmetric answer, where it is the same for
    every key. Where no held-out pair tells the rules apart, the numbers about it are ``None``.
    """

    held_out: Pair | None
    inferential: float | None
    symmetric: float | None
    other: float | None
    intervals: RuleShares | None
    unseen_intervals: RuleShares | None
    deviations: dict[int, float]
    symmetric_deviation: int | None
    seen: float
    seen_min: float
    unseen: float
    placebo: float | None
    placebo_pairs: tuple[Pair, ...]
    control_inferential: float | None
    control_symmetric: float | None
    control_seen: float
    pairs: tuple[PairAnswers, ...]


def rule_shares(
    answers: Int[Tensor, " example"],
    inferential: Int[Tensor, " example"],
    symmetric: Int[Tensor, " example"],
    units: Int[Tensor, " example"],
) -> RuleShares:
    """Shares of answers that follow each rule, with intervals over units; ``other`` follows neither.

    inferential + symmetric + other = 1 where the two rules differ on every example.
    """
    follows_rule, follows_mirror = answers == inferential, answers == symmetric
    return RuleShares(
        inferential=share(follows_rule, units),
        symmetric=share(follows_mirror, units),
        other=share(~(follows_rule | follows_mirror), units),
    )


def deviation_shares(answers: Int[Tensor, " example"], inferential: Int[Tensor, " example"]) -> dict[int, float]:
    """Share of each value of answer − inferential answer, the most frequent first.

    >>> deviation_shares(torch.tensor([14, 14, 10]), torch.tensor([10, 10, 10]))
    {4: 0.6666666666666666, 0: 0.3333333333333333}
    """
    counts = Counter((answers - inferential).tolist())
    return {deviation: count / len(answers) for deviation, count in counts.most_common()}


@ordinary_torch()
def analyze(subject: Subject, *, n_noise: int = N_NOISE, control_seed: int = 0) -> CounterfactualResult:
    """The swap table of a model of anchor composition, and what its held-out pair follows.

    Args:
        subject: a model of ``AnchorComposition``.
        n_noise: sequences per (key, position) of every pair.
        control_seed: of the random weights.

    Raises:
        UserError: another task.
    """
    task = subject.task
    if not isinstance(task, AnchorComposition):
        raise UserError(f"expected a model of AnchorComposition, got one of {type(task).__name__}")
    table = [_row(subject, task, pair, keys, n_noise) for pair in task.pairs for keys in ("seen", "unseen")]
    rows = {(row.pair, row.keys): row for row, _ in table}
    control = subject.randomized(control_seed)
    control_rows = [_row(control, task, pair, "seen", n_noise)[0] for pair in task.trained_pairs]
    seen = [rows[pair, "seen"].taught.value for pair in task.trained_pairs]
    unseen = [rows[pair, "unseen"].taught.value for pair in task.trained_pairs]
    held_out = next((pair for pair in task.held_out if task.rules_differ(pair)), None)
    found = None if held_out is None else rows[held_out, "seen"].shares
    beside = None if held_out is None else _row(control, task, held_out, "seen", n_noise)[0].shares
    placebo_pairs = _placebo_pairs(task, held_out)
    deviations: dict[int, float] = {}
    if held_out is not None:
        answers = next(answers for row, answers in table if row.pair == held_out and row.keys == "seen")
        deviations = deviation_shares(answers, task.grid(held_out, "seen", n_noise).rules["inferential"])
    return CounterfactualResult(
        held_out=held_out,
        inferential=None if found is None else found.inferential.value,
        symmetric=None if found is None else found.symmetric.value,
        other=None if found is None else found.other.value,
        intervals=found,
        unseen_intervals=None if held_out is None else rows[held_out, "unseen"].shares,
        deviations=deviations,
        symmetric_deviation=_symmetric_deviation(task, held_out),
        seen=sum(seen) / len(seen),
        seen_min=min(seen),
        unseen=sum(unseen) / len(unseen),
        placebo=_placebo(subject, task, held_out, placebo_pairs, n_noise),
        placebo_pairs=placebo_pairs,
        control_inferential=None if beside is None else beside.inferential.value,
        control_symmetric=None if beside is None else beside.symmetric.value,
        control_seen=sum(row.taught.value for row in control_rows) / len(control_rows),
        pairs=tuple(row for row, _ in table),
    )


def figures(result: CounterfactualResult) -> dict[str, "go.Figure"]:
    """``table``: share of answers that follow the composition, for every ordered pair; ``deviations``: how far answers
    on the held-out pair are from it."""
    from interp import plots

    rows = {row.pair: row for row in result.pairs if row.keys == "seen"}
    anchors = sorted({pair[0] for pair in rows})
    roles = [f"({a},{b}) was {row.role}" for (a, b), row in rows.items() if row.role != "composed"]
    made = {
        "table": plots.heatmap(
            [[rows[a, b].shares.inferential.value for b in anchors] for a in anchors],
            title="Which pairs follow the rule",
            x="second anchor",
            y="first anchor",
            colour="share of answers that compose the anchors",
            caption=f"Seen keys. {'; '.join(roles)}; every other pair was taught by the rule.",
            signed=False,
            limit=1.0,
            x_labels=anchors,
            y_labels=anchors,
            show_values=True,
        )
    }
    if result.held_out is not None:
        shown = sorted(list(result.deviations)[:SHOWN_DEVIATIONS])
        pair = "({},{})".format(*result.held_out)
        n = len(result.deviations)
        drawn = f"the {len(shown)} most frequent of {n} deviations" if n > len(shown) else "every answer's deviation"
        mirrored = "" if result.symmetric_deviation is None else f", {result.symmetric_deviation:+d} is symmetric"
        made["deviations"] = plots.bars(
            [f"{deviation:+d}" if deviation else "0" for deviation in shown],
            {"model": [result.deviations[deviation] for deviation in shown]},
            title=f"Answers to {pair}, which was never trained",
            x="answer − answer by the rule",
            y="share of answers",
            caption=f"0 is inferential{mirrored}. Seen keys; {drawn}.",
        )
    return made


def _row(
    subject: Subject, task: AnchorComposition, pair: Pair, keys: Keys, n_noise: int
) -> tuple[PairAnswers, Int[Tensor, " example"]]:
    examples = task.grid(pair, keys, n_noise)
    answers = subject.answers(examples.inputs)
    units = _units(examples, n_noise)
    row = PairAnswers(
        pair=pair,
        role=task.role(pair),
        keys=keys,
        rules_differ=task.rules_differ(pair),
        taught=share(answers == examples.targets, units),
        shares=rule_shares(answers, examples.rules["inferential"], examples.rules["symmetric"], units),
    )
    return row, answers


def _units(examples: Examples, n_noise: int) -> Int[Tensor, " example"]:
    """The (key, position) each sequence of ``AnchorComposition.grid`` belongs to."""
    return torch.arange(len(examples)) // n_noise


def _symmetric_deviation(task: AnchorComposition, held_out: Pair | None) -> int | None:
    """Symmetric − inferential answer to the held-out pair, if it does not depend on the key."""
    if held_out is None:
        return None
    rules = task.candidate_rules(held_out, task.keys)
    difference = set((rules["symmetric"] - rules["inferential"]).tolist())
    return difference.pop() if len(difference) == 1 else None


def _placebo_pairs(task: AnchorComposition, held_out: Pair | None) -> tuple[Pair, ...]:
    """Trained pairs that share no anchor with the held-out pair."""
    if held_out is None:
        return ()
    return tuple(pair for pair in task.trained_pairs if not set(pair) & set(held_out))


def _placebo(
    subject: Subject, task: AnchorComposition, held_out: Pair | None, pairs: tuple[Pair, ...], n_noise: int
) -> float | None:
    """The larger share of answers of other pairs that give the held-out pair's answer by either rule.

    On unseen keys, whose answers were not taught: on seen ones a fitted model could not fail it.
    """
    if held_out is None or not pairs:
        return None
    shares: dict[str, list[float]] = {}
    for pair in pairs:
        keys = task.combinations("unseen")[:, 0].repeat(n_noise)
        answers = subject.answers(task.grid(pair, "unseen", n_noise).inputs)
        for rule, expected in task.candidate_rules(held_out, torch.from_numpy(keys)).items():
            shares.setdefault(rule, []).append(float((answers == expected).double().mean()))
    return max(sum(values) / len(values) for values in shares.values())
