import numpy as np
from training.model.base import Floats
from training.model.folder import Rows, quantize_rows
from training.model.rounding import round_rows

RANDOM = np.random.default_rng(4)
# what a layer reads has few directions that matter
INPUTS = RANDOM.normal(size=(500, 8)) @ RANDOM.normal(size=(8, 64)) + 0.1
GRAM = (INPUTS.T @ INPUTS).astype(np.float32)
BASE_ROWS, BASE_SCALES = quantize_rows(RANDOM.normal(size=(48, 64)).astype(np.float32))
BASE = BASE_ROWS * BASE_SCALES[:, None]
CHANGE = (0.2 * BASE_SCALES[:, None] * RANDOM.normal(size=BASE.shape)).astype(np.float32)


def error(rows: Rows, weight: Floats) -> float:
    """How far the outputs are off, as a share of what they are."""
    difference = INPUTS @ (rows[0] * rows[1][:, None] - weight).T
    return float(np.linalg.norm(difference) / np.linalg.norm(INPUTS @ weight.T))


def test_rounding_loses_less_of_the_outputs_than_the_nearest_rows_do() -> None:
    trained = BASE + CHANGE

    assert error(round_rows(trained, GRAM), trained) < 0.5 * error(quantize_rows(trained), trained)


def test_a_change_of_less_than_half_a_step_is_not_lost() -> None:
    trained = BASE + CHANGE
    rows, scales = round_rows(trained, GRAM)

    moved = INPUTS @ (rows * scales[:, None] - BASE).T
    wanted = INPUTS @ CHANGE.T

    assert np.corrcoef(moved.ravel(), wanted.ravel())[0, 1] > 0.8


def test_rows_stay_within_int8_and_what_is_on_the_grid_stays_there() -> None:
    rows, scales = round_rows(BASE, GRAM)

    np.testing.assert_array_equal(rows, BASE_ROWS)
    np.testing.assert_allclose(scales, BASE_SCALES, rtol=1e-6)
