import pytest

from tamis.engine.heads.capitals import lower_capitals


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("WHAT IS THE CAPITAL OF FRANCE?", "what is the capital of france?"),
        ("a WARNING sign", "a warning sign"),
        ("HOW TO RESET my PASSWORD", "how to reset my password"),
        ("COVID-19 AND H2O", "covid-19 and h2o"),
        ("O'REILLY", "o'reilly"),
        ("苹果IPHONE手机", "苹果iphone手机"),
        ("МОСКВА — СТОЛИЦА РОССИИ", "москва — столица россии"),
        ("ΠΡΩΤΕΥΟΥΣΑ ΤΗΣ ΕΛΛΑΔΑΣ", "πρωτευουσα της ελλαδας"),
        ("ＣＡＰＩＴＡＬ ＯＦ", "ｃａｐｉｔａｌ ｏｆ"),
        ("STRAẞE", "straße"),
        ("İSTANBUL", "istanbul"),
        ("PRE\u0301SIDENT", "pre\u0301sident"),
        ("A\u0301B\u0301C\u0301D\u0301E\u0301", "a\u0301b\u0301c\u0301d\u0301e\u0301"),
    ],
)
def test_words_in_capitals_are_read_in_lower_case(text: str, read: str) -> None:
    assert lower_capitals(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is the capital of France?",
        "NASA and ESA",
        "DNA or RNA, HIV, JSON",
        "The AI, API, GPU list",
        "McDONALD sells iPHONES to ATPases",
        "苹果公司最新发布的AI功能",
        "太阳系最大的行星",
        "ما هي عاصمة مصر؟",
        "12345 67890 _____ -----",
    ],
)
def test_abbreviations_and_other_texts_stay_as_they_are(text: str) -> None:
    assert lower_capitals(text) == text


@pytest.mark.parametrize("text", ["İİİİİ ŞEHİR CAPITAL", "ẞẞẞẞẞ WORD", "ŒUVRE ǅUNGLA ＡＢＣＤＥ"])
def test_each_character_keeps_its_place(text: str) -> None:
    assert len(lower_capitals(text)) == len(text)
