from itertools import count

import numpy as np
import pytest
from training.data.practice import PracticeList
from training.measure.matching import IN_PHRASES, N_FEATURES
from training.model.fit import KIND_SHARES, calibration, is_for_calibration
from training.model.folder import UNFITTED


def practice(source: str, number: int) -> PracticeList:
    """A list with a document of each kind, the answer first; its article is kept from the fit."""
    kinds = list(KIND_SHARES)
    found = (
        PracticeList(source, f"{source} {number} {i}", "asked", list("abcd"), kinds)
        for i in count()
    )
    return next(one for one in found if is_for_calibration(one))


def test_what_stands_above_one_half_is_weighted_as_the_fit_is() -> None:
    lists = [practice("jsquad", 0), *(practice("xquad-en", number) for number in range(3))]
    features = np.zeros((16, N_FEATURES), dtype=np.float32)
    features[:, IN_PHRASES] = [1, *[-1] * 15]  # the answer of jsquad alone is above

    told = calibration(lists, features, UNFITTED)

    # half of all use is a question of one language's files, three in ten XQuAD in one language
    above = told["above_one_half"]
    assert isinstance(above, dict)
    assert above["positive"] == pytest.approx(0.5 / 0.8, abs=1e-4)
    assert above["lexical"] == above["article"] == above["random"] == 0.0
    assert (told["pairs"], told["pairs_fitted_on"]) == (16, 0)
