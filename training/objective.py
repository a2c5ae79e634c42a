"""What training minimizes, and how well one step's queries find their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, log_softmax

from training.base import Floats
from training.batches import Document, Task
from training.states import States
from training.student import Student, match
from training.texts import Texts

ANSWER_SHARE = 0.7  # the answer before all other documents of the step
COSINE_SHARE = 0.2  # the pooled cosine alone has to rank, too
OWN_SHARE = 0.5  # a query's own negatives, which look most like answers
CHANCE_SHARE = 0.3  # the sigmoid is to be a chance, for pairs of any query
TEACHER_SHARE = 1.0

# What the teachers' logits are. In one language's files: the untrained base's MaxSim and cosine and
# the teacher's cosine, each times what makes their spreads about equal, and BM25's share. Of
# translated texts: the teacher's cosine alone, since the base prefers the query's language.
BASE_SCALE = 60.0
BASE_COSINE = 0.25
BESIDE_BASE_SCALE = 12.0
BM25_SCALE = 3.0
ALONE_SCALE = 20.0
N_FROM_OTHERS = 2  # documents of other queries that count as pairs beside a query's own
_NEVER = -1e4


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Everything a step is computed from.

    Attributes:
        queries: States of queries below the trained layers.
        documents: The same of documents, by kind (`passage`, `short`).
        information: How rare each text token of a query is, by its number.
        teacher: The teacher's vectors of queries and passages, 0 where it has none; None without.
    """

    texts: Texts
    queries: States
    documents: Mapping[str, States]
    information: Sequence[Tensor]
    teacher: tuple[Floats, Floats] | None


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One step's loss, and the share of queries whose answer stands first.

    Attributes:
        first: Among all documents of the step, by the logit.
        first_by_cosine: The same by the pooled cosine alone.
        first_of_short: The same of queries with short documents, among their own.
    """

    loss: Tensor
    first: float
    first_by_cosine: float
    first_of_short: float


def compute(student: Student, tasks: list[Task], material: Material) -> Outcome:
    """The loss of one step's tasks; each query sees the documents of all of them."""
    documents = list(dict.fromkeys(d for task in tasks for d in (task.answer, *task.negatives)))
    place = {document: number for number, document in enumerate(documents)}
    asked = student.encode([material.queries.of(task.query) for task in tasks], is_query=True)
    lower = [material.documents[kind].of(number) for kind, number in documents]
    read = student.encode(lower, is_query=False)
    information = [material.information[task.query] for task in tasks]
    maxsim, cosine = student.match(asked, information, read)
    hidden = answers_too(tasks, documents, material.texts)
    answers = torch.tensor([place[task.answer] for task in tasks])
    logits = student.logits(maxsim, cosine, read).masked_fill(hidden, _NEVER)
    by_cosine = student.logits_by_cosine(cosine).masked_fill(hidden, _NEVER)
    wanted, known = teachers_logits(student, tasks, documents, material)
    known &= ~hidden
    rows = _own_and_best(tasks, place, logits)
    loss = (
        ANSWER_SHARE * cross_entropy(logits, answers)
        + COSINE_SHARE * cross_entropy(by_cosine, answers)
        + TEACHER_SHARE * divergence(logits, wanted, known)
        + OWN_SHARE * _in_each_list(rows)
        + OWN_SHARE * _from_bm25_too(tasks, place, logits, (wanted, known))
        + CHANCE_SHARE * _of_each_pair(rows)
    )
    short = [row for row, task in zip(rows, tasks, strict=True) if task.answer[0] == "short"]
    return Outcome(
        loss,
        first=float((logits.argmax(1) == answers).float().mean()),
        first_by_cosine=float((by_cosine.argmax(1) == answers).float().mean()),
        first_of_short=float(np.mean([int(row.argmax()) == 0 for row in short] or [0.0])),
    )


def answers_too(tasks: list[Task], documents: list[Document], texts: Texts) -> Tensor:
    """True where a document is a version of the answer's text but not the answer itself."""
    works: list[str | None] = [
        texts.passages[number].work if kind == "passage" else None for kind, number in documents
    ]
    of_short = {task.answer: task.work for task in tasks if task.answer[0] == "short"}
    works = [of_short.get(d, work) for d, work in zip(documents, works, strict=True)]
    rows = [
        [w == task.work and d != task.answer for d, w in zip(documents, works, strict=True)]
        for task in tasks
    ]
    return torch.tensor(rows)


