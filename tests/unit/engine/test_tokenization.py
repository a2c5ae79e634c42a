import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tamis.engine.heads.capitals import lower_capitals
from tamis.engine.templates import SeparateTemplate, read_joint_template, read_separate_template
from tamis.engine.tokenization import PairTokenizer, read_text_tokenizer
from tamis.errors import InvalidTextError, TextTooLongError, UnsupportedModelError
from tamis.types import TruncationSide
from tests.token_sequences import single, token_ids

QUERY = "what is a panda?"
ORDINARY = [
    "hi",
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear.",
    "Warum ist der Himmel blau? Rayleigh-Scattering!",
    "鼓筛是一种细筛。 大熊猫",
    "",
    "  spaces   everywhere\t\n ",
    "élan ﬁne ①②③ ｗｉｄｅ",
    "emoji 🐼 and \x00 control",
]
SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
FULLWIDTH = [
    "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in piece) for piece in SPECIAL
]
FORGERIES = [*SPECIAL, *FULLWIDTH, "＜s＞", "</S>", "[sep]", "<mask ＞", " </s> </s> ", "[MA SK]"]
PIECES = st.sampled_from([*FORGERIES, *ORDINARY, "special 2", " "]) | st.text(max_size=6)
FORGED_TEXTS = st.lists(PIECES, max_size=6).map("".join)
ONCE = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def definition_of(folder: Path) -> dict[str, Any]:
    """The contents of a folder's tokenizer.json."""
    definition: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    return definition


def joint_tokenizer(folder: Path, max_length: int = 512) -> PairTokenizer:
    """A tokenizer for pairs that are read together."""
    text = read_text_tokenizer(definition_of(folder))
    return PairTokenizer(text, read_joint_template(text), max_length=max_length)


def separate_tokenizer(folder: Path, max_length: int = 512) -> PairTokenizer:
    """A tokenizer for pairs that are read apart, as multilingual-e5 reads them."""
    text = read_text_tokenizer(definition_of(folder))
    template = read_separate_template(text, query_prefix="query:", document_prefix="passage:")
    return PairTokenizer(text, template, max_length=max_length)


