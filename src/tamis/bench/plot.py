"""A report of `tamis bench` as one figure (extra `bench`)."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tamis.errors import SettingsError

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#BBBBBB"
"""Of Okabe and Ito's palette, which the colour-blind tell apart; hatches and markers do, too."""
PHASES = {
    "tokenize": "tokenize",
    "batches": "queue and pack",
    "runtime": "encoder",
    "head": "head",
    "rank": "rank",
}
PERCENTILES = {"p50": (BLUE, "o-"), "p95": (ORANGE, "^--"), "p99": (GREEN, "s:")}
"""Colour, marker and line."""
ROOM = 1.65
"""How much longer an axis is than its longest bar, for the number next to it."""


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write the figure of a report; the name's ending chooses the format.

    Raises:
        SettingsError: the file cannot be written.
    """
    try:
        make_figure(report).savefig(path, dpi=150)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def make_figure(report: Mapping[str, Any]) -> Figure:
    """The figure of a model, or of a server."""
    figure = Figure(figsize=(12, 6), layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12))
    if "engine" in report:
        _draw_engine(figure, report)
    else:
        _draw_server(figure, report["server"]["concurrency"])
    figure.suptitle(_title(report), fontweight="bold")
    figure.supxlabel(_caption(report), fontsize=9, color="0.3")
    return figure


def _draw_engine(figure: Figure, report: Mapping[str, Any]) -> None:
    engine = report["engine"]
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 2))
    _draw_phases(figure.add_subplot(grid[:, 0]), engine["stage_shares"])
    _draw_roofline(figure.add_subplot(grid[0, 1]), engine, report["gemm"])
    _draw_padding(figure.add_subplot(grid[1, 1]), engine)


def _draw_phases(axes: Axes, shares: Mapping[str, float]) -> None:
    names = [name for name in PHASES if name in shares]
    values = [100 * shares[name] for name in names]
    texts = [f"{value:.1f} %" if value >= 1 else f"{value:.2f} %" for value in values]
    _bars(axes, [PHASES[name] for name in names], values, texts)
    axes.set_xlim(0, 120)
    axes.set_xticks(range(0, 101, 20))
    axes.set_title("Where the time of a request goes")
    axes.set_xlabel("share of the time (%)")


def _draw_roofline(axes: Axes, engine: Mapping[str, Any], gemm: Mapping[str, Any]) -> None:
    """The model's speed below what the machine's matrix products alone would allow."""
    speed = engine["tokens_per_second"]
    operations_per_token = engine["operations_per_second"] / speed
    labels, values, texts = ["this model"], [speed], [_number(speed)]
    for dtype, peak in gemm["peaks"].items():
        rate = peak["operations_per_second"]
        limit = (rate or 0.0) / operations_per_token
        reached = f"{_number(limit)}; model: {100 * speed / limit:.0f} % of it" if limit else ""
        labels.append(f"limit in {dtype}" + (f"\n({peak['library']})" if limit else ""))
        values.append(limit)
        texts.append(reached or _folded(peak["missing"]))
    if not gemm["peaks"]:
        labels, values, texts = (
            [*labels, "limit"],
            [*values, 0.0],
            [*texts, _folded(gemm["missing"])],
        )
    bars = _bars(axes, labels, values, texts)
    for bar in bars[1:]:
        bar.set(facecolor=GREY, hatch="//")
    axes.set_xlim(0, ROOM * max(values))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.set_title("Speed, and the limit that matrix products set here")
    axes.set_xlabel("tokens per second")


def _draw_padding(axes: Axes, engine: Mapping[str, Any]) -> None:
    waste = 100 * engine["padding_waste"]
    tokens, padding = f"tokens {100 - waste:.1f} %", f"padding {waste:.1f} %"
    axes.barh([0], [100 - waste], color=BLUE, label=tokens)
    axes.barh([0], [waste], left=[100 - waste], color=ORANGE, hatch="//", label=padding)
    axes.set_yticks([])
    axes.set_xlim(0, 100)
    axes.set_title("What padding each batch to its longest would add")
    axes.set_xlabel(f"share of places (%) in {engine['n_batches']} batches a request")
    axes.legend(ncols=2, loc="upper center", frameon=False)
    axes.set_ylim(-0.5, 1.2)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_server(figure: Figure, concurrency: Mapping[str, Mapping[str, Any]]) -> None:
    left, right = figure.subplots(1, 2)
    callers = list(concurrency)
    _draw_latency(left, callers, [found["latency"] for found in concurrency.values()])
    rates = [found["pairs_per_second"] for found in concurrency.values()]
    bars = right.bar(callers, rates, color=BLUE, width=0.6)
    right.bar_label(bars, [_number(rate) for rate in rates], padding=2)
    right.yaxis.set_major_formatter(FuncFormatter(_tick))
    right.set_xlim(-0.75, len(callers) - 0.25)
    right.set_title("Throughput")
    right.set_xlabel("callers at a time")
    right.set_ylabel("pairs per second")
    right.spines[["top", "right"]].set_visible(False)


def _draw_latency(axes: Axes, callers: Sequence[str], found: Sequence[Mapping[str, float]]) -> None:
    """Lines over a logarithmic scale: latency grows with the number of callers."""
    places = range(len(callers))
    for name, (color, style) in PERCENTILES.items():
        values = [latency[f"{name}_seconds"] for latency in found]
        axes.plot(places, values, style, color=color, label=name, markersize=8)
    for place, latency in zip(places, found, strict=True):
        _note(axes, place, latency["p50_seconds"], above=False)
        _note(axes, place, latency["p99_seconds"], above=True)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15, y=0.2)
    axes.set_xticks(places, callers)
    axes.set_title("Latency of a request (numbers: p50 and p99)")
    axes.set_xlabel("callers at a time")
    axes.set_ylabel("seconds, logarithmic")
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


def _note(axes: Axes, place: float, value: float, *, above: bool) -> None:
    """A number next to its point."""
    axes.annotate(
        _number(value),
        (place, value),
        xytext=(0, 9 if above else -9),
        textcoords="offset points",
        horizontalalignment="center",
        verticalalignment="bottom" if above else "top",
    )


def _bars(
    axes: Axes, labels: Sequence[str], values: Sequence[float], texts: Sequence[str]
) -> BarContainer:
    """Horizontal bars from the top, each with its number."""
    bars = axes.barh(range(len(labels)), values, color=BLUE, edgecolor="white")
    axes.bar_label(bars, texts, padding=4)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return bars


def _title(report: Mapping[str, Any]) -> str:
    """What was measured on which texts."""
    model, asked = report["model"], report["workload"]
    measured = " ".join(model[key] for key in ("name", "runtime", "dtype") if key in model)
    behind = "" if "engine" in report else " behind a server"
    texts = f"{asked['name']}, {asked['n_documents']} documents a request"
    return f"{measured or 'a model'}{behind}: {texts}"


def _caption(report: Mapping[str, Any]) -> str:
    """What no bar shows, and what it was measured on."""
    machine = report["environment"]
    commit = f" ({machine['commit']})" if machine["commit"] else ""
    made = f"tamis {machine['packages']['tamis']}{commit}, {machine['measured_at_utc']}"
    return f"{_summary(report)}\n{machine['processor']}, {machine['cores']} cores; {made}"


def _summary(report: Mapping[str, Any]) -> str:
    if "engine" in report:
        engine = report["engine"]
        percentiles = ", ".join(
            f"{name} {_number(engine['latency'][f'{name}_seconds'])} s" for name in PERCENTILES
        )
        pairs = f"{_number(engine['pairs_per_second'])} pairs per second"
        return f"{pairs}; a request {percentiles}; {_memory(engine)}"
    server = report["server"]
    if "url" in server:
        return str(server["url"])
    return f"ready {_number(server['seconds_to_ready'])} s after its start; {_memory(server)}"


def _memory(measured: Mapping[str, Any]) -> str:
    peak = measured["peak_memory_bytes"]
    return "peak memory not told" if peak is None else f"peak memory {peak / 1e6:,.0f} MB"


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _tick(value: float, _: float) -> str:
    """A number next to an axis."""
    return _number(value)


def _folded(text: str) -> str:
    return textwrap.fill(f"not measured: {text}", 40)
