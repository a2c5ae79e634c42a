import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from tamis.cache.pair_keys import PairKeys, namespace_digest
from tamis.cache.store import KEY_BYTES

IDENTITY = ("model", "digest", "ctranslate2", "cpu", "float32", "512")
KEYS = PairKeys(b"secret", IDENTITY)
texts = st.text(alphabet=st.characters(), max_size=12)


def key(query: str, document: str, keys: PairKeys = KEYS, namespace: str = "") -> bytes:
    (made,) = keys.of(namespace, query, [document])
    return made


def test_every_document_gets_a_key_of_its_own_and_equal_ones_the_same() -> None:
    first, second, third = KEYS.of("", "q", ["a", "b", "a"])

    assert first == third != second
    assert {len(one) for one in (first, second)} == {KEY_BYTES}


@given(texts, texts, texts, texts)
@example("ab", "c", "a", "bc")
@example("", "ab", "ab", "")
def test_different_pairs_have_different_keys(q1: str, d1: str, q2: str, d2: str) -> None:
    assert (key(q1, d1) == key(q2, d2)) == ((q1, d1) == (q2, d2))


@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, min_size=1, max_size=4))
@example(["a", "bc"], ["ab", "c"])
@example(["a", ""], ["a"])
def test_different_models_have_different_keys(one: list[str], other: list[str]) -> None:
    keys = [key("q", "d", PairKeys(b"s", tuple(identity))) for identity in (one, other)]

    assert (keys[0] == keys[1]) == (one == other)


def test_texts_that_only_look_alike_have_different_keys() -> None:
    forms = {unicodedata.normalize(form, "é") for form in ("NFC", "NFD")}

    assert len({key("q", form) for form in forms}) == len(forms) == 2


def test_each_part_of_what_decides_a_logit_changes_the_key() -> None:
    changed = [
        PairKeys(
            b"secret", tuple("other" if n == number else part for n, part in enumerate(IDENTITY))
        )
        for number in range(len(IDENTITY))
    ]
    made = {key("q", "d", keys) for keys in (KEYS, PairKeys(b"other", IDENTITY), *changed)}
    made.add(key("q", "d", namespace="someone"))
    made.update(KEYS.of("", "q", ["d"], truncation_side="left"))

    assert len(made) == len(IDENTITY) + 4


def test_keys_of_a_namespace_begin_alike_and_others_otherwise() -> None:
    start = namespace_digest(b"secret", "team-a")

    assert all(made.startswith(start) for made in KEYS.of("team-a", "q", ["a", "b"]))
    assert not key("q", "a", namespace="team-b").startswith(start)
    assert not key("q", "a").startswith(start)
    assert namespace_digest(b"other", "team-a") != start


def test_text_that_is_no_valid_unicode_has_a_key() -> None:
    assert key("q", "\ud800") != key("q", "\ud801")
