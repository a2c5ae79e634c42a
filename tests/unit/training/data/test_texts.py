from training.data.corpora import read_training_rows
from training.data.texts import Texts, is_held_out, is_one_in, sentences
from training.smoke import DATA


def test_sentences_end_where_their_language_ends_them() -> None:
    text = "One. Two! 三。四？\nfive"

    assert [text[start:end].strip() for start, end in sentences(text)] == [
        *("One.", "Two!", "三。", "四？", "five"),
    ]


def test_an_article_is_held_out_in_all_languages_alike() -> None:
    articles = {
        language: {
            row.group
            for row in read_training_rows(DATA, f"xquad-{language}")
            if is_held_out("xquad", row)
        }
        for language in ("en", "zh", "de", "ar")
    }

    assert len(articles["en"]) == 2
    assert all(found == articles["en"] for found in articles.values())


def test_one_name_in_n_is_chosen_the_same_on_every_run() -> None:
    chosen = [number for number in range(1000) if is_one_in(4, str(number))]

    assert chosen[:5] == [4, 6, 14, 16, 21]
    assert 200 < len(chosen) < 300


def test_translations_of_a_question_share_their_work_and_their_article(texts: Texts) -> None:
    assert len(texts.translated) == 28
    for one in texts.translated:
        assert one.queries.keys() == one.passages.keys() == {"en", "zh", "de", "ar"}
        works = {texts.passages[number].work for number in one.passages.values()}
        groups = {texts.queries[number].group for number in one.queries.values()}
        assert (works, groups) == ({one.work}, {one.group})
        assert all(
            texts.queries[number].is_held_out == one.is_held_out for number in one.queries.values()
        )


def test_equal_passages_are_counted_once(texts: Texts) -> None:
    assert len(set(texts.passages)) == len(texts.passages) == 60
