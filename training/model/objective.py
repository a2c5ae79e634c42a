"""What training minimizes, and how well one step's queries find their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, log_softmax

from training.data.batches import Document, Task
from training.data.texts import Texts
from training.model.base import Floats
from training.model.states import States
from training.model.student import Student

COSINE_SHARE = 0.2  # the pooled cosine alone has to rank, too
OWN_SHARE = 0.5  # a query's own negatives, which look most like answers
CHANCE_SHARE = 0.3  # the sigmoid is to be a chance, for pairs of any query
TEACHER_SHARE = 0.5
TEACHER_SCALE = 20.0
N_FROM_OTHERS = 2  # documents of other queries that count as pairs in addition to a query's own
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
    logits = student.logits(student.blend(maxsim, cosine)).masked_fill(hidden, _NEVER)
    by_cosine = student.logits(cosine).masked_fill(hidden, _NEVER)
    loss = cross_entropy(logits, answers) + COSINE_SHARE * cross_entropy(by_cosine, answers)
    if material.teacher is not None:
        wanted = _teacher_logits(tasks, documents, material.teacher)
        loss = loss + TEACHER_SHARE * _divergence(logits, wanted, hidden)
    rows = _own_and_best(tasks, place, logits)
    loss = loss + OWN_SHARE * _in_each_list(rows) + CHANCE_SHARE * _of_each_pair(rows)
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


def _teacher_logits(
    tasks: list[Task], documents: list[Document], teacher: tuple[Floats, Floats]
) -> Tensor:
    """The teacher's cosines, scaled; -10000 where it does not know the query or the document."""
    asked, read = teacher
    known = [number if kind == "passage" else -1 for kind, number in documents]
    vectors = np.where(np.array(known)[:, None] < 0, 0, read[known])
    cosines = torch.from_numpy(asked[[task.query for task in tasks]] @ vectors.T)
    return (TEACHER_SCALE * cosines).masked_fill(cosines == 0, _NEVER)


def _divergence(logits: Tensor, wanted: Tensor, hidden: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the teacher, over the texts that it knows."""
    unknown = (wanted == _NEVER) | hidden
    known = (~unknown).sum(1) > 1
    if not bool(known.any()):
        return logits.new_zeros(())
    unknown = unknown[known]
    target = log_softmax(wanted[known].masked_fill(unknown, _NEVER), 1)
    found = log_softmax(logits[known].masked_fill(unknown, _NEVER), 1)
    return (target.exp() * (target - found)).sum(1).mean()
