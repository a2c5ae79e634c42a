from collections.abc import Iterator
from pathlib import Path

import pytest
from training.wordnet import FILES, Sense, Usage, WordNet, parse_sense, read_wordnet

SENSES = (
    Sense("noun 1", ("bank",), "sloping land beside water", ("they sat on the banks",), "noun 9"),
    Sense(
        "noun 2",
        ("bank", "lender"),
        "an institution that takes deposits",
        ("a bank closed",),
        "noun 8",
    ),
    Sense("noun 3", ("cliff",), "a steep high face of rock", (), "noun 9"),
    Sense("noun 4", ("shore",), "the land along the edge of water", (), "noun 9"),
)


@pytest.fixture
def wordnet() -> WordNet:
    of_word: dict[str, list[str]] = {}
    for sense in SENSES:
        for word in sense.words:
            of_word.setdefault(word, []).append(sense.key)
    return WordNet({sense.key: sense for sense in SENSES}, of_word)


def used(wordnet: WordNet, query: str) -> Iterator[Usage]:
    yield from (usage for usage in wordnet.usages() if usage.query == query)


def test_an_example_of_use_stands_against_the_word_s_other_senses(wordnet: WordNet) -> None:
    (usage,) = used(wordnet, "they sat on the banks")

    assert usage.meaning == "sloping land beside water"
    assert usage.others == ("a bank closed", "an institution that takes deposits")


def test_a_noun_that_is_asked_for_stands_against_its_usages_and_nouns_like_it(
    wordnet: WordNet,
) -> None:
    (usage,) = (
        usage for usage in wordnet.usages() if "sat" not in usage.query and usage.key == "noun 1"
    )

    assert "bank" in usage.query
    assert usage.meaning == "sloping land beside water"
    assert usage.others[:2] == ("they sat on the banks", "a bank closed")
    assert set(usage.others[2:]) == {
        "a steep high face of rock",
        "the land along the edge of water",
    }


def test_no_usage_is_its_own_counterpart(wordnet: WordNet) -> None:
    usages = wordnet.usages()

    assert usages
    assert not any(usage.meaning in usage.others for usage in usages)
    assert not any(usage.query in usage.others for usage in usages)


def test_a_word_gives_way_to_others_of_its_usual_sense(wordnet: WordNet) -> None:
    assert wordnet.other_words("lenders") == ["bank"]
    assert wordnet.other_words("banks") == []
    assert wordnet.other_words("unheard") == []


def test_a_line_of_a_data_file_is_read() -> None:
    line = (
        "00006269 03 n 02 life 0 Living_Thing(p) 0 002 @ 00004258 n 0000 ~ 08010218 n 0000 "
        '| living things collectively; "the oceans are teeming with life"  '
    )

    assert parse_sense(line, "noun") == Sense(
        "noun 00006269",
        ("life", "living thing"),
        "living things collectively",
        ("the oceans are teeming with life",),
        "noun 00004258",
    )


def test_another_wordnet_than_the_known_one_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "wordnet"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("another\n")

    with pytest.raises(ValueError, match=r"data\.noun has SHA-256 .*, wanted .*; delete it"):
        read_wordnet(tmp_path)
