import json
from pathlib import Path

import numpy as np
import pytest
from training.measure.matching import IN_PHRASES, MAXSIM, N_FEATURES, PairScorer, logits
from training.model.folder import read_head

from tamis import Reranker
from tamis.engine.location import EMBEDDED_FOLDER

QUERY = "capital of France"
DOCUMENTS = [
    "Paris is the capital of France.",
    "In France, of the wines of the capital region little is known.",
    "熊猫吃竹子。",
    "The capital lies on a river. " * 12 + "It is the capital of the south of France.",
    "b",
]


def test_the_training_s_logits_are_those_of_the_engine(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    scorer = PairScorer(EMBEDDED_FOLDER, "float32", tmp_path_factory.mktemp("work"))
    pairs = [(0, number) for number in range(len(DOCUMENTS))]

    features = scorer.features([QUERY], DOCUMENTS, pairs, "test")

    with Reranker() as reranker:
        ranked = {one.index: one.logit for one in reranker.rank(QUERY, DOCUMENTS)}
    wanted = [ranked[number] for number in range(len(DOCUMENTS))]
    np.testing.assert_allclose(logits(features, read_head(EMBEDDED_FOLDER)), wanted, atol=2e-3)
    assert (features[:, IN_PHRASES] != features[:, MAXSIM])[:3].all()


def test_features_of_another_phrase_weight_are_refused(tmp_path: Path) -> None:
    written = json.loads((EMBEDDED_FOLDER / "tamis.json").read_text(encoding="utf-8"))
    del written["head"]["phrase_weight"]  # as version 2 was
    (tmp_path / "tamis.json").write_text(json.dumps(written), encoding="utf-8")

    head = read_head(tmp_path)

    assert head.phrase_weight == 0
    with pytest.raises(ValueError, match=r"of phrase_weight 0\.1, not 0\.0"):
        logits(np.zeros((1, N_FEATURES), dtype=np.float32), head)
