"""Progress measures over training: the circuit that adds on circles forms long before test loss falls.

The measures of ``interp.modular.progress`` at every snapshot of one run, and the phases that they tell apart:
*memorisation* (train loss falls), *circuit formation* (excluded loss rises, restricted loss falls), *cleanup* (the
weights shrink and test loss falls), after Nanda et al. 2023, section 5; the rules are those of ``interp.transitions``.

Which frequencies will be keys is known at the end only: the key set of the last snapshot is used at all of them, and
each snapshot's own set stands beside it. Control: at every step as many random frequencies that are no keys.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.modular import fourier, progress, restricted
from interp.modular.addition import AdditionTable, addition_table
from interp.modular.restricted import SplitLoss, split_loss
from interp.result import Result
from interp.subject import Subject, Trajectory
from interp.transitions import Phases, Transition, cleanup_end, fitted, phases
from tasks.base import UserError
from tasks.surroundings import ordinary_torch
from tasks.terminal import progress_bar

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True, eq=False)
class StepMeasures(Result):
    """The measures at one step, with the key set of the last step; ``own_keys`` is this step's.

    ``control_restricted``, ``control_excluded``: the same losses for random frequencies. ``neurons_explained_share``,
    ``gini_readout``, ``readout_residual`` and the shares of neurons are NaN for a model without ``W_L``.
    """

    step: int
    own_keys: tuple[int, ...]
    train_accuracy: float
    test_accuracy: float
    full: SplitLoss
    restricted: SplitLoss
    excluded: SplitLoss
    excluded_per_key: tuple[float, ...]
    control_restricted: SplitLoss
    control_excluded: SplitLoss
    trig_share: float
    cosine_share: float
    pre_trig_share: float
    post_trig_share: float
    neurons_explained_share: float
    gini_embedding: float
    gini_readout: float
    readout_residual: float
    sum_of_squares: float


@dataclass(frozen=True, kw_only=True, eq=False)
class GrokkingResult(Result):
    """What ``analyze`` finds: the measures of every snapshot, and when what happened.

    ``memorised`` and ``generalised`` (accuracy of .99 on train and test) are told from the run's log where there is
    one, which is finer than its snapshots; the phases from snapshots alone. ``control_frequencies`` are the random
    ones.
    """

    p: int
    key_frequencies: tuple[int, ...]
    control_frequencies: tuple[int, ...]
    memorised: Transition
    generalised: Transition
    phases: Phases
    measures: tuple[StepMeasures, ...]


@ordinary_torch()
def analyze(trajectory: Trajectory, *, control_seed: int = 0, show_progress: bool = False) -> GrokkingResult:
    """Every progress measure at every snapshot of a run, and its phases.

    Args:
        trajectory: one run of a ± b mod p over its steps.
        control_seed: of the random frequencies.
        show_progress: show a bar on the terminal, a step per snapshot; 100 of p = 113 take a minute or two.

    Raises:
        UserError: a run without snapshots, or of another task or model.
    """
    subjects = list(trajectory)
    if not subjects:
        raise UserError("expected at least one snapshot, the trajectory is empty")
    last = addition_table(subjects[-1])
    keys = fourier.key_frequencies(fourier.sum_variance(last.logit_blocks))
    others = restricted.placebo_keys(last.p, keys, control_seed)
    measures = tuple(
        measure(subject, last if subject is subjects[-1] else addition_table(subject), keys, others)
        for subject in _shown(subjects, show_progress)
    )
    logged = _logged_accuracy(subjects, measures)
    memorised, generalised = fitted(logged[0], logged[1]), fitted(logged[0], logged[2])
    steps = [at.step for at in measures]
    test_loss = [at.full.test for at in measures]
    cleaned = cleanup_end(
        steps, test_loss, [at.restricted.test for at in measures], [at.sum_of_squares for at in measures], generalised
    )
    return GrokkingResult(
        p=last.p,
        key_frequencies=keys,
        control_frequencies=others,
        memorised=memorised,
        generalised=generalised,
        phases=phases(
            steps, [at.full.train for at in measures], test_loss, [at.excluded.train for at in measures], cleaned
        ),
        measures=measures,
    )


def _shown(subjects: Sequence[Subject], shown: bool) -> Iterator[Subject]:
    """The subjects in turn, with a bar that says how many are done."""
    with progress_bar(quiet=not shown) as bar:
        yield from bar.track(subjects, description="snapshots")


def measure(subject: Subject, table: AdditionTable, keys: Sequence[int], others: Sequence[int]) -> StepMeasures:
    """The measures of one snapshot with these key frequencies, and those random ones.

    Args:
        subject: a model at a step. ``table``: its ``addition_table``.
        keys: the key frequencies. ``others``: the random ones.
    """
    L, train = table.logits, table.train
    right = (L.argmax(1) == table.targets).double()
    losses = restricted.frequency_losses(table, keys)
    control_kept, control_left = (
        split_loss(logits, table.targets, train) for logits in restricted.restricted_and_excluded(L, others)
    )
    found = progress.read_out(table, keys)
    neurons = None if table.neuron_blocks is None else fourier.strongest_frequencies(table.neuron_blocks)
    return StepMeasures(
        step=0 if subject.step is None else subject.step,
        own_keys=fourier.key_frequencies(fourier.sum_variance(table.logit_blocks)),
        train_accuracy=float(right[train].mean()),
        test_accuracy=float(right[~train].mean()),
        full=losses.full,
        restricted=losses.restricted,
        excluded=losses.excluded,
        excluded_per_key=losses.excluded_per_key,
        control_restricted=control_kept,
        control_excluded=control_left,
        trig_share=losses.trig_share,
        cosine_share=losses.cosine_share,
        pre_trig_share=math.nan if found is None else found.pre_trig_share,
        post_trig_share=math.nan if found is None else found.post_trig_share,
        neurons_explained_share=math.nan
        if neurons is None
        else float((neurons.explained > fourier.EXPLAINED).double().mean()),
        gini_embedding=progress.gini_embedding(table.embedding),
        gini_readout=math.nan if found is None else found.gini,
        readout_residual=math.nan if found is None else found.residual,
        sum_of_squares=sum(progress.sums_of_squares(subject.params).values()),
    )


def figures(result: GrokkingResult) -> dict[str, "go.Figure"]:
    """``phases``: losses, sparsity and norm over the steps, with the phases shaded; ``keys``: excluded loss of each;
    ``own keys``: how many each snapshot has, and how many of them stay."""
    from interp import plots

    at = [max(m.step, 1) for m in result.measures]  # step 0 has no place on a logarithmic axis
    steps = {"x": "step (0 is drawn at 1)", "log_x": True}
    final = set(result.key_frequencies)
    return {
        "phases": _phases_figure(result, at),
        "keys": plots.lines(
            at,
            {
                f"k = {k}": [m.excluded_per_key[i] for m in result.measures]
                for i, k in enumerate(result.key_frequencies)
            },
            title="Excluded loss of each key",
            y="train loss without it",
            caption="Loss on the trained pairs without cos, sin ω(a+b) of one key of the last snapshot.",
            log_y=True,
            **steps,
        ),
        "own keys": plots.lines(
            at,
            {
                "keys": [len(m.own_keys) for m in result.measures],
                "of these, keys at the end": [len(final & set(m.own_keys)) for m in result.measures],
            },
            title="Key frequencies of each snapshot",
            y="number of keys",
            caption=f"Frequencies with τ > {fourier.KEY_VARIANCE} in its own logits; {len(final)} at the end.",
            **steps,
        ),
    }


def _phases_figure(result: GrokkingResult, at: Sequence[int]) -> "go.Figure":
    """Three panels on one axis of steps: losses, sparsity, norm."""
    from plotly.subplots import make_subplots

    from interp import theme

    m = result.measures
    blue, orange, green, red, pink, sky, *_ = theme.CATEGORIES
    curves: list[tuple[int, str, list[float], str, str]] = [
        (1, "train", [x.full.train for x in m], blue, "solid"),
        (1, "test", [x.full.test for x in m], blue, "dash"),
        (1, "restricted, test", [x.restricted.test for x in m], green, "dash"),
        (1, "excluded, train", [x.excluded.train for x in m], red, "solid"),
        (1, "control: restricted", [x.control_restricted.test for x in m], theme.CONTROL, "dash"),
        (1, "control: excluded", [x.control_excluded.train for x in m], theme.CONTROL, "solid"),
        (2, "Gini, embedding", [x.gini_embedding for x in m], sky, "solid"),
        (2, "Gini, W_L", [x.gini_readout for x in m], pink, "solid"),
        (2, "trig share of logits", [x.trig_share for x in m], orange, "solid"),
        (3, "sum of squares", [x.sum_of_squares for x in m], theme.INK, "solid"),
    ]
    figure = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.04, row_heights=[0.55, 0.27, 0.18])
    for row, name, values, colour, dash in curves:
        figure.add_scatter(
            x=list(at), y=values, name=name, mode="lines", line={"color": colour, "dash": dash}, row=row, col=1
        )
    start, ends = at[0], {"memorisation": blue, "circuit formation": green, "cleanup": orange}
    found = (result.phases.memorisation, result.phases.circuit_formation, result.phases.cleanup)
    for (name, shade), end in zip(ends.items(), found, strict=True):
        stop = at[-1] if end.by is None else max(end.by, 1)
        if start < stop:
            figure.add_vrect(x0=start, x1=stop, fillcolor=shade, opacity=0.12, line_width=0, layer="below")
            figure.add_annotation(
                x=0.5 * (math.log10(start) + math.log10(stop)),
                y=1,
                yref="y domain",
                yanchor="bottom",
                text=name,
                showarrow=False,
            )
        start = stop
    ended = ", ".join(f"{name} {end}" for name, end in zip(ends, found, strict=True))
    figure.update_layout(
        template=theme.template(),
        title={
            "text": "Progress measures over training",
            "subtitle": {
                "text": f"Keys {', '.join(map(str, result.key_frequencies)) or 'none'}, of the last snapshot. Phases "
                f"end between snapshots, drawn at the later: {ended}.<br>Control: as many random frequencies."
            },
        },
        margin_t=120,
        width=960,
        height=820,
        legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"},
    )
    figure.update_xaxes(type="log")
    figure.update_xaxes(title_text="step (0 is drawn at 1)", row=3)
    figure.update_yaxes(title_text="loss", type="log", row=1)
    figure.update_yaxes(title_text="share", range=[0, 1], row=2)
    figure.update_yaxes(title_text="Σw²", rangemode="tozero", row=3)
    return figure


def _logged_accuracy(
    subjects: Sequence[Subject], measures: Sequence[StepMeasures]
) -> tuple[list[int], list[float], list[float]]:
    """Steps with accuracy on train and test: of the run's log up to the last snapshot, else of the snapshots."""
    run = subjects[-1].run
    if run is None:
        return (
            [at.step for at in measures],
            [at.train_accuracy for at in measures],
            [at.test_accuracy for at in measures],
        )
    rows = {row["step"]: row for row in run.metrics if row["step"] <= measures[-1].step}
    read = [[_number(row.get(f"{part}_accuracy")) for row in rows.values()] for part in ("train", "test")]
    return list(rows), read[0], read[1]


def _number(value: float | None) -> float:
    return math.nan if value is None else value