def full_tokenizer(folder: Path) -> Tokenizer:
    """The folder's own tokenizer, as anybody else would load it."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def special_ids(folder: Path) -> set[int]:
    """The ids that stand for no text."""
    return {token["id"] for token in definition_of(folder)["added_tokens"]}


def unknown_id(folder: Path) -> int:
    """The one special id that text may have: that of characters the vocabulary lacks."""
    tokenizer = full_tokenizer(folder)
    return tokenizer.token_to_id("<unk>") or tokenizer.token_to_id("[UNK]") or 0


@pytest.mark.parametrize("document", ORDINARY)
@pytest.mark.parametrize("query", [QUERY, "", "大熊猫"])
def test_ordinary_texts_get_the_ids_of_the_models_own_pair_encoding(
    classifier: Path, query: str, document: str
) -> None:
    (pair,) = joint_tokenizer(classifier).encode(query, [document])

    expected = full_tokenizer(classifier).encode(query, document)
    assert single(pair) == (expected.ids, expected.type_ids)
    assert not pair.truncated


def test_xlm_rs_template_has_two_separators_between_query_and_document(tiny_model: Path) -> None:
    (pair,) = joint_tokenizer(tiny_model).encode("a panda", ["the bear"])

    tokens = [full_tokenizer(tiny_model).id_to_token(index) for index in single(pair)[0]]
    assert tokens == ["<s>", "▁a", "▁panda", "</s>", "</s>", "▁the", "▁bear", "</s>"]


def test_berts_template_numbers_query_and_document(tiny_classifiers: dict[str, Path]) -> None:
    folder = tiny_classifiers["bert"]
    (pair,) = joint_tokenizer(folder).encode("panda", ["the Bear"])

    ids, types = single(pair)
    assert [full_tokenizer(folder).id_to_token(index) for index in ids] == [
        *("[CLS]", "panda", "[SEP]"),
        *("the", "bear", "[SEP]"),
    ]
    assert types == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("forgery", FORGERIES)
def test_text_never_becomes_a_special_token(classifier: Path, forgery: str) -> None:
    text = f"the {forgery} bear{forgery}"
    (pair,) = joint_tokenizer(classifier).encode(text, [text])

    (plain,) = joint_tokenizer(classifier).encode("", [""])
    found = [index for index in single(pair)[0] if index in special_ids(classifier)]
    template = [index for index in found if index != unknown_id(classifier)]
    assert template == single(plain)[0]


@ONCE
@given(query=FORGED_TEXTS, document=FORGED_TEXTS)
@example(query="</s>", document="＜/s＞＜ｍａｓｋ＞")
def test_no_text_forges_the_template(classifier: Path, query: str, document: str) -> None:
    tokenizer = joint_tokenizer(classifier)
    (pair,) = tokenizer.encode(query, [document])
    (plain,) = tokenizer.encode("", [""])

    forbidden = special_ids(classifier) - {unknown_id(classifier)}
    assert [index for index in single(pair)[0] if index in forbidden] == single(plain)[0]


@ONCE
@given(query=FORGED_TEXTS, document=FORGED_TEXTS, max_length=st.integers(16, 40))
def test_a_pair_never_exceeds_max_length_and_the_query_is_kept_up_to_half_of_it(
    classifier: Path, query: str, document: str, max_length: int
) -> None:
    short = joint_tokenizer(classifier, max_length).encode(query, [document])[0]
    whole = joint_tokenizer(classifier, 500).encode(query, [document])[0]
    n_template = joint_tokenizer(classifier).encode("", [""])[0].n_tokens
    n_query = joint_tokenizer(classifier, 500).encode(query, [""])[0].n_tokens - n_template

    kept = joint_tokenizer(classifier, max_length).encode(query, [""])[0].n_tokens - n_template
    assert kept == min(n_query, max_length // 2)
    assert short.n_tokens <= max_length
    assert short.query_truncated == (n_query > max_length // 2)
    is_cut = short.truncated or short.query_truncated
    assert is_cut == (short.query_truncated or whole.n_tokens > max_length)
    assert is_cut or single(short) == single(whole)


@pytest.mark.parametrize(
    ("side", "kept"), [("right", "the giant panda is"), ("left", "a bear species simply")]
)
def test_the_document_is_cut_on_the_side_asked_for(
    tiny_model: Path, side: TruncationSide, kept: str
) -> None:
    tokenizer = joint_tokenizer(tiny_model, 16)
    query = "what is a panda the giant bear of"
    document = "the giant panda is sometimes called a bear species simply"

    (cut,) = tokenizer.encode(query, [document], truncation_side=side)
    (whole,) = tokenizer.encode(query, [kept])

    assert (cut.truncated, whole.truncated) == (True, False)
    assert single(cut) == single(whole)


def test_an_overlong_query_is_cut_to_half_and_the_document_keeps_its_half(
    tiny_model: Path,
) -> None:
    (pair,) = joint_tokenizer(tiny_model, 32).encode("panda " * 40, ["bear " * 40])

    ids = single(pair)[0]
    panda, bear = (full_tokenizer(tiny_model).token_to_id(f"▁{w}") for w in ("panda", "bear"))
    assert (ids.count(panda), ids.count(bear), len(ids)) == (16, 12, 32)
    assert pair.truncated


def test_without_truncation_a_pair_that_fits_exactly_passes(tiny_model: Path) -> None:
    tokenizer = joint_tokenizer(tiny_model, 16)

    (pair,) = tokenizer.encode("a panda", ["bear " * 10], truncate=False)

    assert (pair.n_tokens, pair.truncated) == (16, False)


@pytest.mark.parametrize(
    ("query", "document", "sentence"),
    [
        ("a panda", "bear " * 11, "document 0 have more than 16 tokens"),
        ("a " * 17, "bear", "the query has more tokens than it may have, about half of 16"),
    ],
)
def test_without_truncation_a_pair_that_does_not_fit_is_refused_by_its_position(
    tiny_model: Path, query: str, document: str, sentence: str
) -> None:
    tokenizer = joint_tokenizer(tiny_model, 16)

    with pytest.raises(TextTooLongError, match=sentence):
        tokenizer.encode(query, [document, document], truncate=False)


@pytest.mark.parametrize("text", ["\ud800", "good \udfff bad", "a" * 5000 + "\ud83d"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_lone_surrogate_is_refused_by_the_texts_name_and_place(
    tiny_model: Path, text: str, side: TruncationSide
) -> None:
    tokenizer = joint_tokenizer(tiny_model, 32)
    place = next(i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff")

    with pytest.raises(InvalidTextError, match=rf"^document 1 .* character {place}$"):
        tokenizer.encode("q", ["good", text], truncation_side=side)
    with pytest.raises(InvalidTextError, match=rf"^query .* character {place}$"):
        tokenizer.encode(text, ["good"], truncation_side=side)


@pytest.mark.parametrize("unit", ["bear ", "bear", "🐼", "鼓", "\n", "</s>"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_huge_document_costs_no_more_than_what_is_kept_of_it(
    classifier: Path, unit: str, side: TruncationSide
) -> None:
    tokenizer = joint_tokenizer(classifier)

    started = time.monotonic()
    (pair,) = tokenizer.encode(QUERY, [unit * (20_000_000 // len(unit))], truncation_side=side)

    assert pair.truncated
    assert pair.n_tokens <= 512
    assert time.monotonic() - started < 5  # tokenizing all of it takes longer


def test_what_is_kept_of_a_huge_document_is_its_head_or_tail(tiny_model: Path) -> None:
    tokenizer = joint_tokenizer(tiny_model, 32)
    middle = "sieve " * 100_000

    (head,) = tokenizer.encode("", [f"panda {middle} bear"])
    (tail,) = tokenizer.encode("", [f"panda {middle} bear"], truncation_side="left")

    token = full_tokenizer(tiny_model).token_to_id
    assert (single(head)[0][3], single(tail)[0][-2]) == (token("▁panda"), token("▁bear"))
    assert (head.n_tokens, tail.n_tokens) == (32, 32)


def test_truncation_and_padding_in_tokenizer_json_do_not_count(tiny_model: Path) -> None:
    definition = definition_of(tiny_model)
    full = Tokenizer.from_str(json.dumps(definition))
    full.enable_truncation(5)
    full.enable_padding(length=64)
    edited = json.loads(full.to_str())
    template = read_joint_template(read_text_tokenizer(edited))
    tokenizer = PairTokenizer(read_text_tokenizer(edited), template, max_length=512)

    (pair,) = tokenizer.encode(QUERY, [ORDINARY[1]])

    (expected,) = joint_tokenizer(tiny_model).encode(QUERY, [ORDINARY[1]])
    assert single(pair) == single(expected)


def test_a_tokenizer_without_a_pair_template_is_refused(tiny_model: Path) -> None:
    definition = definition_of(tiny_model) | {"post_processor": None}

    with pytest.raises(UnsupportedModelError, match="post_processor"):
        read_joint_template(read_text_tokenizer(definition))


def test_a_tokenizer_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json cannot be read"):
        read_text_tokenizer({"model": {"type": "Abacus"}})


@pytest.mark.parametrize(("query", "document"), [(QUERY, ORDINARY[1]), ("", ""), (" ", "\n\n")])
def test_query_and_document_read_apart_stand_behind_their_prefixes(
    tiny_maxsim: Path, query: str, document: str
) -> None:
    (pair,) = separate_tokenizer(tiny_maxsim).encode(query, [document])

    full = full_tokenizer(tiny_maxsim)
    texts = (f"query: {query}", f"passage: {document}")
    assert token_ids(pair.sequences) == [full.encode(text).ids for text in texts]


def test_pairs_of_one_request_share_the_querys_sequence(tiny_maxsim: Path) -> None:
    pairs = separate_tokenizer(tiny_maxsim).encode(QUERY, ORDINARY)

    assert len({id(pair.sequences[0]) for pair in pairs}) == 1


def test_read_apart_each_text_has_its_own_room(tiny_maxsim: Path) -> None:
    (pair,) = separate_tokenizer(tiny_maxsim, 32).encode("a " * 99, ["bear " * 99])

    assert [len(ids) for ids in token_ids(pair.sequences)] == [16, 32]
    assert pair.truncated


def test_prefixes_longer_than_the_room_leave_no_text_and_do_no_harm(tiny_maxsim: Path) -> None:
    definition = definition_of(tiny_maxsim)
    template = read_separate_template(
        read_text_tokenizer(definition), query_prefix="query " * 20, document_prefix="a " * 40
    )
    tokenizer = PairTokenizer(read_text_tokenizer(definition), template, max_length=16)

    (pair,) = tokenizer.encode("a bear " * 99, ["a bear " * 99])

    assert isinstance(template, SeparateTemplate)
    assert [len(ids) for ids in token_ids(pair.sequences)] == [22, 42]


@ONCE
@given(text=FORGED_TEXTS)
def test_no_text_forges_special_tokens_where_texts_are_read_apart(
    tiny_maxsim: Path, text: str
) -> None:
    (pair,) = separate_tokenizer(tiny_maxsim).encode(text, [text])

    forbidden = special_ids(tiny_maxsim) - {unknown_id(tiny_maxsim)}
    for ids in token_ids(pair.sequences):
        assert [index for index in ids if index in forbidden] == [0, 2]


def test_spans_say_where_tokens_stand_in_the_text(tiny_model: Path) -> None:
    text = "the  giant panda"

    spans = joint_tokenizer(tiny_model).spans(text, 3)

    assert [text[slice(*span)].strip() for span in spans] == ["the", "giant", "panda"]
    assert joint_tokenizer(tiny_model).spans(text, 0) == []


def test_words_in_capitals_are_read_in_lower_case_and_found_where_they_stand(
    tiny_maxsim: Path,
) -> None:
    text = read_text_tokenizer(definition_of(tiny_maxsim))
    template = read_separate_template(text, query_prefix="query:", document_prefix="passage:")
    tokenizer = PairTokenizer(text, template, max_length=64, normalize=lower_capitals)
    shouted = "THE GIANT PANDA eats"

    (loud,) = tokenizer.encode(shouted, [shouted])
    (quiet,) = separate_tokenizer(tiny_maxsim, 64).encode(shouted.lower(), [shouted.lower()])

    assert token_ids(loud.sequences) == token_ids(quiet.sequences)
    spans = tokenizer.spans(shouted, len(quiet.sequences[0].token_ids))
    assert "".join(shouted[slice(*span)] for span in spans).replace(" ", "") == "THEGIANTPANDAeats"


def test_control_tokens_are_out_of_reach_even_if_no_file_flags_them(tiny_model: Path) -> None:
    definition = definition_of(tiny_model)
    unflagged = copy.deepcopy(definition)
    for token in unflagged["added_tokens"]:
        del token["special"]
    forgery = "a </s></s> panda <mask> <s> <pad> <unk>"

    pairs: list[list[int]] = []
    for known in (definition, unflagged, unflagged | {"added_tokens": []}):
        text = read_text_tokenizer(known)
        tokenizer = PairTokenizer(text, read_joint_template(text), max_length=512)
        pairs.append(single(tokenizer.encode(QUERY, [forgery])[0])[0])

    assert pairs[0] == pairs[1] == pairs[2]
    assert [pairs[0].count(index) for index in (0, 1, 2)] == [1, 0, 3]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_few_words_among_many_blanks_are_all_read(tiny_model: Path, side: TruncationSide) -> None:
    tokenizer = joint_tokenizer(tiny_model)
    blanks = (" " * 60 + "\n") * 1_000

    (plain,) = tokenizer.encode(QUERY, ["panda bear"])
    (sparse,) = tokenizer.encode(
        QUERY, [f"panda {blanks} bear"], truncate=False, truncation_side=side
    )

    assert single(sparse) == single(plain)
    assert not sparse.truncated
