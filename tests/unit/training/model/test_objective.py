from training.data.batches import Document, Task
from training.model.objective import answers_too
from training.model.train import Prepared


def test_versions_of_the_answer_do_not_count_against_it(prepared: Prepared) -> None:
    one = prepared.texts.translated[0]
    english, chinese = one.passages["en"], one.passages["zh"]
    other = next(n for n, p in enumerate(prepared.texts.passages) if p.work != one.work)
    task = Task(one.queries["en"], ("passage", english), (("passage", other),), one.work)
    documents: list[Document] = [("passage", english), ("passage", chinese), ("passage", other)]

    hidden = answers_too([task], documents, prepared.texts)

    assert hidden.tolist() == [[False, True, False]]
