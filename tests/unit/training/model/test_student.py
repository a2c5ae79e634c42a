from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from training.data import batches
from training.data.negatives import RankingList
from training.measure.matching import COSINE, MAXSIM, SideStates, match
from training.model.objective import compute
from training.model.student import Side
from training.model.train import Plan, Prepared, Trainer, new_student
from training.smoke import PLAN

from tests.unit.training.narrow import HIDDEN


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of few queries."""
    monkeypatch.setattr(batches, "N_TRANSLATED", 2)
    monkeypatch.setattr(batches, "N_SHORT", 3)


def side(n_tokens: int) -> Side:
    """A text of random states."""
    tokens = normalize(torch.randn(n_tokens, HIDDEN), dim=-1)
    return Side(tokens, normalize(torch.randn(HIDDEN), dim=0))


def test_the_student_matches_as_the_measured_head_does(narrow: Path) -> None:
    torch.manual_seed(5)
    student = new_student(narrow, PLAN)
    student.importance.data = torch.randn(HIDDEN) / 10
    queries, documents = [side(3), side(5)], [side(9), side(4), side(1)]
    information = [torch.rand(3), torch.rand(5)]
    weights = torch.cat(information).numpy()
    ids = [list(range(3)), list(range(3, 8))]
    measured = [
        SideStates(query.tokens.numpy(), query.pooled.numpy(), numbers)
        for query, numbers in zip(queries, ids, strict=True)
    ]
    importance = student.tensors()["maxsim.importance"]

    with torch.no_grad():
        maxsim, cosine = student.match(queries, information, documents)

    for column, document in enumerate(documents):
        read = SideStates(document.tokens.numpy(), document.pooled.numpy(), [1])
        wanted = match(measured, read, weights, importance)
        np.testing.assert_allclose(maxsim[:, column].numpy(), wanted[:, MAXSIM], atol=1e-5)
        np.testing.assert_allclose(cosine[:, column].numpy(), wanted[:, COSINE], atol=1e-5)


def test_a_training_that_was_stopped_ends_where_one_in_one_go_does(
    narrow: Path, prepared: Prepared, tmp_path: Path
) -> None:
    def trainer(folder: str) -> Trainer:
        return Trainer(new_student(narrow, PLAN), prepared, PLAN, tmp_path / folder)

    whole = trainer("whole")
    whole.run()
    stopped = trainer("stopped")
    stopped.run(until=2)
    resumed = trainer("stopped")
    resumed.run()

    assert resumed.curves[-1]["step"] == whole.curves[-1]["step"] == PLAN.n_steps
    for name, tensor in whole.student.tensors().items():
        np.testing.assert_array_equal(resumed.student.tensors()[name], tensor, err_msg=name)


def other_negatives(prepared: Prepared) -> Prepared:
    """The same with one more candidate in a list."""
    first, *others = prepared.lists
    longer = RankingList((*first.passages, 0), (*first.cosines, 0.5))
    return replace(prepared, lists=[longer, *others])


def other_teacher(prepared: Prepared) -> Prepared:
    """The same with something of a teacher."""
    vectors = np.zeros((1, 2), dtype=np.float32)
    return replace(prepared, material=replace(prepared.material, teacher=(vectors, vectors)))


@pytest.mark.parametrize(
    ("plan", "change"),
    [
        (replace(PLAN, rate=2 * PLAN.rate), lambda prepared: prepared),
        (PLAN, other_negatives),
        (PLAN, other_teacher),
    ],
    ids=["plan", "negatives", "teacher"],
)
def test_a_checkpoint_of_another_training_is_refused(
    narrow: Path,
    prepared: Prepared,
    tmp_path: Path,
    plan: Plan,
    change: Callable[[Prepared], Prepared],
) -> None:
    Trainer(new_student(narrow, PLAN), prepared, PLAN, tmp_path).run(until=1)

    with pytest.raises(ValueError, match=r"checkpoint\.pt is of another plan"):
        Trainer(new_student(narrow, plan), change(prepared), plan, tmp_path).run()


def test_how_far_to_mix_is_chosen_after_the_training(
    narrow: Path, prepared: Prepared, tmp_path: Path
) -> None:
    Trainer(new_student(narrow, PLAN), prepared, PLAN, tmp_path).run(until=1)
    other = replace(PLAN, mixing=PLAN.mixing / 2)

    found = Trainer(new_student(narrow, other), prepared, other, tmp_path)
    found.run(until=1)

    assert [row["step"] for row in found.curves] == [1]


def test_steps_bring_the_loss_of_what_they_see_down(
    narrow: Path, prepared: Prepared, tmp_path: Path
) -> None:
    trainer = Trainer(new_student(narrow, PLAN), prepared, PLAN, tmp_path)
    tasks = trainer.batches.step(0)

    with torch.no_grad():
        before = float(compute(trainer.student, tasks, prepared.material).loss)
    trainer.run()
    with torch.no_grad():
        after = float(compute(trainer.student, tasks, prepared.material).loss)

    assert after < before