def _own_and_best(tasks: list[Task], place: Mapping[Document, int], logits: Tensor) -> list[Tensor]:
    """Each query's logits of its answer, its negatives, and the best of the others' documents."""
    rows: list[Tensor] = []
    for task, row in zip(tasks, logits, strict=True):
        values = row.detach()
        own = [place[document] for document in (task.answer, *task.negatives)]
        order = values.topk(min(len(row), len(own) + N_FROM_OTHERS)).indices.tolist()
        others = [n for n in order if n not in own and float(values[n]) > _NEVER]
        rows.append(row[own + others[:N_FROM_OTHERS]])
    return rows


def _in_each_list(rows: Sequence[Tensor]) -> Tensor:
    """Cross entropy of each list, whose first is the answer."""
    return torch.stack([cross_entropy(row[None], torch.tensor([0])) for row in rows]).mean()


def _of_each_pair(rows: Sequence[Tensor]) -> Tensor:
    """Cross entropy of each pair by itself; answers count as much as all else."""
    answers = torch.stack([row[0] for row in rows])
    others = torch.cat([row[1:] for row in rows])
    return binary_cross_entropy_with_logits(
        answers, torch.ones_like(answers)
    ) + binary_cross_entropy_with_logits(others, torch.zeros_like(others))


@torch.no_grad()
def teachers_logits(
    student: Student, tasks: list[Task], documents: list[Document], material: Material
) -> tuple[Tensor, Tensor]:
    """What a query's passages are to be ranked like.

    Returns:
        The logits (n_tasks, n_documents), and where there is a view of the pair at all.
    """
    wanted = torch.zeros(len(tasks), len(documents))
    known = torch.zeros(len(tasks), len(documents), dtype=torch.bool)
    columns = [n for n, (kind, _) in enumerate(documents) if kind == "passage"]
    passages = [documents[n][1] for n in columns]
    by_teacher = _teachers_cosines([task.query for task in tasks], passages, material.teacher)
    across = [n for n, task in enumerate(tasks) if _is_across(task, material.texts)]
    wanted[np.ix_(across, columns)] = ALONE_SCALE * by_teacher[across]
    known[np.ix_(across, columns)] = by_teacher[across] != 0  # it does not read all texts
    own = [n for n, t in enumerate(tasks) if t.answer[0] == "passage" and n not in across]
    if own:
        queries = [tasks[n].query for n in own]
        asked = [student.side(material.queries.upper_of(q), is_query=True) for q in queries]
        upper = material.documents["passage"].upper_of
        read = [student.side(upper(number), is_query=False) for number in passages]
        maxsim, cosine = match(asked, [material.information[query] for query in queries], read)
        by_base = (maxsim + BASE_COSINE * cosine) / (1 + BASE_COSINE)
        wanted[np.ix_(own, columns)] = BASE_SCALE * by_base + BESIDE_BASE_SCALE * by_teacher[own]
        known[np.ix_(own, columns)] = True
    return wanted, known


def _is_across(task: Task, texts: Texts) -> bool:
    return task.answer[0] == "passage" and texts.queries[task.query].source.startswith("xquad")


def _teachers_cosines(
    queries: list[int], passages: list[int], teacher: tuple[Floats, Floats] | None
) -> Tensor:
    """0 where it does not know the query or the passage, (n_queries, n_passages)."""
    if teacher is None:
        return torch.zeros(len(queries), len(passages))
    asked, read = teacher
    return torch.from_numpy(asked[queries] @ read[passages].T)


def divergence(logits: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the teachers, over what they have a view of."""
    compared = known.sum(1) > 1
    if not bool(compared.any()):
        return logits.new_zeros(())
    unknown = ~known[compared]
    target = log_softmax(wanted[compared].masked_fill(unknown, _NEVER), 1)
    found = log_softmax(logits[compared].masked_fill(unknown, _NEVER), 1)
    return (target.exp() * (target - found)).sum(1).mean()


def _from_bm25_too(
    tasks: list[Task], place: Mapping[Document, int], logits: Tensor, views: tuple[Tensor, Tensor]
) -> Tensor:
    """The same divergence over own lists, where BM25 has a say."""
    found: list[Tensor] = []
    for task, row, wanted, known in zip(tasks, logits, *views, strict=True):
        if task.shares:
            own = [place[document] for document in (task.answer, *task.negatives)]
            aim = wanted[own] + BM25_SCALE * torch.tensor(task.shares)
            found.append(divergence(row[own][None], aim[None], known[own][None]))
    return torch.stack(found).mean() if found else logits.new_zeros(())
