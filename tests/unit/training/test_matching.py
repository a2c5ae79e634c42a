import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training.across import Across
from training.folder import read_head
from training.interaction import (
    WAYS,
    ComparedScorer,
    best,
    compare,
    from_the_start,
    in_phrases_of,
    mean_of_best,
    soft_best,
)
from training.matching import IN_PHRASES, MAXSIM, N_FEATURES, PairScorer, logits
from training.measurement import Candidates, pair_features
from training.mixing import HEADS, trap_candidates

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


def test_ways_to_make_one_number_of_a_token_s_cosines() -> None:
    cosines = np.array([[0.5, 0.9, 0.1, 0.9], [0.2, 0.1, 0.8, 0.0]], dtype=np.float32)

    np.testing.assert_allclose(best(cosines), [0.9, 0.8])
    np.testing.assert_allclose(mean_of_best(2)(cosines), [0.9, 0.5])
    np.testing.assert_allclose(mean_of_best(9)(cosines), cosines.mean(axis=1))
    np.testing.assert_allclose(soft_best(1000)(cosines), [0.9 + np.log(2) / 1000, 0.8], atol=1e-6)
    # where the document ends, its own cosine stands for the token behind: three times 0.9
    np.testing.assert_allclose(in_phrases_of(0.5)(cosines)[0], 0.9, atol=1e-6)
    np.testing.assert_allclose(in_phrases_of(0.0)(cosines), best(cosines))
    assert from_the_start(0.1, 1)(cosines)[0] > in_phrases_of(0.5)(cosines)[0]
    assert from_the_start(0.1, 1)(cosines)[0] < in_phrases_of(0.5)(cosines)[0] + 0.1


ACROSS = Across(
    {
        ("en", "en"): np.tile(np.float32([0.2, 0.8]), (len(WAYS) + 1, 3, 1)).T.swapaxes(0, 1),
        ("en", "zh"): np.tile(np.float32([0.8, 0.2]), (len(WAYS) + 1, 3, 1)).T.swapaxes(0, 1),
    },
    {"en": [1, 1, 1], "zh": [1, 1, 1]},
)
"""Three questions; the second of two passages answers, and is last where the languages differ."""


def test_each_way_is_measured_on_sets_and_traps(narrow: Path, tmp_path: Path) -> None:
    scorer = ComparedScorer(narrow, "float32", tmp_path)
    traps = trap_candidates()
    features = pair_features(scorer, traps)

    same = Candidates(replace(traps.evaluation, name="set"), traps.run)
    table = compare([(same, features)], features, ACROSS)

    assert list(table) == list(WAYS)
    for row in json.loads(json.dumps(table)).values():
        # with two documents a query, nDCG@10 is 1 or 0.631
        right = np.array(row["traps"]["en"]) + np.array(row["traps"]["zh"])
        np.testing.assert_allclose(row["set"], (right + (40 - right) / np.log2(3)) / 40, atol=1e-4)
        assert row["same_language"] == [1.0] * len(HEADS)
        assert row["across"] == [0.6309] * len(HEADS)
    assert len({features[:, number].tobytes() for number in range(len(WAYS))}) == len(WAYS)
    assert len({str(row) for row in table.values()}) >= 5
