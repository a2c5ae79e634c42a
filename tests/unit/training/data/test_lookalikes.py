from training.data.lookalikes import CONTENT_INFORMATION, MAX_TOKENS
from training.measure.matching import token_weights
from training.model.folder import read_scores, read_tokenizer
from training.model.train import Prepared

from tamis.engine.location import EMBEDDED_FOLDER


def test_bare_answers_share_fewer_of_the_query_s_words_than_spliced_sentences_do(
    prepared: Prepared,
) -> None:
    tokenizer = read_tokenizer(EMBEDDED_FOLDER)
    information = token_weights(read_scores(EMBEDDED_FOLDER))
    bare: list[float] = []
    spliced: list[float] = []
    for example in prepared.short.examples:
        ids = tokenizer.encode(
            prepared.texts.queries[example.query].text, add_special_tokens=False
        ).ids
        content = {piece for piece in ids if information[piece] > CONTENT_INFORMATION}

        def share(document: int, content: set[int] = content) -> float:
            return len(content & set(prepared.short.documents[document])) / len(content)

        bare += [share(document) for document in example.answers[1:]]
        spliced.append(share(example.others[-1]))

    assert len(bare) > 5
    assert sum(bare) / len(bare) < 0.3 < 0.45 < sum(spliced) / len(spliced)


def test_documents_are_short_and_their_queries_are_trained_on(prepared: Prepared) -> None:
    queries = prepared.texts.queries

    assert all(0 < len(ids) <= MAX_TOKENS for ids in prepared.short.documents)
    assert not any(queries[example.query].is_held_out for example in prepared.short.examples)
