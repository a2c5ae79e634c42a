"""What int8 does to a checkpoint's ranking, and whether that is little enough.

The report is stored with the int8 weights it was made with. `dtype="auto"` takes int8 on a CPU only
where it passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np
from numpy.typing import NDArray

from tamis.engine.files import read_struct
from tamis.engine.pairs import Logits

REPORT_FILE = "tamis-calibration.json"
LEAST_QUERIES = 200
LEAST_TAU = 0.98
LEAST_SAME_TOP_5 = 0.95
TOP_DEPTH = 5
MOST_NDCG_LOSS = 0.005
NDCG_DEPTH = 10

Grades = Sequence[float]


@dataclass(frozen=True, slots=True, eq=False)
class QueryScores:
    """One query's candidates, scored twice.

    Attributes:
        float32: Logits, (n_documents,).
        int8: Logits of the same documents, (n_documents,).
        grades: How relevant each document is, 0 and up; None where nobody has judged them.
    """

    float32: Logits
    int8: Logits
    grades: Grades | None = None


class CalibrationReport(msgspec.Struct, frozen=True):
    """int8 against float32 over some queries.

    Attributes:
        logit_difference_max: Largest absolute difference of a logit.
        logit_difference_rms: Root mean square difference.
        logit_std: Spread of the float32 logits within a query, mean over queries.
        tau: Kendall's tau-b of the two orders, mean over queries.
        tau_lowest_decile: A tenth of the queries lie below.
        same_top_1: Share of queries whose first document is the same.
        n_top_5_queries: Queries with more than five candidates: fewer are their own top 5 in any
            order, so that they say nothing of it.
        same_top_5: Share of those whose first five documents are the same, in any order; None
            without any.
        n_judged_queries: Queries with grades, one of them above 0.
        ndcg_float32: nDCG@10 over the judged queries; None without any.
        ndcg_int8: The same in int8.
        max_length: Tokens a pair could have; the report says nothing of longer ones.
        processor: Where it was made.
    """

    max_length: int
    processor: str
    n_queries: int
    n_pairs: int
    logit_difference_max: float
    logit_difference_rms: float
    logit_std: float
    tau: float
    tau_lowest_decile: float
    same_top_1: float
    n_top_5_queries: int
    same_top_5: float | None
    n_judged_queries: int
    ndcg_float32: float | None = None
    ndcg_int8: float | None = None

    @property
    def shortcomings(self) -> list[str]:
        """Why it does not pass, one clause each; empty where it passes."""
        found: list[str] = []
        if self.n_top_5_queries < LEAST_QUERIES:
            found.append(
                f"{self.n_top_5_queries} of {self.n_queries} queries have more than 5 candidates, "
                f"at least {LEAST_QUERIES} are wanted"
            )
        if self.tau < LEAST_TAU:
            found.append(f"tau {self.tau:.3f}, at least {LEAST_TAU} is wanted")
        if self.same_top_5 is not None and self.same_top_5 < LEAST_SAME_TOP_5:
            found.append(
                f"the same top 5 for {self.same_top_5:.1%}, at least {LEAST_SAME_TOP_5:.0%} wanted"
            )
        if self.ndcg_float32 is None or self.ndcg_int8 is None:
            found.append("no query has grades, so that nDCG@10 is not known")
        elif abs(self.ndcg_int8 - self.ndcg_float32) > MOST_NDCG_LOSS:
            change = self.ndcg_int8 - self.ndcg_float32
            found.append(f"nDCG@10 {change:+.4f}, at most {MOST_NDCG_LOSS} either way is allowed")
        return found

    @property
    def verdict(self) -> str:
        """One line: `passes`, or `fails` with the reasons."""
        if self.shortcomings:
            return f"fails: {'; '.join(self.shortcomings)}"
        return (
            f"passes: tau {self.tau:.3f}, the same top 5 for {self.same_top_5:.1%}, nDCG@10 over "
            f"{self.n_judged_queries} judged queries"
        )


def compare(
    queries: Sequence[QueryScores], *, max_length: int, processor: str
) -> CalibrationReport:
    """The report of some queries (at least one), each with at least one document.

    Args:
        queries: Scored with pairs of at most `max_length` tokens, on `processor`.
        max_length: See `CalibrationReport`.
        processor: See `CalibrationReport`.
    """
    differences = np.concatenate([query.int8.astype(float) - query.float32 for query in queries])
    taus = [kendall_tau(query.float32, query.int8) for query in queries]
    judged = [(query, query.grades) for query in queries if query.grades and max(query.grades) > 0]
    told_apart = [query for query in queries if len(query.float32) > TOP_DEPTH]
    return CalibrationReport(
        max_length=max_length,
        processor=processor,
        n_queries=len(queries),
        n_pairs=len(differences),
        logit_difference_max=float(np.abs(differences).max()),
        logit_difference_rms=float(np.sqrt((differences**2).mean())),
        logit_std=float(np.mean([query.float32.std() for query in queries])),
        tau=float(np.mean(taus)),
        tau_lowest_decile=float(np.quantile(taus, 0.1)),
        same_top_1=_same_top(queries, 1),
        n_top_5_queries=len(told_apart),
        same_top_5=_same_top(told_apart, TOP_DEPTH) if told_apart else None,
        n_judged_queries=len(judged),
        ndcg_float32=float(np.mean([ndcg(g, q.float32) for q, g in judged])) if judged else None,
        ndcg_int8=float(np.mean([ndcg(g, q.int8) for q, g in judged])) if judged else None,
    )


def kendall_tau(first: Logits, second: Logits) -> float:
    """Kendall's tau-b of two scorings, -1..1; 1 where neither tells any documents apart.

    Ties count as in Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).
    """
    upper = np.triu_indices(len(first), k=1)
    a = np.sign(first[:, None] - first)[upper]  # (n_document_pairs,)
    b = np.sign(second[:, None] - second)[upper]
    weight = np.sqrt(float(np.count_nonzero(a)) * float(np.count_nonzero(b)))
    if weight == 0:
        return float(np.count_nonzero(a) == np.count_nonzero(b))
    return float((a * b).sum() / weight)


def ndcg(grades: Grades, logits: Logits, depth: int = NDCG_DEPTH) -> float:
    """Normalized discounted cumulative gain with gains as judged, as trec_eval's ndcg_cut.

    The ideal order is that of the judged candidates (Järvelin and Kekäläinen, 2002).
    """
    gains = np.asarray(grades, dtype=float)
    discounts = 1 / np.log2(np.arange(2, min(depth, len(gains)) + 2))
    ideal = np.sort(gains)[::-1][:depth] @ discounts
    return float(gains[_order(logits)][:depth] @ discounts / ideal)


def read_report(folder: Path) -> CalibrationReport | None:
    """A converted model's report; None where it has none.

    Raises:
        ModelError: the file is not a report.
    """
    path = folder / REPORT_FILE
    return read_struct(path, CalibrationReport) if path.exists() else None


def write_report(folder: Path, report: CalibrationReport) -> None:
    """Store a report with its int8 weights, atomically.

    Raises:
        OSError: the folder cannot be written to.
    """
    draft = folder / f".{REPORT_FILE}.{uuid4().hex}"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    draft.replace(folder / REPORT_FILE)


def _same_top(queries: Sequence[QueryScores], depth: int) -> float:
    return float(
        np.mean([_top(query.float32, depth) == _top(query.int8, depth) for query in queries])
    )


def _top(logits: Logits, depth: int) -> set[int]:
    return set(_order(logits)[:depth].tolist())


def _order(logits: Logits) -> NDArray[np.intp]:
    return np.argsort(-logits, kind="stable")
