"""A projection of the token states that are matched, learned on kept states: the encoder is done.

The matrix begins as the unit matrix, and with it go on what was learned of query tokens. A step has
groups of queries of one source, each with its answer and passages that look like it; all passages
of a group are ranked for each of its queries, by MaxSim in phrases. The aim is the answer, and
more than that what several judges say together: the model before the projection, all-MiniLM-L6-v2
on English, BM25 on English files. At the end a share of the way is kept.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, normalize
from tqdm import tqdm

from training.data.drawing import draw
from training.data.manuals import read_manuals
from training.data.texts import Texts, read_texts
from training.measure.matching import token_weights
from training.model.base import Floats
from training.model.folder import (
    IMPORTANCE,
    PHRASE_WEIGHT,
    PROJECTION,
    read_importance,
    read_projection,
    read_scores,
    read_tokenizer,
)
from training.model.judges import Judges
from training.model.kept import Kept, encode, fingerprint
from training.model.student import IMPORTANCE_SCALE
from training.saving import save_arrays

_NEVER = -1e4
_WARM_UP = 20


@dataclass(frozen=True, slots=True)
class ProjectionPlan:
    """How the projection is learned.

    Attributes:
        n_questions: Number of questions drawn from the files of one language.
        n_translated: Number drawn from XQuAD, mostly with a passage in another language.
        with_packages: Whether technical English and the teacher are fetched.
        share: How far to go from the unit matrix to what was learned.
        judged: The judges' share of the loss; the rest is the answer's.
        own, teacher, lexical: What the judges' scores are multiplied by: MaxSim in phrases of the
            model itself, the teacher's cosine, BM25's share of the best.
    """

    seed: int = 2
    n_questions: int = 6500
    n_translated: int = 1500
    with_packages: bool = True
    n_steps: int = 100
    learning_rate: float = 1e-3
    n_groups: int = 4
    n_queries: int = 8
    n_negatives: int = 4
    scale: float = 30.0
    share: float = 0.5
    judged: float = 0.8
    own: float = 40.0
    teacher: float = 12.0
    lexical: float = 3.0


@dataclass(frozen=True, slots=True)
class Learned:
    """What the head has learned: (hidden, hidden) and (hidden,); from what; the loss by step."""

    projection: Floats
    importance: Floats
    n_questions: dict[str, int]
    losses: list[float]

    @classmethod
    def load(cls, path: Path) -> Learned:
        """Reads what was saved."""
        with np.load(path) as file:
            counts = dict(zip(file["sources"].tolist(), file["counts"].tolist(), strict=True))
            return cls(file["projection"], file["importance"], counts, file["losses"].tolist())

    def save(self, path: Path) -> None:
        """Writes all of it."""
        save_arrays(
            path,
            projection=self.projection,
            importance=self.importance,
            sources=np.array(list(self.n_questions)),
            counts=np.array(list(self.n_questions.values())),
            losses=np.array(self.losses),
        )

    def tensors(self) -> dict[str, Floats]:
        """By name."""
        return {PROJECTION: self.projection, IMPORTANCE: self.importance}


class Projection(nn.Module):
    """The matrix and the importance while they are learned."""

    def __init__(self, importance: Floats, scale: float) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(len(importance)))
        self.importance = nn.Parameter(torch.from_numpy(importance) / IMPORTANCE_SCALE)
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def tokens(self, states: Tensor) -> Tensor:
        """Unit token states, projected; (n_tokens, hidden)."""
        return normalize(states @ self.matrix, dim=-1)

    def maxsim(self, query: Tensor, information: Tensor, passages: Tensor, mask: Tensor) -> Tensor:
        """One query with passages; all of their tokens are projected already.

        Args:
            query: (n_query_tokens, hidden).
            information: What each of its tokens says by the vocabulary, (n_query_tokens,).
            passages: (n_passages, longest, hidden); 0 behind a passage's end.
            mask: Where there is a token, (n_passages, longest).

        Returns:
            (n_passages,).
        """
        weights = information * (IMPORTANCE_SCALE * query @ self.importance).exp()
        similarities = in_phrases((passages @ query.T).transpose(1, 2), mask)
        best = similarities.masked_fill(~mask[:, None], _NEVER).amax(2)
        return best @ (weights / weights.sum())


def in_phrases(cosines: Tensor, mask: Tensor) -> Tensor:
    """As `tamis.engine.heads.similarities.in_phrases`, (n_passages, n_query_tokens, longest).

    Args:
        cosines: Of a query's tokens and those of passages; anything where there is no token.
        mask: Where there is a token, (n_passages, longest).
    """
    before, behind = cosines.clone(), cosines.clone()
    before[:, 1:, 1:] = cosines[:, :-1, :-1]
    behind[:, :-1, :-1] = torch.where(mask[:, None, 1:], cosines[:, 1:, 1:], cosines[:, :-1, :-1])
    return (cosines + PHRASE_WEIGHT * (before + behind)) / (1 + 2 * PHRASE_WEIGHT)


class Learner:
    """Steps of the learning over kept states."""

    def __init__(
        self,
        texts: Texts,
        kept: tuple[Kept, Kept],
        judges: Judges,
        information: Floats,
        importance: Floats,
        plan: ProjectionPlan,
    ) -> None:
        self._texts = texts
        self._queries, self._passages = kept
        self._judges = judges
        self._information = torch.from_numpy(information)
        self._plan = plan
        self._chance = random.Random(plan.seed)
        self._first = importance
        self._now = Projection(importance, plan.scale)
        self._before = Projection(importance, plan.scale)
        self._pools: dict[str, list[int]] = {}
        for number, query in enumerate(texts.queries):
            asked, answer = self._queries.text(number), self._passages.text(judges.answers[number])
            if (
                asked.start < asked.stop
                and answer.start < answer.stop
                and judges.lookalikes[number]
            ):
                source = query.source.partition("-")[0]
                self._pools.setdefault(source, []).append(number)

    def learn(self) -> Learned:
        """All steps; a share of the way is what comes of it."""
        plan, now = self._plan, self._now
        optimizer = torch.optim.Adam(now.parameters(), lr=plan.learning_rate)
        losses: list[float] = []
        for step in tqdm(range(plan.n_steps), desc="projection", mininterval=5):
            rate = min(1, (step + 1) / _WARM_UP) * (1 - step / plan.n_steps)
            optimizer.param_groups[0]["lr"] = plan.learning_rate * rate
            optimizer.zero_grad()
            loss = torch.stack([self._loss(self._group()) for _ in range(plan.n_groups)]).mean()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            optimizer.step()
            losses.append(round(float(loss.detach()), 4))
        matrix = plan.share * now.matrix.detach().numpy()
        matrix += (1 - plan.share) * np.eye(len(matrix), dtype=np.float32)
        importance = plan.share * IMPORTANCE_SCALE * now.importance.detach().numpy()
        importance += (1 - plan.share) * self._first
        sources = Counter(query.source.partition("-")[0] for query in self._texts.queries)
        return Learned(_float32(matrix), _float32(importance), dict(sources), losses)

    def _group(self) -> list[int]:
        names = list(self._pools)
        (name,) = self._chance.choices(names, [len(self._pools[name]) for name in names])
        pool = self._pools[name]
        return self._chance.sample(pool, min(self._plan.n_queries, len(pool)))

    def _loss(self, queries: list[int]) -> Tensor:
        answers = [self._judges.answers[query] for query in queries]
        passages = list(dict.fromkeys([*answers, *self._negatives(queries)]))
        scores = self._now.log_scale.exp() * self._scores(self._now, queries, passages)
        works = [self._texts.passages[number].work for number in passages]
        asked = [self._texts.passages[answer].work for answer in answers]
        also = [
            [work == own and number != answer for work, number in zip(works, passages, strict=True)]
            for own, answer in zip(asked, answers, strict=True)
        ]
        hidden = torch.tensor(also)
        scores = scores.masked_fill(hidden, _NEVER)
        wanted = self._judged(queries, passages).masked_fill(hidden, _NEVER)
        places = torch.tensor([passages.index(answer) for answer in answers])
        logs = log_softmax(wanted, 1)
        divergence = (logs.exp() * (logs - log_softmax(scores, 1))).sum(1).mean()
        judged = self._plan.judged
        return (1 - judged) * cross_entropy(scores, places) + judged * divergence

    def _negatives(self, queries: list[int]) -> list[int]:
        found: list[int] = []
        for query in queries:
            pool = self._judges.lookalikes[query]
            found += self._chance.sample(pool, min(self._plan.n_negatives, len(pool)))
        return found

    def _scores(self, model: Projection, queries: list[int], passages: list[int]) -> Tensor:
        """MaxSim in phrases of each query with each passage, (n_queries, n_passages)."""
        read = [_states(self._passages, number) for number in passages]
        mask = torch.zeros(len(read), max(map(len, read)), dtype=torch.bool)
        for row, tokens in zip(mask, read, strict=True):
            row[: len(tokens)] = True
        padded = torch.zeros(*mask.shape, read[0].shape[1])
        padded[mask] = model.tokens(torch.cat(read))
        rows: list[Tensor] = []
        for query in queries:
            ids = torch.from_numpy(self._queries.ids[self._queries.text(query)]).long()
            tokens = model.tokens(_states(self._queries, query))
            rows.append(model.maxsim(tokens, self._information[ids], padded, mask))
        return torch.stack(rows)

    @torch.no_grad()
    def _judged(self, queries: list[int], passages: list[int]) -> Tensor:
        plan = self._plan
        wanted = plan.own * self._scores(self._before, queries, passages)
        lexical = [self._judges.bm25(query, passages) for query in queries]
        wanted = wanted + plan.lexical * torch.from_numpy(np.stack(lexical))
        cosines = self._judges.teacher(queries, passages)
        return wanted if cosines is None else wanted + plan.teacher * torch.from_numpy(cosines)


def _float32(array: NDArray[np.floating]) -> Floats:
    return array.astype(np.float32)


def _states(kept: Kept, number: int) -> Tensor:
    return torch.from_numpy(kept.tokens[kept.text(number)].astype(np.float32))


def learn(folder: Path, data: Path, work: Path, plan: ProjectionPlan) -> Learned:
    """Draws what is learned from, encodes it with a model folder, learns: all of it once.

    Raises:
        ValueError: the model already has a projection, which would be lost.
    """
    if read_projection(folder) is not None:
        raise ValueError(f"{folder} has a projection already")
    manuals = read_manuals(work) if plan.with_packages else []
    texts = read_texts(data, read_tokenizer(folder), manuals)
    drawn = draw(texts, plan.n_questions, plan.n_translated)
    key = hashlib.sha256(repr((fingerprint(folder, drawn), plan)).encode()).hexdigest()[:16]
    path = work / "projection" / f"learned-{key}.npz"
    if not path.exists():
        torch.manual_seed(plan.seed)
        kept = encode(folder, drawn, work)
        judges = Judges(drawn, *kept, work if plan.with_packages else None)
        weights = token_weights(read_scores(folder))
        Learner(drawn, kept, judges, weights, read_importance(folder), plan).learn().save(path)
    return Learned.load(path)
