import json

import pytest
from training.card import card_text, write_card
from training.saving import RESULTS_FOLDER

from tamis.engine.location import EMBEDDED_FOLDER


def test_the_embedded_model_s_card_is_what_was_measured(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("card") / "README.md"

    write_card(path, RESULTS_FOLDER)

    written = path.read_text(encoding="utf-8")
    assert (EMBEDDED_FOLDER / "README.md").read_text(encoding="utf-8") == written


def test_the_card_speaks_of_the_head_that_is_shipped() -> None:
    shipped = json.loads((EMBEDDED_FOLDER / "tamis.json").read_text(encoding="utf-8"))["head"]
    measured = json.loads((RESULTS_FOLDER / "head.json").read_text(encoding="utf-8"))["head"]

    assert {name: shipped[name] for name in measured} == measured


def test_a_card_without_a_result_is_an_error() -> None:
    with pytest.raises(KeyError):
        card_text({})
