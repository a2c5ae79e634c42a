"""BM25: the first stage whose candidates are reranked, and the reference for every figure."""

from __future__ import annotations

import re

import bm25s  # type: ignore[import-untyped]  # ships no types
import numpy as np
import Stemmer  # type: ignore[import-not-found]  # ships no types
from numpy.typing import NDArray

from training.data.corpora import JUDGED_CANDIDATES, EvaluationSet

N_CANDIDATES = 50

# Languages whose texts are taken by character.
HAN_LANGUAGES = ("zh", "zh-Hant", "ja", "th")

_HAN_RUN = re.compile(r"[㐀-鿿豈-﫿ぁ-ヿ]+|[a-z0-9]+")

Run = dict[str, dict[str, float]]


class Bm25:
    """BM25 (bm25s, its defaults) over a list of documents.

    English: stop words and stemmer. Chinese and Japanese: character uni- and bigrams, and
    Latin words as they stand.
    """

    def __init__(self, documents: list[str], *, han: bool) -> None:
        self._han = han
        self._index = bm25s.BM25()
        self._index.index(self._terms(documents), show_progress=False)

    def scores(self, query: str) -> NDArray[np.float32]:
        """Scores every document, in the order given to the constructor."""
        terms = [term for term in self._terms([query])[0] if term in self._index.vocab_dict]
        if not terms:
            return np.zeros(self._index.scores["num_docs"], dtype=np.float32)
        found: NDArray[np.float32] = self._index.get_scores(terms)
        return found

    def _terms(self, texts: list[str]) -> list[list[str]]:
        if self._han:
            return [character_terms(text) for text in texts]
        tokenized: list[list[str]] = bm25s.tokenize(
            texts,
            stopwords="en",
            stemmer=Stemmer.Stemmer("english"),
            return_ids=False,
            show_progress=False,
        )
        return tokenized


def character_terms(text: str) -> list[str]:
    """Uni- and bigrams of each run of Han or kana; other letters and digits as words."""
    terms: list[str] = []
    for run in _HAN_RUN.findall(text.lower()):
        if run.isascii():
            terms.append(run)
            continue
        terms.extend(run)
        terms.extend(run[i : i + 2] for i in range(len(run) - 1))
    return terms


def candidates(evaluation: EvaluationSet) -> Run:
    """Returns each query's candidates with their BM25 scores.

    The best 50 of the corpus, or the judged documents where a set brings its own candidates.
    """
    ids = list(evaluation.documents)
    place = {document: i for i, document in enumerate(ids)}
    index = Bm25(list(evaluation.documents.values()), han=evaluation.is_chinese)
    run: Run = {}
    for query, text in evaluation.queries.items():
        scores = index.scores(text)
        if evaluation.name in JUDGED_CANDIDATES:
            chosen = [place[document] for document in evaluation.qrels[query]]
        else:
            chosen = np.argsort(-scores, kind="stable")[:N_CANDIDATES].tolist()
        run[query] = {ids[i]: float(scores[i]) for i in chosen}
    return run
