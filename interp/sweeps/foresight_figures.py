"""The figures of foresight: AUC over the steps, predicted against true steps, and which features matter."""

from typing import TYPE_CHECKING, Any, Literal

from interp import plots, theme
from interp.sweeps.foresight_record import ALL, ALL_RULE, BASE, ForesightResult, Moment
from interp.sweeps.foresight_scores import Model
from tasks.base import UserError

if TYPE_CHECKING:
    import plotly.graph_objects as go

_APART = 1.04  # factor between the places of neighbouring series on a logarithmic axis, so that bars do not overlap
_SHOWN = 15


def all_figures(result: ForesightResult, step: int | None = None) -> dict[str, "go.Figure"]:
    """For each model ``auc`` and ``auc within cells`` over the steps; ``steps left`` and ``importances`` at one step,
    where they were measured there.

    Args:
        result: of ``interp.sweeps.foresight.analyze``.
        step: of the last two; ``None``: ``result.memorised_by``, or the scored step nearest to it; the last
            where that is ``None``, too.

    Raises:
        UserError: no step was scored, or not the one asked for.
    """
    scored = [moment for moment in result.moments if moment.scores]
    if not scored:
        raise UserError("expected a step that was scored: at none do enough runs generalise later, and enough never do")
    made, moment = {}, chosen(result, step)
    for model in result.models:
        made[f"auc, {model}"] = auc_over_steps(result, model)
        made[f"auc within cells, {model}"] = auc_over_steps(result, model, "auc_within")
        if model in moment.importances:
            made[f"importances, {model}"] = importances(moment, model)
        if moment.timings:
            made[f"steps left, {model}"] = steps_left(moment, model)
    return made


def chosen(result: ForesightResult, step: int | None = None) -> Moment:
    """The moment of this step; ``None``: when half of the runs have memorised, or the scored step nearest to that;
    where half of them never do, the last."""
    if step is not None:
        return result.at(step)
    scored = [moment for moment in result.moments if moment.scores]
    by = scored[-1].step if result.memorised_by is None else result.memorised_by
    return min(scored, key=lambda moment: abs(moment.step - by))


def auc_over_steps(result: ForesightResult, model: Model, of: Literal["auc", "auc_within"] = "auc") -> "go.Figure":
    """The AUC of every set of features, and of permuted labels, against the step of the snapshot."""
    scored = [moment for moment in result.moments if moment.scores]
    least = min((moment.step for moment in scored if moment.step), default=2) / 2
    traces: list[dict[str, Any]] = []
    for number, name in enumerate(result.feature_sets):
        found = [getattr(moment.score(name, model), of) for moment in scored]
        traces.append(
            {
                "name": name,
                "x": [(moment.step or least) * _APART ** (number - 3) for moment in scored],
                "y": [interval.value for interval in found],
                "error_y": plots.error_bars(found, thickness=1, width=2),
                "line": {"color": theme.seed_colour(number), "width": 1.5},
            }
        )
    for within, dash in ((False, "longdashdot"), (True, "dash")) if of == "auc" else ():
        points = [(m.step or least, p) for m in scored for p in m.permuted if (p.model, p.within) == (model, within)]
        if points:
            traces.append(
                {
                    "name": f"control: labels permuted {'within cells' if within else 'over all runs'}",
                    "x": [step for step, _ in points],
                    "y": [permuted.auc for _, permuted in points],
                    "line": {"color": theme.CONTROL, "dash": dash},
                }
            )
    inside = of == "auc_within"
    ends = [f"{_number(result, moment, inside)} at step {moment.step:,}" for moment in (scored[0], scored[-1])]
    figure = plots.scatter(
        traces,
        title=f"Which runs will generalise{', told within a cell' if inside else ''} ({_model(model)})",
        x="step of the snapshot",
        y=f"ROC AUC{' over pairs of runs of one cell' if inside else ''}",
        caption=f"{', '.join(ends)}. Told by models fitted to other cells; bars: 95 % interval over cells, dotted: "
        "chance. Places beside a step are set apart to be seen.",
    )
    figure.update_traces(mode="lines+markers")
    figure.update_traces(mode="lines", selector=lambda trace: trace.name.startswith("control"))
    steps = [moment.step for moment in scored]
    figure.update_xaxes(
        type="log", tickvals=[step or least for step in steps], ticktext=[f"{step:,}" for step in steps]
    )
    figure.update_layout(width=1000)
    return figure.add_hline(y=0.5, line_dash="dot", line_color=theme.INK, line_width=1)


def steps_left(moment: Moment, model: Model) -> "go.Figure":
    """Predicted against true steps until generalisation of every run that does, without and with the weights."""
    traces: list[dict[str, Any]] = []
    shown = [timing for timing in moment.timings if timing.model == model]
    shown = [timing for timing in shown if timing.features in (BASE, ALL)] or shown[-1:]
    for number, timing in enumerate(shown):
        traces.append(
            {
                "name": f"{timing.features}<br>R² {timing.r2}<br>off by a factor of {timing.factor}",
                "x": timing.steps_left.tolist(),
                "y": timing.predicted_steps_left.tolist(),
                "marker": {"color": theme.seed_colour(number), "size": 6, "opacity": 0.7},
            }
        )
    ends = [float(f(shown[0].steps_left)) for f in (min, max)]
    traces.append({"name": "equal", "x": ends, "y": ends, "line": {"color": theme.INK, "dash": "dot"}})
    figure = plots.scatter(
        traces,
        title=f"Steps left at step {moment.step} ({_model(model)})",
        x="true steps until test accuracy .99",
        y="predicted steps",
        caption=f"The {len(shown[0].steps_left)} runs that generalise later, each by a model fitted to other cells. R² "
        "of log10 steps and the median factor, with 95 % intervals over cells.",
    )
    figure.update_traces(mode="lines", selector={"name": "equal"})
    figure.update_xaxes(type="log", dtick=1)
    figure.update_yaxes(type="log", dtick=1)
    return figure.update_layout(width=1000)


def importances(moment: Moment, model: Model) -> "go.Figure":
    """How much AUC is lost where one feature is permuted, largest first."""
    ranked = sorted(moment.importances[model].items(), key=lambda item: -item[1].value)[:_SHOWN]
    figure = plots.bars(
        [name for name, _ in ranked],
        {"importance": [interval.value for _, interval in ranked]},
        title=f"What the prediction at step {moment.step} rests on ({_model(model)})",
        x="feature",
        y="AUC lost where it is permuted",
        caption=f"Features: {ALL_RULE}; the {len(ranked)} of largest importance. Permuted among held-out runs; bars: "
        "95 % interval over cells. Features that say the same share their importance.",
    )
    figure.update_traces(error_y=plots.error_bars([interval for _, interval in ranked], thickness=1))
    figure.update_layout(width=900, height=560)
    return figure


def _model(model: Model) -> str:
    return {"linear": "linear model", "boosting": "boosted trees"}[model]


def _number(result: ForesightResult, moment: Moment, inside: bool) -> str:
    """How many runs, or cells, stand behind an area."""
    if inside:
        return f"{moment.scores[0].auc_within.n_units} cells with runs of both kinds"
    return f"{moment.n_runs} runs that have not generalised{' but memorised' if result.among == 'memorised' else ''}"
