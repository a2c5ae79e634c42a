"""docs/performance.md, from the saved results of benchmarks/."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
_IDLE_LOAD = 0.5
LARGE, MINI = "xlm-roberta-large, random weights, int8", "tamis-mini"

HEAD = """# Performance

Printed by `python -m docs.generate` from `benchmarks/results/`; each section names its script. All
of it ran on two cores of one machine, unless a section names another: {processor}.
The large model is bge-reranker-v2-m3's
architecture (XLM-RoBERTa-large) with seeded random weights: speed and memory mean something there,
ranking does not. tamis-mini is its version 1 here, before it was trained, before its head took
less time and matched in phrases. Machines wander, so ratios count, taken in one run, in turn. No
GPU was at hand: [gpu.md](gpu.md).

The aims are tamis's own, set before measuring. One that is missed is called so.
"""
SIDE_BY_SIDE = """
## Beside other ways to run the same model

`benchmarks.side_by_side`, [README](../README.md#beside-others). Times as fast as

"""
SIDE_BY_SIDE_NOTE = """
int8 is well beyond its aims. float32 misses them, by a hair against the tutorials' way: on this
processor a padded batch costs less than it did where the aims were set, and float32 has little
left to gain, as the next section shows.
"""
STAGES = """
## Where the time goes

`tamis bench --model random-large`, 50 documents of the RAG mix. Aims: tokenizing at most 2%, all
that is neither tokenizing nor the runtime at most 1%.

"""
LIMIT = """
## How near the machine's limit

Operations on the tokens that matter (no padding), as a share of the GEMM rate that torch reaches
in the same dtype on the same cores in the same run (median: float32 {float32:,.0f}, bfloat16
{bfloat16:,.0f}, int8 {int8:,.0f} billion operations a second). Aims: 0.88 for the faster float32
runtime, 0.75 for int8.

"""
LIMIT_NOTE = """
Both aims are missed, float32's by a little. With AMX the matrix units take int8 in a tenth of
float32's time, and what stays in vector instructions (attention, softmax, GELU, norms, quantizing
each token's activations) takes the larger part: CTranslate2's int8 does not come near 0.75 there.
bfloat16 on AMX is faster than int8 and nearer to float32's logits, but wants torch, and a
processor that has it; `dtype auto` does not take it by itself.
"""
HTTP = """
## Beside another server

`benchmarks.over_http`: requests of 8 short documents, infinity-emb {infinity} on torch. Aims, for
int8: 2.5 times its throughput, and 0.4 of its median answer time with one caller.

"""
MEMORY = """
## Memory and start

`benchmarks.memory_and_start`: `tamis serve` in an environment without torch, high-water mark of
its resident memory after some requests, seconds from the command to the first 200 of `/readyz`,
converted before. Aims: 1,600 MB and 3 s (large, int8), 300 MB and 1 s (tamis-mini).

"""
MEMORY_NOTE = """
tamis-mini misses its 300 MB: it computes in float32 from int8 weights. Its word embedding,
widened, is the largest part, then the tokenizer, the layers, and Python with its libraries. In
int8 it would need far less, and its ranking would move ([numerics](numerics.md)).
"""
COLD = """
## First start

`benchmarks.cold_start`: seconds from the command to tamis-mini's first answer, in an environment
with nothing but PATH and an empty HOME, on {processor}, medians. Load average before: {load:.1f} on
two cores, so the machine was {state}. Aim: 3 s.

"""
NEIGHBORS = """
## Neighbors on the same cores

`benchmarks.neighbours`: one pass over a few documents on two cores, on
{processor}. Before: threads spin at barriers as long as libgomp
has them by default. After: as tamis sets it. Aim: at most 1.25 times the fair share, which is
(cores + busy processes) / cores, and 2 next to another tamis.

"""
COST = """
## Cost grows with tokens

`benchmarks.cost_per_token`, the large model, time a token. Aim: within 15% from 1 to 1,000
documents and, attention's share aside, from 20 to 510 tokens a pair.

"""
COST_NOTE = """
One short pair alone is dearer in either dtype: all weights are read from memory for its few
tokens. From 10 documents up the aim is reached, and in float32 at every length. In int8 long pairs
are dearer because attention, which grows with their square, is computed in float32 beside linear
layers that are not: its operations count as the others' do in the columns of operations, and take
longer.
"""

OVERHEAD = """
## What the server adds

`benchmarks.server_overhead`: tamis-mini asked in Python, behind a server, and behind a server that
has it in a worker process, in turn, medians. Aims: at most 3% and, for one pair, 3 ms.

"""
CACHE = """
## The cache of scores

`benchmarks.cache`: requests of {n_warm} documents of the RAG mix to tamis-mini, all of whose pairs
are kept, beside a server that computes them; {callers} callers for requests a second, one for the
time of one. Aims: 100 times the throughput, 5 ms in process, 10 ms through Redis.

"""
CACHE_NOTE = """
New requests ({n_cold} of {cold_documents} documents) took longer than without a cache by
{memory:+.1f}% (memory) and {redis:+.1f}% (Redis), in sum: nothing that this machine can tell
from noise. Aim: 2%.
"""


def performance_page() -> str:
    """The page."""
    fifty, sixteen = _run("side_by_side"), _run("side_by_side_16_documents")
    environment = _saved("side_by_side")["environment"]
    rates = fifty["gemm"]["median_rates_1e9_per_second"]
    http, cost = _saved("over_http")["measured"], _saved("cost_per_token")["measured"]
    parts = [
        HEAD.format(processor=environment["processor"]),
        SIDE_BY_SIDE,
        _side_by_side(fifty, sixteen),
        SIDE_BY_SIDE_NOTE,
        LIMIT.format(**rates),
        _shares(fifty, sixteen),
        LIMIT_NOTE,
        STAGES,
        _phases(),
        HTTP.format(infinity=http["infinity_versions"]["infinity-emb"]),
        _http(http),
        OVERHEAD,
        _overhead(_saved("server_overhead")["measured"]["requests"]),
        *_cache(_saved("cache")["measured"]),
        MEMORY,
        _memory(_saved("memory_and_start")["measured"]),
        MEMORY_NOTE,
        *_cold_start(_saved("cold_start")),
        NEIGHBORS.format(processor=_saved("neighbours")["environment"]["processor"]),
        _neighbors(_saved("neighbours")["measured"]),
        COST,
        _cost(cost, _saved("cost_per_token_float32")["measured"]),
        COST_NOTE,
    ]
    return "".join(parts)


def _cold_start(saved: dict[str, Any]) -> tuple[str, str]:
    measured = saved["measured"]
    load = measured["load_average_before"]
    introduction = COLD.format(
        processor=saved["environment"]["processor"],
        load=load,
        state="idle" if load < _IDLE_LOAD else "busy with other work",
    )
    return introduction, _table(
        ("", "empty home", "second start"),
        [
            (
                f"`tamis {verb}`",
                f"{measured[verb]['empty_home_seconds']:.2f} s",
                f"{measured[verb]['second_start_seconds']:.2f} s",
            )
            for verb in ("rank", "serve")
        ],
    )


def _neighbors(measured: dict[str, Any]) -> str:
    return _table(
        (
            "",
            "busy processes",
            *("before", "times alone"),
            *("after", "times alone", "of fair share"),
        ),
        [
            (
                *(model, neighbors),
                *(f"{before['seconds']:.2f} s", f"{before['times']:.1f}"),
                *(f"{after['seconds']:.2f} s", f"{after['times']:.1f}"),
                f"{after['of_fair_share']:.2f}",
            )
            for model, runs in measured.items()
            for neighbors, before in runs["before"].items()
            for after in (runs["after"][neighbors],)
        ],
    )


def _side_by_side(fifty: dict[str, Any], sixteen: dict[str, Any]) -> str:
    def times(run: dict[str, Any], way: str, peer: str) -> str:
        found = run["contestants"]
        return f"{found[peer]['seconds_median'] / found[way]['seconds_median']:.2f}"

    ways = {
        "tamis ctranslate2 int8": ("7.5", "4.7", "10"),
        "tamis torch float32": ("4.5", "2.8", "6.5"),
        "tamis ctranslate2 float32": ("", "", ""),
        "tamis torch bfloat16": ("", "", ""),
    }
    rows = [
        (
            *(way, times(fifty, way, "tutorial"), aims[0]),
            *(times(fifty, way, "CrossEncoder"), aims[1]),
            *(times(sixteen, way, "FlagReranker"), aims[2]),
        )
        for way, aims in ways.items()
    ]
    return _table(
        [
            *("", "the tutorials' way, 50 documents", "aim"),
            *("CrossEncoder, 50 documents", "aim", "FlagReranker, 16 documents", "aim"),
        ],
        rows,
    )


def _shares(fifty: dict[str, Any], sixteen: dict[str, Any]) -> str:
    shares = [run["gemm"]["share_of_median_rate"] for run in (fifty, sixteen)]
    rows = [(way, *(f"{share[way]:.2f}" for share in shares)) for way in shares[0]]
    return _table(["", "50 documents", "16 documents"], rows)


def _phases() -> str:
    rows: list[list[str]] = []
    for dtype in ("int8", "float32"):
        engine = _saved(f"bench_large_{dtype}")["engine"]
        shares = engine["stage_shares"]
        others = sum(shares[phase] for phase in ("batches", "head", "rank"))
        cells = [shares["tokenize"], shares["runtime"], others, engine["padding_waste"]]
        rows.append([dtype, *(f"{cell:.2%}" for cell in cells)])
    return _table(["", "tokenizing", "runtime", "all else", "padding inside attention"], rows)


def _http(measured: dict[str, Any]) -> str:
    rows = [
        (
            str(callers),
            name,
            f"{found['pairs_per_second']:.1f}",
            f"{found['times_the_peers_throughput']:.2f}",
            f"{found['p50_seconds']:.2f} s",
            f"{found['share_of_the_peers_p50']:.2f}",
        )
        for callers in (1, 4, 16)
        for name, found in measured[f"concurrency {callers}"].items()
    ]
    return _table(["callers", "", "pairs/s", "times", "median answer", "of the peer's"], rows)


def _overhead(measured: dict[str, Any]) -> str:
    rows: list[list[str]] = []
    for n_documents, found in measured.items():
        engine = found["p50_seconds"]["engine"]
        added = [
            f"{found['added'][way]['p50_added_ms']:+.1f} ms, "
            f"{found['added'][way]['p50_added_percent']:+.1f}%"
            for way in ("server beside engine", "server with a worker beside server")
        ]
        rows.append([n_documents, f"{engine:.3f} s", *added])
    return _table(["documents", "engine", "the server adds", "a worker adds to that"], rows)


def _cache(measured: dict[str, Any]) -> tuple[str, str, str]:
    cold, warm = measured["cold"], measured["warm"]
    rows = [
        (
            name,
            f"{1000 * warm['p50_seconds'][name]:,.1f} ms",
            f"{warm['requests_per_second'][name]:,.2f}",
            f"{warm['times_the_throughput'].get(name, 1):,.0f}",
        )
        for name in ("no cache", "memory", "redis")
    ]
    note = CACHE_NOTE.format(
        n_cold=cold["requests"], cold_documents=cold["documents"], **cold["total_added_percent"]
    )
    head = CACHE.format(n_warm=warm["documents"], callers=warm["callers"])
    return head, _table(["", "median answer", "requests/s", "times"], rows), note


def _memory(measured: dict[str, Any]) -> str:
    rows = [
        (
            name,
            f"{measured[name]['peak_megabytes']:,.0f} MB",
            f"{measured[name]['seconds_to_ready_median']:.2f} s",
        )
        for name in (LARGE, MINI)
    ]
    return _table(["", "peak memory", "start to ready"], rows)


def _cost(int8: dict[str, Any], float32: dict[str, Any]) -> str:
    def costs(measured: dict[str, Any], table: str) -> dict[tuple[float, float], dict[str, Any]]:
        return {(row["n_documents"], row["tokens_a_pair"]): row for row in measured[table]}

    rows: list[list[str]] = []
    for table in ("by_documents", "by_tokens_a_pair"):
        others = costs(float32, table)
        for (n_documents, n_tokens), row in costs(int8, table).items():
            found = [row, others.get((n_documents, n_tokens))]
            cells = [
                f"{one[measure] * scale:.{digits}f} {unit}" if one else ""
                for one in found
                for measure, scale, digits, unit in (
                    ("seconds_per_token", 1e6, 0, "us"),
                    ("seconds_per_operation", 1e12, 2, "ps"),
                )
            ]
            rows.append([f"{n_documents:,}", f"{n_tokens:.0f}", *cells])
    columns = ["documents", "tokens a pair"]
    for dtype in ("int8", "float32"):
        columns += [f"{dtype}, a token", "an operation"]
    return _table(columns, rows)


def _saved(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _run(name: str) -> dict[str, Any]:
    (run,) = _saved(name)["measured"].values()
    return dict(run)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines).replace(" --- ", "---") + "\n"
