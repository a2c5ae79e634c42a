import shutil
from pathlib import Path

import pytest

from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.heads.classification import ClassificationOptions
from tamis.engine.heads.maxsim import MaxSimOptions
from tamis.engine.heads.reading import read_head
from tamis.errors import UnsupportedModelError
from tests.tiny_models import write_json

HEAD = {
    "type": "maxsim",
    "query_prefix": "",
    "document_prefix": "",
    "pooled_weight": 1,
    "scale": 1,
    "offset": 0,
}


def test_a_model_without_tamis_json_has_a_classification_head(tiny_model: Path) -> None:
    assert read_head(read_checkpoint(tiny_model)) == ClassificationOptions()


def test_tamis_json_names_the_head_and_its_options(tiny_maxsim: Path) -> None:
    head = read_head(read_checkpoint(tiny_maxsim))

    assert head == MaxSimOptions(
        "query:",
        "passage:",
        0.5,
        20.0,
        0.6,
        phrase_weight=0.75,
        has_importance=True,
        has_projection=True,
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"head": {"type": "colbert"}}, r"'colbert' - at `\$\.head\.type"),
        ({"head": {"x": 1}}, r"missing required field `type` - at `\$\.head"),
        ({"head": {"type": "maxsim", "query_prefix": ""}}, "missing required field `document_pre"),
        ({"head": HEAD | {"pooled_weight": None}}, r"at `\$\.head\.pooled_weight"),
        ({"head": HEAD | {"pooled_weight": -1}}, r"at `\$\.head\.pooled_weight"),
        ({"head": HEAD | {"phrase_weight": -1}}, r"at `\$\.head\.phrase_weight"),
        ({"head": HEAD | {"scale": "1"}}, r"at `\$\.head\.scale"),
        ({"head": HEAD | {"query_prefix": 3}}, r"at `\$\.head\.query_prefix"),
    ],
)
def test_a_head_that_is_not_known_or_not_whole_is_refused(
    tiny_maxsim: Path, tmp_path: Path, content: object, complaint: str
) -> None:
    folder = Path(shutil.copytree(tiny_maxsim, tmp_path / "spoilt"))
    write_json(folder / "tamis.json", content)

    with pytest.raises(UnsupportedModelError, match=complaint):
        read_head(read_checkpoint(folder))
