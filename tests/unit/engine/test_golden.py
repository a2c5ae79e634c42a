"""The golden pairs of a converted model."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from tamis.engine.golden import (
    GOLDEN_FILE,
    TOLERANCES,
    compare_with_golden,
    golden_key,
    read_golden,
    write_golden,
)
from tamis.engine.loading import WARM_UP_DOCUMENTS, WARM_UP_QUERY
from tamis.engine.location import EMBEDDED_FOLDER
from tamis.engine.pairs import Logits
from tamis.errors import GoldenMismatchError

TEXTS = ("query", "document")
KEY = golden_key(TEXTS, dtype="float32", device="cpu", max_length=512)


NOWHERE = Path("/nowhere")


def logits(*values: float) -> Logits:
    return np.array(values, dtype=np.float32)


def compare(folder: Path, found: Logits, *, key: str = KEY, dtype: str = "float32") -> None:
    """Compare with what the first start has kept in a folder."""
    compare_with_golden(found, key=key, dtype=dtype, carried=NOWHERE, kept=folder)


def test_the_first_start_keeps_what_later_ones_are_compared_with(tmp_path: Path) -> None:
    compare(tmp_path, logits(1, -2))
    compare(tmp_path, logits(1, -2))
    assert json.loads((tmp_path / GOLDEN_FILE).read_text()) == {KEY: [1.0, -2.0]}
    assert [path.name for path in tmp_path.iterdir()] == [GOLDEN_FILE]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("golden", "size"), [(0.5, 1), (-8.0, 8)])
def test_what_the_precision_explains_passes_and_more_does_not(
    tmp_path: Path, dtype: str, golden: float, size: float
) -> None:
    bound = TOLERANCES[dtype] * size
    compare(tmp_path, logits(golden, 0), dtype=dtype)
    compare(tmp_path, logits(golden + 0.9 * bound, 0), dtype=dtype)
    with pytest.raises(GoldenMismatchError, match=f"does not score as it should.*{golden:.4f}"):
        compare(tmp_path, logits(golden + 1.1 * bound, 0), dtype=dtype)


def test_another_number_of_logits_is_another_model(tmp_path: Path) -> None:
    compare(tmp_path, logits(1, 2))
    with pytest.raises(GoldenMismatchError):
        compare(tmp_path, logits(1))


def test_each_length_and_precision_has_golden_logits_of_its_own(tmp_path: Path) -> None:
    keys = [
        golden_key(TEXTS, dtype=dtype, device="cpu", max_length=length)
        for dtype in ("float32", "int8")
        for length in (128, 512)
    ]
    for number, key in enumerate(keys):
        compare(tmp_path, logits(number), key=key)
    assert len(json.loads((tmp_path / GOLDEN_FILE).read_text())) == 4


def test_other_texts_have_golden_logits_of_their_own() -> None:
    other = golden_key(("query", "documents"), dtype="float32", device="cpu", max_length=512)
    assert other != KEY


def test_float32_is_one_truth_for_all_machines_and_less_is_each_ones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {}
    for name in ("this", "that"):
        monkeypatch.setattr("tamis.engine.golden.processor_name", lambda name=name: name)
        for dtype in ("float32", "int8"):
            keys[name, dtype] = golden_key(TEXTS, dtype=dtype, device="cpu", max_length=512)
    assert keys["this", "float32"] == keys["that", "float32"]
    assert keys["this", "int8"] != keys["that", "int8"]


@pytest.mark.parametrize("content", ["", "[]", '{"a": ["b"]}', "\0"])
def test_a_spoilt_record_is_made_anew_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / GOLDEN_FILE).write_text(content)
    with caplog.at_level(logging.WARNING):
        compare(tmp_path, logits(1))
    assert "recorded again" in caplog.text
    assert json.loads((tmp_path / GOLDEN_FILE).read_text()) == {KEY: [1.0]}


def test_a_folder_that_cannot_be_written_costs_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        compare(Path("/proc"), logits(1))
    assert "cannot store the golden logits" in caplog.text


def test_what_a_model_carries_goes_before_what_the_first_start_has_kept(tmp_path: Path) -> None:
    carried, kept = tmp_path / "carried", tmp_path / "kept"
    carried.mkdir()
    kept.mkdir()
    write_golden(carried, {KEY: [1.0]})
    write_golden(kept, {KEY: [2.0]})
    compare_with_golden(logits(1), key=KEY, dtype="float32", carried=carried, kept=kept)
    with pytest.raises(GoldenMismatchError, match="carried"):
        compare_with_golden(logits(2), key=KEY, dtype="float32", carried=carried, kept=None)


def test_a_model_without_any_golden_logits_that_is_not_kept_is_not_compared(tmp_path: Path) -> None:
    compare_with_golden(logits(1), key=KEY, dtype="float32", carried=tmp_path, kept=None)
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_model_carries_golden_logits_of_the_texts_in_use() -> None:
    texts = (WARM_UP_QUERY, *WARM_UP_DOCUMENTS)
    key = golden_key(texts, dtype="float32", device="cpu", max_length=512)
    assert len(read_golden(EMBEDDED_FOLDER)[key]) == len(WARM_UP_DOCUMENTS)
