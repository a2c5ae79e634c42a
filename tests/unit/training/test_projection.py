"""What is learned on kept states: it begins as nothing, and ranks what it is shown."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training import manuals
from training.base import Floats
from training.drawing import draw
from training.folder import (
    PHRASE_WEIGHT,
    add_learned,
    read_importance,
    read_projection,
    read_tensors,
    write_weights,
)
from training.judges import Judges
from training.kept import Kept
from training.manuals import manual
from training.matching import IN_PHRASES, SideStates, match, unit
from training.projection import Learner, Projection, ProjectionPlan, in_phrases, learn
from training.smoke import DATA
from training.texts import Passage, Query, Texts

from tamis.engine.heads import similarities
from tamis.engine.location import EMBEDDED_FOLDER

HIDDEN = 16
N_PIECES = 40
PLAN = ProjectionPlan(
    n_steps=25, learning_rate=2e-2, n_groups=1, n_queries=8, judged=0.2, with_packages=False
)


POOLED = unit(np.ones(HIDDEN, dtype=np.float32))


def sides(n: int, seed: int) -> list[SideStates]:
    """Random states of texts of several lengths."""
    chance = np.random.default_rng(seed)
    found: list[SideStates] = []
    for number in range(n):
        length = 3 + number % 5
        states = chance.normal(size=(length, HIDDEN)).astype(np.float32)
        ids = chance.integers(0, N_PIECES, length).tolist()
        found.append(SideStates(unit(states), unit(states.mean(axis=0)), ids))
    return found


def information() -> Floats:
    """What each piece says."""
    return np.linspace(1, 5, N_PIECES, dtype=np.float32)


def some_texts(n: int) -> Texts:
    """Questions of one source, each with a passage of its own."""
    texts = Texts()
    for number in range(n):
        passage = Passage(f"text {number}", "drcd", f"article {number}", f"work {number}", 99)
        place = (texts.place(passage),)
        texts.queries.append(
            Query(f"question {number}", "drcd", passage.group, "question", place, is_held_out=False)
        )
    return texts


def test_phrases_in_torch_are_the_engine_s() -> None:
    cosines = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(1))
    lengths = (9, 4, 1)
    mask = torch.arange(9)[None] < torch.tensor(lengths)[:, None]

    found = in_phrases(cosines, mask).numpy()

    for own, given, length in zip(found, cosines.numpy(), lengths, strict=True):
        wanted = similarities.in_phrases(given[:, :length], np.array([0]), PHRASE_WEIGHT)
        np.testing.assert_allclose(own[:, :length], wanted, rtol=1e-5, atol=1e-6)


def test_at_the_start_a_pair_scores_as_without_a_projection() -> None:
    queries, passages = sides(3, 1), sides(6, 2)
    importance = np.linspace(-1, 1, HIDDEN, dtype=np.float32)
    longest = max(len(side.ids) for side in passages)
    padded, mask = torch.zeros(6, longest, HIDDEN), torch.zeros(6, longest, dtype=torch.bool)
    for row, side in enumerate(passages):
        padded[row, : len(side.ids)] = torch.from_numpy(side.tokens)
        mask[row, : len(side.ids)] = True
    model = Projection(importance, scale=30.0)

    for query in queries:
        weights = torch.from_numpy(information()[query.ids])
        found = model.maxsim(model.tokens(torch.from_numpy(query.tokens)), weights, padded, mask)
        wanted = [
            match([query], side, information(), importance)[0, IN_PHRASES] for side in passages
        ]
        np.testing.assert_allclose(found.detach(), wanted, rtol=1e-5)


def test_it_learns_to_rank_the_answer_and_goes_the_share_of_the_way() -> None:
    texts = some_texts(12)
    # The first dimensions say what a text is about, the others nothing.
    about = np.random.default_rng(5).normal(size=(12, 4, HIDDEN // 2))
    queries, passages = (
        [
            SideStates(unit(np.concatenate([own, 2 * noise], axis=1)).astype("f4"), POOLED, [5] * 4)
            for own, noise in zip(
                about, np.random.default_rng(seed).normal(size=about.shape), strict=True
            )
        ]
        for seed in (6, 7)
    )
    kept = (Kept.of(queries), Kept.of(passages))
    judges = Judges(texts, *kept, None)
    assert judges.answers == list(range(12))
    assert all(number not in found for number, found in enumerate(judges.lookalikes))
    importance = np.zeros(HIDDEN, dtype=np.float32)

    def learned(share: float) -> tuple[Floats, list[float]]:
        plan = replace(PLAN, share=share)
        torch.manual_seed(1)
        found = Learner(texts, kept, judges, information(), importance, plan).learn()
        assert found.n_questions == {"drcd": 12}
        return found.projection, found.losses

    whole, losses = learned(share=1.0)
    half, again = learned(share=0.5)

    assert losses == again
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    np.testing.assert_allclose(half, (whole + np.eye(HIDDEN)) / 2, atol=1e-6)
    kept_parts, lost = np.split(np.diag(whole), 2)
    assert kept_parts.mean() > lost.mean() + 0.1


def test_states_are_kept_and_read_back(tmp_path: Path) -> None:
    texts = sides(4, 8)
    kept = Kept.of(texts)
    kept.save(tmp_path / "states.npz")

    found = Kept.load(tmp_path / "states.npz")

    for number, side in enumerate(texts):
        text = found.text(number)
        np.testing.assert_allclose(found.tokens[text], side.tokens, atol=1e-3)
        assert found.ids[text].tolist() == side.ids
        np.testing.assert_array_equal(found.pooled[number], side.pooled)


def test_what_is_drawn_is_of_no_held_out_article(texts: Texts) -> None:
    held_out = {one.work for one in texts.translated if one.is_held_out}
    assert held_out

    drawn = draw(texts, 100, 80)

    assert {passage.work for passage in drawn.passages}.isdisjoint(held_out)
    assert len(drawn.queries) == 80  # the slice has no other files
    assert [q.text for q in draw(texts, 100, 80).queries] == [q.text for q in drawn.queries]
    used = {number for query in drawn.queries for number in query.passages}
    assert used == set(range(len(drawn.passages)))
    languages: dict[str, set[str]] = {}
    for passage in drawn.passages:
        languages.setdefault(passage.work, set()).add(passage.source)
    assert max(map(len, languages.values())) <= 4


def test_what_was_learned_stands_in_the_folder_beside_all_else(tmp_path: Path) -> None:
    chance = np.random.default_rng(9)
    tensors = {
        "embeddings.word_embeddings.weight": chance.normal(size=(5, HIDDEN)).astype("f4"),
        "embeddings.LayerNorm.weight": np.ones(HIDDEN, dtype="f4"),
        "maxsim.importance": np.ones(HIDDEN, dtype="f4"),
    }
    write_weights(tmp_path, tensors, quantized=True)
    before = read_tensors(tmp_path)
    assert read_projection(tmp_path) is None
    projection = chance.normal(size=(HIDDEN, HIDDEN)).astype("f4")
    importance = chance.normal(size=HIDDEN).astype("f4")

    add_learned(tmp_path, {"maxsim.projection": projection, "maxsim.importance": importance})

    found = read_projection(tmp_path)
    assert found is not None
    np.testing.assert_allclose(found, projection, atol=2e-3)
    np.testing.assert_allclose(read_importance(tmp_path), importance, atol=2e-3)
    for name in list(tensors)[:2]:
        np.testing.assert_array_equal(read_tensors(tmp_path)[name], before[name])


CODE = '''
def flow(x):
    """Computes the pressure drop of a fluid in a pipe.

    The drop grows with the square of the velocity of :math:`v` in turbulent flow, and with the
    length of the pipe, which makes long pipes of little width dear to run; a wider pipe costs
    more to lay, and less to run for all the years that it lies in the ground.

    Parameters
    ----------
    x : float
        This does not count as prose of the manual, whatever stands in it here and there.

    Notes
    -----
    Rough walls make the drop larger than `smooth` ones do [1]_.
    """

def short(x):
    """Does something."""
'''


def test_a_summary_asks_for_the_prose_of_its_docstring() -> None:
    ((summary, rest),) = manual(CODE)

    assert summary == "Computes the pressure drop of a fluid in a pipe."
    assert rest.startswith("The drop grows with the square of the velocity of v in turbulent flow")
    assert rest.endswith("Rough walls make the drop larger than smooth ones do.")
    assert "does not count" not in rest


def test_manuals_are_read_from_wheels_that_are_there_without_their_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manuals" / "pipe_flow-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("pipe_flow/core.py", CODE)
        wheel.writestr("pipe_flow/tests/test_core.py", CODE.replace("pressure", "other"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(manuals, "PACKAGES", {"pipe-flow==1.0": sha256})

    (row,) = manuals.read_manuals(tmp_path)

    assert (row.language, row.group) == ("en", "pipe_flow pipe_flow/core.py")


def test_bm25_and_the_teacher_judge_english_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = Texts()
    for source in ("medquad", "drcd"):
        for word in ("measles", "rickets", "scurvy"):
            text = f"{word} is a disease that physicians know, {source}"
            place = (texts.place(Passage(text, source, f"{source} {word}", text, 99)),)
            texts.queries.append(
                Query(f"what is {word}", source, word, "question", place, is_held_out=False)
            )
    vectors = np.eye(6, dtype=np.float32)
    vectors[3:] = 0  # what the teacher does not read
    monkeypatch.setattr("training.judges.teacher_vectors", lambda *_: (vectors, vectors))
    kept = (Kept.of(sides(6, 1)), Kept.of(sides(6, 2)))

    judges = Judges(texts, *kept, tmp_path)

    assert judges.bm25(1, [0, 1, 2]).argmax() == 1
    assert judges.bm25(1, [2, 1]).max() == 1
    assert not judges.bm25(4, [3, 4, 5]).any()
    cosines = judges.teacher([0, 1], [1, 2])
    assert cosines is not None
    assert cosines.tolist() == [[0, 0], [1, 0]]
    assert judges.teacher([3, 4], [3, 4]) is None
    assert judges.teacher([0], [0, 5]) is None
    assert Judges(texts, *kept, None).teacher([0, 1], [1, 2]) is None
    assert sorted(judges.lookalikes[0]) == [1, 2]


def test_the_judges_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_texts(6)
    kept = (Kept.of(sides(6, 3)), Kept.of(sides(6, 4)))
    judges = Judges(texts, *kept, None)
    # they hold the passage behind the answer for the best
    found = np.roll(np.eye(6, dtype=np.float32), 1, axis=1)
    monkeypatch.setattr(judges, "teacher", lambda asked, read: found[np.ix_(asked, read)])
    plan = replace(PLAN, judged=1.0, own=0.0, teacher=8.0, n_steps=40)
    importance = np.zeros(HIDDEN, dtype=np.float32)

    learned = Learner(texts, kept, judges, information(), importance, plan).learn()

    assert np.mean(learned.losses[-5:]) < 0.6 * np.mean(learned.losses[:5])


def test_a_model_that_has_a_projection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has a projection already"):
        learn(EMBEDDED_FOLDER, DATA, tmp_path, PLAN)
