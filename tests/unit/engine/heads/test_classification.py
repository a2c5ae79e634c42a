import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.collate import collate
from tamis.engine.heads.classification import ClassificationHead, ClassificationOptions
from tamis.engine.heads.reading import read_head
from tamis.engine.pairs import EncodedPair, TokenSequence
from tamis.errors import UnsupportedModelError
from tests.tiny_models import edit_json


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny XLM-R reranker that may be spoilt."""
    return Path(shutil.copytree(tiny_model, tmp_path / "spoilt"))


def test_a_classification_head_is_one_linear_layer() -> None:
    head = ClassificationHead(np.array([1, -2], dtype=np.float32), bias=0.5)
    tokens = np.arange(3, dtype=np.int32)
    batch = collate([EncodedPair((TokenSequence(tokens, tokens),), truncated=False)])

    logits = head.logits(np.array([[1, 1], [0, 0], [3, -1]], dtype=np.float32), batch)

    assert logits.tolist() == [-0.5, 0.5, 5.5]
    assert logits.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"architectures": ["BertModel"]}, "without a classification head"),
        ({"id2label": {"0": "no", "1": "yes"}}, "2 labels"),
        ({"id2label": None, "num_labels": 3}, "3 labels"),
        ({"id2label": None}, "2 labels"),
    ],
)
def test_a_model_with_other_labels_than_one_is_refused(
    folder: Path, changes: dict[str, Any], complaint: str
) -> None:
    edit_json(folder / "config.json", **changes)

    with pytest.raises(UnsupportedModelError, match=complaint):
        read_head(read_checkpoint(folder))


def test_one_label_may_be_told_by_its_number(folder: Path) -> None:
    edit_json(folder / "config.json", id2label=None, num_labels=1)

    assert read_head(read_checkpoint(folder)) == ClassificationOptions()


def test_it_reads_the_pooled_token_alone_and_cannot_say_which_words_matched() -> None:
    head = ClassificationHead(np.zeros(2, dtype=np.float32), bias=0.0)
    tokens = np.arange(3, dtype=np.int32)
    batch = collate([EncodedPair((TokenSequence(tokens, tokens),), truncated=False)])

    assert not head.reads_tokens
    assert head.matches(np.zeros((1, 2), dtype=np.float32), batch, 0) is None
