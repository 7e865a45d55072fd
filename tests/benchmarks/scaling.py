"""How the cost of training grows with steps, models, batch and width: writes ``scaling.svg`` beside this file.

CPU time, one thread, median of five turns. A dashed line is growth in proportion from the first point, in width that of
the multiplications in a step.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from plotly.subplots import make_subplots

sys.path.insert(0, str(Path(__file__).parent))
from workloads import Workload, stack, workloads  # pyright: ignore[reportMissingImports]

from interp.theme import CONTROL, seed_colour, template
from tasks.families.anchor import AnchorComposition
from tasks.training.machine import tuned_for_training

FIGURE = Path(__file__).with_name("scaling.svg")
STEPS = (100, 200, 400, 800, 1_600)
MODELS = (1, 2, 4, 8, 16, 32, 64)
BATCHES = (64, 128, 256, 512, 1_024, 2_048)
WIDTHS = (32, 64, 128, 256, 512)
TICKS = [digit * 10**power for power in range(5) for digit in (1, 2, 5)]


def milliseconds(workload: Workload, n_models: int, steps: int) -> float:
    """CPU time of so many steps of a stack."""
    together = stack(workload, n_models)
    with tuned_for_training():
        together.update()
        times = []
        for _ in range(5):
            start = time.process_time()
            for _ in range(steps):
                together.update()
            times.append((time.process_time() - start) * 1e3)
    return statistics.median(times)


def multiplications(workload: Workload) -> float:
    """Of one example in all matrix products of the forward pass, where each position is computed once."""
    c = workload.model
    d_mlp = c.d_mlp or 0
    block = 4 * c.d_model * c.n_heads * c.d_head + 2 * c.d_model * d_mlp
    return c.n_ctx * c.n_layers * block + c.d_model * c.d_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIGURE)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    tiny = next(workload for workload in workloads() if workload.name.startswith("tiny"))
    anchors = next(workload for workload in workloads() if "batch 200" in workload.name)
    anchors = replace(anchors, task=AnchorComposition(sequences_per_pair=1_000))

    def at_batch(size: int) -> Workload:
        return replace(anchors, model=_width(anchors, 128), training=replace(anchors.training, batch_size=size))

    widths = [replace(at_batch(512), model=_width(anchors, width)) for width in WIDTHS]
    panels = {
        "steps": (STEPS, [milliseconds(tiny, 1, steps) for steps in STEPS], STEPS),
        "models in the stack": (MODELS, [milliseconds(tiny, models, 20) / 20 for models in MODELS], MODELS),
        "examples in a batch": (BATCHES, [milliseconds(at_batch(size), 1, 5) / 5 for size in BATCHES], BATCHES),
        "d_model": (WIDTHS, [milliseconds(wide, 1, 5) / 5 for wide in widths], list(map(multiplications, widths))),
    }
    figure = make_subplots(rows=1, cols=4, horizontal_spacing=0.07)
    for column, (name, (sizes, times, cost)) in enumerate(panels.items(), start=1):
        first = column == 1
        proportional = [times[0] * value / cost[0] for value in cost]
        dashed = {"color": CONTROL, "dash": "dash"}
        figure.add_scatter(
            x=sizes,
            y=proportional,
            name="in proportion",
            mode="lines",
            line=dashed,
            showlegend=first,
            row=1,
            col=column,
        )
        figure.add_scatter(
            x=sizes,
            y=times,
            name="measured",
            mode="lines+markers",
            line_color=seed_colour(0),
            showlegend=first,
            row=1,
            col=column,
        )
        figure.update_xaxes(title_text=name, type="log", tickvals=sizes, ticktext=[f"{n:,}" for n in sizes], col=column)
        figure.update_yaxes(type="log", tickvals=TICKS, ticktext=[f"{n:,}" for n in TICKS], col=column)
        growth = times[-1] / times[0]
        print(f"{name}: × {sizes[-1] / sizes[0]:g} costs × {growth:.1f}, in proportion × {cost[-1] / cost[0]:g}")
    figure.update_yaxes(title_text="ms of CPU time", col=1)
    figure.update_layout(
        template=template(),
        width=1_180,
        height=400,
        title={
            "text": "Cost of training",
            "subtitle": {
                "text": "Steps and models: a tiny transformer (d_model 32, batch 32). Batch: anchors, d_model 128. "
                "d_model: anchors, batch 512. From the second panel on, the time is that of one step. One thread."
            },
        },
    )
    figure.write_image(out)


def _width(workload: Workload, d_model: int):
    model = workload.model
    return replace(model, d_model=d_model, d_head=d_model // 2, d_mlp=3 * d_model)


if __name__ == "__main__":
    main()
