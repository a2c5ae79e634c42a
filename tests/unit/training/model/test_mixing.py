import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training.measure.sharing import Family
from training.measure.traps import trap_candidates
from training.model.folder import read_tensors
from training.model.mixing import HEADS, SHARES, measure, write_shares
from training.model.train import new_student
from training.smoke import PLAN

from tests.unit.training.narrow import HIDDEN

WEIGHT = "encoder.layer.11.output.dense.weight"


@pytest.fixture(scope="module")
def checkpoint(narrow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student whose last layer does much less than the narrow model's, and its head other."""
    student = new_student(narrow, PLAN)
    state = student.state_dict()
    state["layers.1.narrowed.weight"] *= 0.2
    state["importance"] = torch.linspace(-1, 1, HIDDEN)
    path = tmp_path_factory.mktemp("train") / "checkpoint.pt"
    torch.save({"student": state, "step": PLAN.n_steps}, path)
    return path


def test_a_share_of_the_way_lies_between_the_two_ends(
    narrow: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folders = write_shares(narrow, PLAN, checkpoint, tmp_path)

    before = read_tensors(narrow)
    found = {share: read_tensors(folder) for share, folder in folders.items()}
    assert tuple(found) == (0.0, *SHARES)
    np.testing.assert_array_equal(found[0.0][WEIGHT], before[WEIGHT])
    np.testing.assert_allclose(found[1.0][WEIGHT], 0.2 * before[WEIGHT], rtol=1e-5)
    np.testing.assert_allclose(found[0.5][WEIGHT], 0.6 * before[WEIGHT], rtol=1e-5)


def test_each_share_is_measured_on_samples_and_traps(
    narrow: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folders = write_shares(narrow, PLAN, checkpoint, tmp_path)
    traps = trap_candidates()
    Family(list(folders.values()), PLAN.first_layer).fill_cache(traps, tmp_path)

    table = json.loads(json.dumps(measure(folders, [traps], traps, tmp_path)))

    assert set(table) == {str(share) for share in (0.0, *SHARES)}
    for row in table.values():
        # with two documents a query, nDCG@10 is 1 or 0.631
        right = np.array(row["traps"]["en"]) + np.array(row["traps"]["zh"])
        n = len(traps.run)
        wanted = (right + (n - right) / np.log2(3)) / n
        np.testing.assert_allclose(row["mean"], wanted, atol=2e-4)
        assert len(row["mean"]) == len(HEADS)
    assert table["0.0"]["mean"] != table["1.0"]["mean"]


def test_a_training_that_has_not_ended_is_not_mixed(narrow: Path, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"student": {}, "step": 1}, path)
    with pytest.raises(ValueError, match=r"is of step 1, not of the plan's last, 4"):
        write_shares(narrow, PLAN, path, tmp_path)


def test_without_a_training_it_is_said_what_comes_first(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.pt is not there: train first"):
        write_shares(tmp_path / "mini", PLAN, tmp_path / "checkpoint.pt", tmp_path)
