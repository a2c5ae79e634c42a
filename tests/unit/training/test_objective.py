from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from training.batches import Document, Task
from training.folder import UNFITTED
from training.matching import logits
from training.objective import (
    ALONE_SCALE,
    BASE_COSINE,
    BASE_SCALE,
    BESIDE_BASE_SCALE,
    Material,
    answers_too,
    divergence,
    teachers_logits,
)
from training.smoke import PLAN
from training.student import Student, match
from training.train import Prepared, new_student

from tamis.engine.location import EMBEDDED_FOLDER


@pytest.fixture(scope="module")
def student() -> Student:
    return new_student(EMBEDDED_FOLDER, PLAN)


def test_the_student_s_logits_are_the_shipped_head_s(student: Student) -> None:
    torch.manual_seed(7)
    states = [torch.randn(n + 3, 384) for n in (5, 60, 300)]
    read = [student.side(part, is_query=False) for part in states]
    asked = [student.side(torch.randn(9, 384), is_query=True)]
    weights = [torch.ones(len(asked[0].tokens))]
    head = replace(UNFITTED, scale=PLAN.scale, offset=PLAN.offset, pooled_offset=PLAN.offset)

    with torch.no_grad():
        maxsim, cosine = match(asked, weights, read)
        found = student.logits(maxsim, cosine, read)

    lengths = torch.tensor([float(len(side.tokens)) for side in read])
    features = torch.stack([maxsim[0], cosine[0], lengths], 1).numpy()
    np.testing.assert_allclose(found[0].numpy(), logits(features, head), rtol=1e-4)


@dataclass(frozen=True)
class Scene:
    """A task with one passage that answers and one that does not, and a short document beside."""

    task: Task
    documents: list[Document]
    material: Material


@pytest.fixture
def scene(prepared: Prepared) -> Scene:
    texts = prepared.texts
    number = next(n for n, q in enumerate(texts.queries) if q.source == "xquad-en")
    place = texts.queries[number].passages[0]
    work = texts.passages[place].work
    other = next(n for n, p in enumerate(texts.passages) if p.work != work)
    asked = np.zeros((len(texts.queries), 2), dtype=np.float32)
    read = np.zeros((len(texts.passages), 2), dtype=np.float32)
    asked[number], read[place], read[other] = (1, 0), (0.5, 0.5), (0.25, 0.5)
    task = Task(number, ("passage", place), (("passage", other),), work)
    documents = [task.answer, *task.negatives, ("short", 0)]
    return Scene(task, documents, replace(prepared.material, teacher=(asked, read)))


def test_translated_texts_are_to_stand_as_the_teacher_has_them(
    student: Student, scene: Scene
) -> None:
    wanted, known = teachers_logits(student, [scene.task], scene.documents, scene.material)

    assert wanted[0, :2].tolist() == pytest.approx([ALONE_SCALE * 0.5, ALONE_SCALE * 0.25])
    assert known[0].tolist() == [True, True, False]


def test_texts_of_one_language_are_to_stand_as_the_base_and_the_teacher_have_them(
    student: Student, scene: Scene
) -> None:
    texts = scene.material.texts
    queries = list(texts.queries)
    queries[scene.task.query] = replace(queries[scene.task.query], source="medquad")
    material = replace(scene.material, texts=replace(texts, queries=queries))
    asked = student.side(material.queries.upper_of(scene.task.query), is_query=True)
    upper = material.documents["passage"].upper_of
    read = [student.side(upper(number), is_query=False) for _, number in scene.documents[:2]]
    maxsim, cosine = match([asked], [material.information[scene.task.query]], read)
    base = BASE_SCALE * (maxsim + BASE_COSINE * cosine) / (1 + BASE_COSINE)

    wanted, known = teachers_logits(student, [scene.task], scene.documents, material)

    teacher = BESIDE_BASE_SCALE * torch.tensor([[0.5, 0.25]])
    torch.testing.assert_close(wanted[:, :2], base + teacher)
    assert known[0].tolist() == [True, True, False]
    no_teacher, _ = teachers_logits(
        student, [scene.task], scene.documents, replace(material, teacher=None)
    )
    torch.testing.assert_close(no_teacher[:, :2], base)


def test_versions_of_the_answer_do_not_count_against_it(prepared: Prepared) -> None:
    one = prepared.texts.translated[0]
    english, chinese = one.passages["en"], one.passages["zh"]
    other = next(n for n, p in enumerate(prepared.texts.passages) if p.work != one.work)
    task = Task(one.queries["en"], ("passage", english), (("passage", other),), one.work)
    documents: list[Document] = [("passage", english), ("passage", chinese), ("passage", other)]

    hidden = answers_too([task], documents, prepared.texts)

    assert hidden.tolist() == [[False, True, False]]


def test_the_divergence_is_nothing_for_the_teachers_own_order_and_grows_with_the_distance() -> None:
    wanted = torch.tensor([[2.0, 1.0, 0.0]])
    known = torch.tensor([[True, True, False]])

    assert float(divergence(wanted + 3, wanted, known)) == pytest.approx(0, abs=1e-6)
    ignored = torch.tensor([[2.0, 1.0, 99.0]])
    assert float(divergence(ignored, wanted, known)) == pytest.approx(0, abs=1e-6)
    near, far = torch.tensor([[2.0, 1.5, 0.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    assert 0 < float(divergence(near, wanted, known)) < float(divergence(far, wanted, known))
    nobody = torch.zeros(1, 3, dtype=torch.bool)
    assert float(divergence(far, wanted, nobody)) == 0
