"""Keyword traps: questions whose answer must stand above a document that shares more words.

They are checks of a finished model, not data to train on: the tutorial's own examples, the demo's
Apple question with several honest answers, a question asked across languages; and the traps and the
obvious pairs of `tests/quality`, which were frozen before the first training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.corpora import EvaluationSet
from training.data.first_stage import Run
from training.measure.matching import COSINE, IN_PHRASES, PairScorer, logits, sigmoid
from training.measure.measurement import Candidates
from training.model.base import Floats
from training.model.folder import Head

QUALITY_TESTS = Path(__file__).parents[2] / "tests" / "quality"
KEYWORD_TRAPS = QUALITY_TESTS / "keyword_traps.jsonl"
OBVIOUS_PAIRS = QUALITY_TESTS / "obvious_pairs.jsonl"

APPLE_QUESTION = "苹果公司最新发布的AI功能"
APPLE_TRAP = "苹果发布会介绍新款iPhone和健康功能"

PLANT_DOCUMENTS = (
    "Photosynthesis uses sunlight to convert CO2 and water into glucose.",
    "Aspirin can cause stomach irritation and bleeding in some patients.",
    "Plants have green leaves due to chlorophyll pigment.",
    "Photosynthesis produces oxygen as a byproduct.",
)

QUANTUM_ANSWER = (
    "Quantum entanglement is a phenomenon where particles remain connected regardless of distance."
)


@dataclass(frozen=True, slots=True)
class Trap:
    """A query, documents that answer it, and documents that only look as if they did.

    `is_known_limit` marks what a model gets wrong, told rather than left out.
    """

    name: str
    query: str
    answers: tuple[str, ...]
    distractors: tuple[str, ...]
    is_known_limit: bool = False


TRAPS = (
    Trap(
        "apple",
        APPLE_QUESTION,
        (
            "Apple Intelligence 是苹果推出的人工智能系统，可以改写文字、生成图片，并让 Siri 更聪明",
            "iOS 18.1 上线 Apple Intelligence，苹果把生成式人工智能带到了 iPhone",
        ),
        (APPLE_TRAP,),
    ),
    Trap(
        "apple, answers that do not spell out artificial intelligence",
        APPLE_QUESTION,
        (
            "Apple Intelligence 为 iPhone、iPad 和 Mac 带来写作工具、图像生成和更聪明的 Siri",
            "苹果推出 Apple Intelligence：写作工具、通知摘要和更懂上下文的 Siri",
        ),
        (APPLE_TRAP,),
        is_known_limit=True,
    ),
    Trap(
        "capital",
        "What is the capital of France?",
        ("Paris is the capital of France.",),
        ("Berlin is the capital of Germany.",),
    ),
    Trap(
        "capital, other words",
        "What is the capital of France?",
        ("The French government sits in Paris, the country's capital city.",),
        ("Berlin is the capital of Germany.", "France is famous for its wine and its cheese."),
    ),
    Trap(
        "photosynthesis",
        "How does photosynthesis work in plants?",
        (PLANT_DOCUMENTS[0],),
        (PLANT_DOCUMENTS[1], PLANT_DOCUMENTS[2], PLANT_DOCUMENTS[3]),
    ),
    Trap(
        "aspirin",
        "What are the side effects of aspirin?",
        (PLANT_DOCUMENTS[1],),
        (PLANT_DOCUMENTS[0], PLANT_DOCUMENTS[2], PLANT_DOCUMENTS[3]),
    ),
    Trap(
        "quantum",
        "Explain quantum entanglement",
        (QUANTUM_ANSWER,),
        ("Classical physics explains motion using Newton's laws.",),
    ),
    Trap(
        "English question, Chinese answer, against English on the same subject",
        "How tall is Mount Everest?",
        ("珠穆朗玛峰海拔8848.86米，是世界最高峰。",),
        (
            "Mount Everest attracts hundreds of climbers every spring.",
            "泰山位于山东省，是中国著名的旅游景点。",
            "Mount Fuji is the highest mountain in Japan.",
        ),
        is_known_limit=True,
    ),
    Trap(
        "English question, Chinese answer",
        "How long does a full charge of the phone's battery take?",
        ("这款手机的电池充满电大约需要四十分钟。",),
        (
            "这款手机有黑色、白色和蓝色三种颜色。",
            "The train to the airport takes about half an hour.",
        ),
    ),
    Trap(
        "Chinese question, English answer, against Chinese on the same subject",
        "法国的首都是哪里？",
        ("Paris is the capital of France.",),
        ("法国的国旗是蓝白红三色旗。", "Berlin is the capital of Germany."),
        is_known_limit=True,
    ),
)


def trap_figures(scorer: PairScorer, head: Head) -> list[dict[str, object]]:
    """Scores every trap; `passed` says that each answer stands above every distractor."""
    return [_one(scorer, head, trap) for trap in TRAPS]


def keyword_trap_figures(scorer: PairScorer, head: Head) -> dict[str, object]:
    """How many of the traps in each language have the answer first, and which do not."""
    rows = read_rows(KEYWORD_TRAPS)
    passed: dict[str, int] = {}
    failed: list[str] = []
    for row in rows:
        answer, trap = _logits(scorer, head, row["query"], [row["answer"], row["trap"]])
        passed[row["language"]] = passed.get(row["language"], 0) + int(answer > trap)
        failed += [] if answer > trap else [row["query"]]
    return {"traps": len(rows), "passed": passed, "failed": failed}


def trap_candidates() -> Candidates:
    """The keyword traps as a set of queries with two documents each: answer, trap."""
    rows = read_rows(KEYWORD_TRAPS)
    queries = {str(number): row["query"] for number, row in enumerate(rows)}
    documents: dict[str, str] = {}
    run: Run = {}
    for number, row in enumerate(rows):
        documents |= {f"{number} answer": row["answer"], f"{number} trap": row["trap"]}
        run[str(number)] = {f"{number} answer": 1.0, f"{number} trap": 0.0}
    qrels = {number: {f"{number} answer": 1} for number in queries}
    return Candidates(EvaluationSet("traps", queries, documents, qrels), run)


def traps_passed(scores: Floats) -> dict[str, list[int]]:
    """How many traps of each language have the answer first, by scoring.

    Args:
        scores: Of the pairs of `trap_candidates`, (n_scorings, n_pairs).
    """
    right = scores[:, 0::2] > scores[:, 1::2]
    languages = np.array([row["language"] for row in read_rows(KEYWORD_TRAPS)])
    return {
        language: right[:, languages == language].sum(axis=1).tolist()
        for language in dict.fromkeys(languages.tolist())
    }


def obvious_figures(scorer: PairScorer, head: Head) -> list[dict[str, object]]:
    """The scores of obvious answers and of obvious non-answers."""
    found: list[dict[str, object]] = []
    for row in read_rows(OBVIOUS_PAIRS):
        values = _logits(scorer, head, row["query"], [row["answer"], row["other"]])
        answer, other = sigmoid(np.array(values, dtype=np.float32)).round(4).tolist()
        found.append({"query": row["query"], "answer": answer, "other": other})
    return found


def _logits(scorer: PairScorer, head: Head, query: str, documents: list[str]) -> list[float]:
    pairs = [(0, number) for number in range(len(documents))]
    return logits(scorer.features([query], documents, pairs, ""), head).tolist()


def read_rows(path: Path) -> list[dict[str, str]]:
    """JSON lines of strings."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _one(scorer: PairScorer, head: Head, trap: Trap) -> dict[str, object]:
    documents = [*trap.answers, *trap.distractors]
    pairs = [(0, i) for i in range(len(documents))]
    features = scorer.features([trap.query], documents, pairs, trap.name)
    scores = logits(features, head)
    n_answers = len(trap.answers)
    return {
        "name": trap.name,
        "query": trap.query,
        "is_known_limit": trap.is_known_limit,
        "passed": bool(scores[:n_answers].min() > scores[n_answers:].max()),
        "documents": _rows(documents, features, head, n_answers),
    }


def _rows(
    documents: list[str], features: Floats, head: Head, n_answers: int
) -> list[dict[str, object]]:
    scores = logits(features, head)
    return [
        {
            "document": document,
            "is_answer": i < n_answers,
            "in_phrases": round(float(features[i, IN_PHRASES]), 4),
            "cosine": round(float(features[i, COSINE]), 4),
            "logit": round(float(scores[i]), 3),
            "score": round(float(sigmoid(scores)[i]), 4),
        }
        for i, document in enumerate(documents)
    ]
