"""A report of `tamis bench` as one figure (extra `bench`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tamis.errors import SettingsError

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#BBBBBB"
"""Of Okabe and Ito's palette, which the colour-blind tell apart; hatches and markers do, too."""
STAGES = {
    "tokenize": "tokenize",
    "batches": "queue and pack",
    "runtime": "encoder",
    "head": "head",
    "rank": "rank",
}
PERCENTILES = {"p50": (BLUE, ""), "p95": (ORANGE, "//"), "p99": (GREEN, "..")}
ROOM = 1.35
"""How much longer an axis is than its longest bar, for the number beside it."""


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
    figure = Figure(figsize=(11, 5.5), layout="constrained")
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
    _draw_stages(figure.add_subplot(grid[:, 0]), engine["stage_shares"])
    _draw_roofline(figure.add_subplot(grid[0, 1]), engine, report["gemm"])
    _draw_padding(figure.add_subplot(grid[1, 1]), engine)


def _draw_stages(axes: Axes, shares: Mapping[str, float]) -> None:
    names = [name for name in STAGES if name in shares]
    values = [100 * shares[name] for name in names]
    texts = ["< 0.01 %" if value < 0.01 else f"{_number(value)} %" for value in values]
    _bars(axes, [STAGES[name] for name in names], values, texts, BLUE)
    axes.set_title("Where the time of a request goes")
    axes.set_xlabel("share of the time (%)")


def _draw_roofline(axes: Axes, engine: Mapping[str, Any], gemm: Mapping[str, Any]) -> None:
    """The model's speed below what the machine's matrix products alone would allow."""
    operations_per_token = engine["operations_per_second"] / engine["tokens_per_second"]
    labels, values = ["this model"], [engine["tokens_per_second"]]
    texts = [_number(values[0])]
    for dtype, peak in gemm["peaks"].items():
        rate = peak["operations_per_second"]
        if rate is None:
            continue
        labels.append(f"{dtype} products\n({peak['library']})")
        values.append(rate / operations_per_token)
        texts.append(f"{_number(values[-1])}: model at {100 * values[0] / values[-1]:.0f} %")
    bars = _bars(axes, labels, values, texts, GREY)
    bars[0].set_facecolor(BLUE)
    for bar in bars[1:]:
        bar.set_hatch("//")
    axes.set_title(f"Speed, and the machine's limit (the model computes in {gemm['dtype']})")
    missing = f"\n{gemm['missing']}" if gemm["missing"] else ""
    axes.set_xlabel(f"tokens per second{missing}")


def _draw_padding(axes: Axes, engine: Mapping[str, Any]) -> None:
    waste = 100 * engine["padding_waste"]
    axes.barh([0], [100 - waste], color=BLUE, label=f"tokens {100 - waste:.1f} %")
    axes.barh(
        [0], [waste], left=[100 - waste], color=ORANGE, hatch="//", label=f"padding {waste:.1f} %"
    )
    axes.set_yticks([])
    axes.set_xlim(0, 100)
    axes.set_title("Padding, if each batch were padded to its longest pair")
    axes.set_xlabel(f"share of places (%), {engine['n_batches']} batches a request")
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
    right.set_title("Throughput")
    right.set_xlabel("callers at a time")
    right.set_ylabel("pairs per second")
    right.spines[["top", "right"]].set_visible(False)


def _draw_latency(axes: Axes, callers: Sequence[str], found: Sequence[Mapping[str, float]]) -> None:
    width = 0.8 / len(PERCENTILES)
    for number, (name, (color, hatch)) in enumerate(PERCENTILES.items()):
        values = [latency[f"{name}_seconds"] for latency in found]
        places = [place + (number - 1) * width for place in range(len(callers))]
        bars = axes.bar(
            places, values, width, color=color, hatch=hatch, edgecolor="white", label=name
        )
        axes.bar_label(bars, [_number(value) for value in values], padding=2, fontsize=8)
    axes.set_xticks(range(len(callers)), callers)
    axes.set_title("Latency of a request")
    axes.set_xlabel("callers at a time")
    axes.set_ylabel("seconds")
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


def _bars(
    axes: Axes, labels: Sequence[str], values: Sequence[float], texts: Sequence[str], color: str
) -> Any:
    """Horizontal bars from the top, each with its number."""
    bars = axes.barh(range(len(labels)), values, color=color, edgecolor="white")
    axes.bar_label(bars, texts, padding=4)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, ROOM * max(values))
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
