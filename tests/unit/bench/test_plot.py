from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from tamis.bench.plot import draw, make_figure
from tamis.errors import SettingsError

Report = dict[str, Any]

MISSING = "only torch multiplies in int8, and it is not installed (tamis[torch])"
COMMON: Report = {
    "workload": {"name": "rag-mix", "n_documents": 50, "seed": 2, "n_rounds": 5},
    "model": {"name": "tamis-mini", "runtime": "ctranslate2", "device": "cpu", "dtype": "int8"},
    "environment": {
        "measured_at_utc": "2026-01-01T12:00:00+00:00",
        "processor": "A Processor With A Rather Long Name (family 6 model 85, avx2 avx512f)",
        "cores": 64,
        "packages": {"tamis": "0.1.0"},
        "commit": "0123abc",
    },
}


def latency(*seconds: float) -> Report:
    names = ("p50_seconds", "p95_seconds", "p99_seconds")
    return {"n_requests": 5, **dict(zip(names, seconds, strict=True))}


def engine(**gemm: Any) -> Report:
    measured = {
        "n_batches": 9,
        "padding_waste": 0.042,
        "pairs_per_second": 123.4,
        "tokens_per_second": 20_000.0,
        "operations_per_second": 9e11,
        "latency": latency(0.41, 0.52, 0.6),
        "stage_shares": {
            "tokenize": 0.02,
            "batches": 0.0012,
            "runtime": 0.97,
            "head": 0.0087,
            "rank": 0.0001,
        },
        "peak_memory_bytes": 210_000_000,
    }
    peaks = {
        "float32": {"operations_per_second": 6e11, "library": "numpy", "missing": None},
        "int8": {"operations_per_second": 1.2e12, "library": "torch", "missing": None},
    }
    return COMMON | {
        "engine": measured,
        "gemm": {"dtype": "int8", "missing": None, "peaks": peaks} | gemm,
    }


def server(**fields: Any) -> Report:
    concurrency = {
        str(callers): {
            "pairs_per_second": 1234.5 + callers,
            "latency": latency(0.01 * callers, 0.012 * callers, 0.1234 * callers),
        }
        for callers in (1, 4, 16, 64)
    }
    return COMMON | {"server": {"concurrency": concurrency} | fields}


REPORTS = {
    "engine": engine(),
    "engine, int8 missing": engine(
        missing=MISSING,
        peaks={
            "float32": {"operations_per_second": 6e11, "library": "numpy", "missing": None},
            "int8": {"operations_per_second": None, "library": None, "missing": MISSING},
        },
    ),
    "engine on a GPU": engine(missing="matrix products are measured on the CPU", peaks={}),
    "server of its own": server(seconds_to_ready=0.43, peak_memory_bytes=213_000_000),
    "server that runs": server(url="http://127.0.0.1:8000") | {"model": {}},
    "server with one caller": server(
        url="http://127.0.0.1:8000",
        concurrency={"1": {"pairs_per_second": 9.0, "latency": latency(0.3, 0.34, 0.35)}},
    ),
}


def ticks_beyond_the_axis(axes: Axes) -> Iterator[Text]:
    """Labels that matplotlib keeps and does not draw."""
    for axis in (axes.xaxis, axes.yaxis):
        drawn = {text for tick in axis._update_ticks() for text in (tick.label1, tick.label2)}
        yield from {*axis.get_majorticklabels(), *axis.get_minorticklabels()} - drawn


def shown_texts(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    """Every text that is not empty, and the place it takes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    hidden = {text for axes in figure.axes for text in ticks_beyond_the_axis(axes)}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden:
            yield text.get_text(), text.get_window_extent(canvas.get_renderer())


@pytest.fixture(name="report", params=REPORTS.values(), ids=REPORTS)
def fixture_report(request: pytest.FixtureRequest) -> Report:
    report: Report = request.param
    return report


def test_no_text_covers_another_or_leaves_the_figure(report: Report) -> None:
    figure = make_figure(report)
    texts = list(shown_texts(figure))
    assert len(texts) > 10
    for (one, place), (other, its_place) in combinations(texts, 2):
        assert not place.overlaps(its_place), (one, other)
    for text, place in texts:
        assert figure.bbox.x0 <= place.x0 <= place.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= place.y0 <= place.y1 <= figure.bbox.y1, text


def test_axes_have_titles_and_units(report: Report) -> None:
    units = ("(%)", "per second", "seconds", "callers at a time")
    for axes in make_figure(report).axes:
        assert axes.get_title()
        labels = [label for label in (axes.get_xlabel(), axes.get_ylabel()) if label]
        assert labels
        assert all(any(unit in label for unit in units) for label in labels), labels


def test_the_models_speed_is_held_against_each_peak() -> None:
    texts = [text for text, _ in shown_texts(make_figure(REPORTS["engine"]))]
    assert "20,000" in texts
    assert "13,333; model: 150 % of it" in texts
    assert "26,667; model: 75 % of it" in texts


def test_a_missing_peak_is_said_in_words() -> None:
    texts = [text for text, _ in shown_texts(make_figure(REPORTS["engine, int8 missing"]))]
    assert f"not measured: {MISSING}" in [text.replace("\n", " ") for text in texts]


def test_a_server_shows_percentiles_and_throughput_by_callers() -> None:
    texts = [text for text, _ in shown_texts(make_figure(REPORTS["server of its own"]))]
    assert {"p50", "p95", "p99", "1", "4", "16", "64"} <= set(texts)
    assert any("ready 0.43 s after its start; peak memory 213 MB" in text for text in texts)


def test_seconds_stand_beside_the_axis_within_one_decade_too() -> None:
    figure = make_figure(REPORTS["server with one caller"])
    assert {"0.31", "0.32", "0.33"} <= {text for text, _ in shown_texts(figure)}


@pytest.mark.parametrize(
    ("ending", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_the_names_ending_chooses_the_format(tmp_path: Path, ending: str, begins: bytes) -> None:
    path = tmp_path / f"figure.{ending}"
    draw(REPORTS["server with one caller"], path)
    assert path.read_bytes().startswith(begins)


def test_a_figure_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot write .*gone/figure.png: No such file"):
        draw(REPORTS["server with one caller"], tmp_path / "gone" / "figure.png")
