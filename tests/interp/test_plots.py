"""Figures: every one names its axes and says what it shows."""

import pytest

from interp import plots, theme
from interp.modular import fourier
from interp.subject import Subject
from interp.weights import condensation, rank
from tasks.families.modular import ModularArithmetic
from tasks.models.constructed import pizza

NAMES = {"title": "a title", "x": "an x", "y": "a y", "caption": "what it shows"}
BUILT = {
    "heatmap": lambda **more: plots.heatmap([[1.0, -3.0], [0.0, 2.0]], colour="value", **NAMES, **more),
    "bars": lambda **more: plots.bars([1, 2], {"model": [1.0, 2.0], "random weights": [0.5, 0.1]}, **NAMES, **more),
    "lines": lambda **more: plots.lines([1, 10, 100], {"train": [3.0, 2.0, 1.0], "test": [3.0, 2.5]}, **NAMES, **more),
}


def says(figure):
    title = figure.layout.title
    return title.text, figure.layout.xaxis.title.text, figure.layout.yaxis.title.text, title.subtitle.text


@pytest.mark.parametrize("name", BUILT)
def test_every_builder_names_title_axes_and_caption(name):
    assert says(BUILT[name]()) == ("a title", "an x", "a y", "what it shows")


@pytest.mark.parametrize("analysis", [fourier, condensation, rank])
def test_every_figure_of_an_analysis_is_complete_and_draws_only_numbers(analysis):
    task = ModularArithmetic(p=13)
    made = analysis.figures(analysis.analyze(Subject.of(*pizza(task, (2, 3)), task)))
    assert made
    for figure in made.values():
        assert all(says(figure))
        assert "nan" not in figure.to_json().lower()
        assert figure.layout.template.layout.font.family == theme.FONT


def test_a_long_caption_is_broken_and_given_room():
    short, long = (plots.bars([1], {"model": [1.0]}, **NAMES | {"caption": text}) for text in ("word", "word " * 60))
    assert long.layout.title.subtitle.text.count("<br>") == 2
    assert long.layout.margin.t - short.layout.margin.t == 32


def test_signed_values_are_centred_on_zero_and_magnitudes_are_not():
    signed, magnitude = BUILT["heatmap"]().data[0], BUILT["heatmap"](signed=False).data[0]
    assert (signed.zmin, signed.zmax) == (-3.0, 3.0)
    assert signed.colorscale != magnitude.colorscale
    assert magnitude.zmin is None


def test_row_zero_is_on_top():
    assert BUILT["heatmap"]().layout.yaxis.autorange == "reversed"


def test_train_is_solid_test_is_dashed_and_a_short_series_ends_early():
    train, test = BUILT["lines"]().data
    assert (train.line.dash, test.line.dash) == ("solid", "dash")
    assert list(test.x) == [1, 10]


def test_the_control_is_grey_and_a_seed_keeps_its_colour():
    model, control = BUILT["bars"]().data
    assert control.marker.color == theme.CONTROL
    assert model.marker.color == theme.seed_colour(0)
    assert theme.seed_colour(3) == theme.seed_colour(3 + len(theme.CATEGORIES))
    assert len(set(theme.CATEGORIES)) == 8


def test_controls_beside_each_other_have_patterns_of_their_own():
    heights = {name: [1.0] for name in ("model", "control without", "control only")}
    figure = plots.bars(["a"], heights, **NAMES)
    model, *controls = [(bar.marker.color, bar.marker.pattern.shape) for bar in figure.data]
    assert model[1] == ""
    assert {colour for colour, _ in controls} == {theme.CONTROL}
    assert len({shape for _, shape in controls}) == 2


def test_few_points_are_marked_and_steps_are_written_out():
    few, many = (plots.lines(range(n), {"a": [0.0] * n}, **NAMES) for n in (5, 500))
    assert (few.data[0].mode, many.data[0].mode) == ("lines+markers", "lines")
    assert many.layout.xaxis.tickformat == ","


def test_no_two_of_twenty_series_look_alike():
    figure = plots.lines([1, 2], {f"map {i}": [0.0, 1.0] for i in range(20)}, **NAMES)
    assert len({(line.line.color, line.line.dash) for line in figure.data}) == 20


def test_axes_are_logarithmic_on_request_and_a_threshold_is_drawn():
    figure = BUILT["lines"](log_x=True, log_y=True, threshold=2.0)
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")
    assert figure.layout.shapes[0].y0 == 2.0
    assert not BUILT["lines"]().layout.shapes


def test_bars_over_names_that_look_like_numbers_stand_side_by_side():
    named = plots.bars(["0", "+4"], {"model": [0.1, 0.9]}, title="t", x="x", y="y", caption="c")
    counted = plots.bars([1, 2], {"model": [0.1, 0.9]}, title="t", x="x", y="y", caption="c")
    assert named.layout.xaxis.type == "category"
    assert counted.layout.xaxis.type is None


def test_a_scale_of_magnitudes_ends_where_it_is_told_to():
    figure = plots.heatmap([[1.0, 1.0]], title="t", x="x", y="y", colour="c", caption="c", signed=False, limit=1.0)
    assert (figure.data[0].zmin, figure.data[0].zmax) == (0, 1.0)
