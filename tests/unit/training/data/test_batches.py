from training.data.batches import Batches, Document, Task
from training.data.lookalikes import Lookalikes
from training.model.train import Prepared

N_STEPS = 20


def steps(prepared: Prepared, *, held_out: bool = False) -> list[Task]:
    """The tasks of some steps."""
    short = Lookalikes() if held_out else prepared.short
    batches = Batches(prepared.texts, prepared.lists, short, seed=1, held_out=held_out)
    return [task for number in range(N_STEPS) for task in batches.step(number)]


def work_of(prepared: Prepared, document: Document) -> str | None:
    """The work of a passage; short documents are not looked at."""
    kind, number = document
    return prepared.texts.passages[number].work if kind == "passage" else None


def test_a_step_is_the_same_whenever_it_is_drawn(prepared: Prepared) -> None:
    batches = Batches(prepared.texts, prepared.lists, prepared.short, seed=1)
    again = Batches(prepared.texts, prepared.lists, prepared.short, seed=1)
    other = Batches(prepared.texts, prepared.lists, prepared.short, seed=2)
    batches.step(0)

    assert batches.step(7) == again.step(7)
    assert batches.step(7) != again.step(8)
    assert batches.step(7) != other.step(7)


def test_held_out_queries_are_never_trained_on_and_the_others_never_checked_with(
    prepared: Prepared,
) -> None:
    queries = prepared.texts.queries

    assert not any(queries[task.query].is_held_out for task in steps(prepared))
    assert all(queries[task.query].is_held_out for task in steps(prepared, held_out=True))


def test_no_negative_is_a_version_of_the_answer(prepared: Prepared) -> None:
    tasks = steps(prepared)

    assert all(
        work_of(prepared, document) != task.work for task in tasks for document in task.negatives
    )
    assert {task.answer[0] for task in tasks} == {"passage", "short"}


def test_questions_meet_passages_in_other_languages(prepared: Prepared) -> None:
    texts = prepared.texts
    pairs = {
        (texts.queries[task.query].source, texts.passages[task.answer[1]].source)
        for task in steps(prepared)
        if task.answer[0] == "passage"
    }

    assert {("xquad-en", "xquad-zh"), ("xquad-zh", "xquad-en"), ("xquad-en", "xquad-en")} <= pairs
