"""Both runtimes answer what `transformers` answers, whatever the batch mates, order and padding.

Tolerances, as documented: float32 within 1e-4, the other dtypes as measured below.
"""

import gc
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import XLMRobertaForSequenceClassification

from tamis.engine.backend import LocalBackend
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.location import EMBEDDED_FOLDER
from tamis.engine.pairs import EncodedPair, TokenSequence
from tamis.scheduler.scheduler import score_now
from tamis.settings import DtypeName, ModelSettings, RuntimeName
from tests import tiny_models
from tests.reference import LateInteraction, classifier_logits, load_classifier
from tests.torch_runtime import open_torch

FLOAT32_TOLERANCE = 1e-4
# int8 against float32 and, last, a pair alone against the same pair in company. Measured on AVX2:
# tamis-mini 0.33 at most, 0.12 rms, 0.09 (its logits spread by 4.8, standard deviation), and 0.42
# at most on evaluation sets (its card); the large random model 0.07 at most, 0.03 rms, 0.05.
MINI_INT8_MAX, MINI_INT8_RMS, MINI_INT8_MATES = 0.7, 0.25, 0.25
LARGE_INT8_MAX, LARGE_INT8_RMS, LARGE_INT8_MATES = 0.2, 0.08, 0.15
_DTYPES: list[DtypeName] = ["float32", "int8"]
RUNTIMES: list[RuntimeName] = ["ctranslate2", "torch"]
QUERIES = ["what is a panda?", "Warum ist der Himmel blau?", "capital of france", "鼓筛"]
DOCUMENTS = [
    "hi",
    "The giant panda (Ailuropoda melanoleuca), or simply panda, is a bear endemic to China.",
    "",
    "Rayleigh scattering is the scattering of light by particles. " * 5,
    "鼓筛是一种细筛。",
    "Paris",
    "water boils at 100 degrees " * 30,
]


class Case(NamedTuple):
    """Pairs, and the logits that are right for them."""

    pairs: list[EncodedPair]
    expected: NDArray[np.float32]


def alone(model: LoadedModel, pairs: list[EncodedPair]) -> NDArray[np.float32]:
    """Logits of pairs that have no batch mates."""
    return np.concatenate([model.backend.forward([pair]) for pair in pairs])


def in_company(model: LoadedModel, pairs: list[EncodedPair]) -> list[NDArray[np.float32]]:
    """Logits of pairs all in one batch, backwards, and in batches by token budget."""
    return [
        model.backend.forward(pairs[::-1])[::-1],
        score_now(model.backend, pairs, max_batch_tokens=128),
    ]


def rms(difference: NDArray[np.float32]) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


@pytest.fixture
def tiny_case(classifier: Path, cache_dir: Path) -> Case:
    """Ordinary texts for a tiny classifier of each family."""
    settings = ModelSettings(name=str(classifier), cache_dir=cache_dir, threads=1)
    tokenizer = load_model(settings).tokenizer
    pairs = [pair for query in QUERIES for pair in tokenizer.encode(query, DOCUMENTS)]
    return Case(pairs, classifier_logits(load_classifier(classifier), pairs))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tiny_classifiers_answer_as_transformers_does(
    classifier: Path, tiny_case: Case, cache_dir: Path, runtime: RuntimeName
) -> None:
    model = load_model(
        ModelSettings(name=str(classifier), cache_dir=cache_dir, runtime=runtime, threads=1)
    )

    for logits in [alone(model, tiny_case.pairs), *in_company(model, tiny_case.pairs)]:
        np.testing.assert_allclose(logits, tiny_case.expected, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_positions_follow_the_padding_token_as_in_transformers(
    tmp_path: Path, cache_dir: Path, runtime: RuntimeName
) -> None:
    folder = tiny_models.save_classifier(tmp_path / "model", "xlm-roberta", pad_token_id=0)
    _put_padding_first(folder / "tokenizer.json")
    settings = ModelSettings(name=str(folder), cache_dir=cache_dir, runtime=runtime, threads=1)
    model = load_model(settings)
    assert model.tokenizer.encode("q", ["d"])[0].sequences[0].token_ids[0] == 1
    pairs = model.tokenizer.encode(QUERIES[0], DOCUMENTS)

    expected = classifier_logits(load_classifier(folder), pairs)

    np.testing.assert_allclose(model.backend.forward(pairs), expected, atol=1e-5)


def _put_padding_first(path: Path) -> None:
    """`<pad>` becomes number 0 and `<s>` number 1 of a tiny XLM-R tokenizer."""
    content = json.loads(path.read_text())
    pieces = content["model"]["vocab"]
    pieces[0], pieces[1] = pieces[1], pieces[0]
    first, second = content["added_tokens"][:2]
    first["content"], second["content"] = second["content"], first["content"]
    content["post_processor"]["special_tokens"]["<s>"]["ids"] = [1]
    tiny_models.write_json(path, content)


def test_token_types_make_a_difference(tiny_classifiers: dict[str, Path], cache_dir: Path) -> None:
    folder = tiny_classifiers["bert"]
    model = load_model(ModelSettings(name=str(folder), cache_dir=cache_dir, threads=1))
    (pair,) = model.tokenizer.encode(QUERIES[0], DOCUMENTS[:1])
    (sequence,) = pair.sequences
    untyped = TokenSequence(sequence.token_ids, np.zeros_like(sequence.type_ids))

    logits = model.backend.forward([pair, EncodedPair((untyped,), truncated=False)])

    assert abs(logits[0] - logits[1]) > 1e-2


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_activation_answers_as_transformers_does(
    tmp_path: Path, cache_dir: Path, runtime: RuntimeName, activation: str
) -> None:
    folder = tiny_models.save_classifier(tmp_path / "model", "roberta", hidden_act=activation)
    model = load_model(
        ModelSettings(name=str(folder), cache_dir=cache_dir, runtime=runtime, threads=1)
    )
    pairs = model.tokenizer.encode(QUERIES[0], DOCUMENTS)

    expected = classifier_logits(load_classifier(folder), pairs)

    np.testing.assert_allclose(model.backend.forward(pairs), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1), ("float16", 0.01)]
)
def test_torch_computes_in_any_float_dtype(
    classifier: Path, tiny_case: Case, cache_dir: Path, dtype: str, tolerance: float
) -> None:
    runtime = open_torch(classifier, dtype=dtype)
    head = load_model(
        ModelSettings(name=str(classifier), cache_dir=cache_dir, threads=1)
    ).backend.head

    logits = LocalBackend(runtime, head).forward(tiny_case.pairs)

    np.testing.assert_allclose(logits, tiny_case.expected, atol=tolerance)


@pytest.fixture(params=["tiny", "tiny-int8-rows", "tamis-mini"])
def late_interaction(request: pytest.FixtureRequest, tiny_maxsim: Path, tmp_path: Path) -> Path:
    """Late-interaction models: tiny ones, and the embedded one."""
    if request.param == "tamis-mini":
        return EMBEDDED_FOLDER
    if request.param == "tiny":
        return tiny_maxsim
    folder = tiny_models.save_late_interaction(tmp_path / "quantized")
    tiny_models.quantize_rows(folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_late_interaction_answers_as_its_formula_on_transformers_states(
    late_interaction: Path, cache_dir: Path, runtime: RuntimeName
) -> None:
    settings = ModelSettings(
        name=str(late_interaction), cache_dir=cache_dir, runtime=runtime, dtype="float32", threads=1
    )
    model = load_model(settings)
    reference = LateInteraction(late_interaction)
    queries = QUERIES[:2]
    pairs = [pair for query in queries for pair in model.tokenizer.encode(query, DOCUMENTS)]

    expected = [reference.logit(query, document) for query in queries for document in DOCUMENTS]

    for logits in [alone(model, pairs), *in_company(model, pairs)]:
        np.testing.assert_allclose(logits, expected, atol=FLOAT32_TOLERANCE)


def test_int8_of_the_embedded_model_stays_near_float32(cache_dir: Path) -> None:
    loaded = {
        dtype: load_model(
            ModelSettings(name="tamis-mini", cache_dir=cache_dir, dtype=dtype, threads=1)
        )
        for dtype in _DTYPES
    }
    tokenizer = loaded["int8"].tokenizer
    pairs = [pair for query in QUERIES for pair in tokenizer.encode(query, DOCUMENTS)]

    exact = loaded["float32"].backend.forward(pairs)
    near = alone(loaded["int8"], pairs)

    assert np.abs(near - exact).max() < MINI_INT8_MAX
    assert rms(near - exact) < MINI_INT8_RMS
    for logits in in_company(loaded["int8"], pairs):
        np.testing.assert_allclose(logits, near, atol=MINI_INT8_MATES)


class Large(NamedTuple):
    """An XLM-RoBERTa-large of random weights in a folder, with pairs and their logits."""

    folder: Path
    case: Case


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    """The shape of bge-reranker-v2-m3: 24 layers, 1,024 wide, 250,002 pieces; 2.3 GB."""
    folder = tmp_path_factory.mktemp("large") / "random-large"
    config = tiny_models.config_of(
        "xlm-roberta",
        vocab_size=250_002,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
    )
    torch.set_num_threads(2)
    model = XLMRobertaForSequenceClassification(config).eval()
    tiny_models.randomize(model, seed=3, std=0.03)
    model.save_pretrained(folder)
    tiny_models.xlm_roberta_tokenizer().save(str(folder / "tokenizer.json"))
    pairs = [_random_pair(length) for length in (6, 9, 23, 64, 150, 300)]
    case = Case(pairs, classifier_logits(model, pairs))
    del model
    gc.collect()
    yield Large(folder, case)
    shutil.rmtree(folder)


def _random_pair(length: int) -> EncodedPair:
    text = np.random.default_rng(length).integers(4, 250_001, length - 4)
    query, document = np.split(text, [1 + len(text) // 4])
    ids = np.concatenate([[0], query, [2, 2], document, [2]]).astype(np.int32)
    return EncodedPair((TokenSequence(ids, np.zeros_like(ids)),), truncated=False)


@pytest.fixture(scope="module")
def large_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the large model's conversions are kept while its tests run."""
    folder = tmp_path_factory.mktemp("large-cache")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def load_large(large: Large, large_cache: Path) -> Iterator["_Loader"]:
    """Loads the large model, and gives its memory back after the test."""
    loader = _Loader(large.folder, large_cache)
    yield loader
    loader.close()


class _Loader:
    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self._folder = folder
        self._cache_dir = cache_dir
        self._models: list[LoadedModel] = []

    def __call__(self, *, runtime: RuntimeName, dtype: DtypeName = "float32") -> LoadedModel:
        model = load_model(
            ModelSettings(
                name=str(self._folder), cache_dir=self._cache_dir, runtime=runtime, dtype=dtype
            )
        )
        self._models.append(model)
        return model

    def close(self) -> None:
        while self._models:
            self._models.pop().backend.close()
        gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_large_random_model_answers_as_transformers_does(
    large: Large, load_large: _Loader, runtime: RuntimeName
) -> None:
    model = load_large(runtime=runtime)

    for logits in in_company(model, large.case.pairs):
        np.testing.assert_allclose(logits, large.case.expected, atol=FLOAT32_TOLERANCE)


@pytest.mark.slow
def test_int8_of_a_large_random_model_stays_near_float32(large: Large, load_large: _Loader) -> None:
    model = load_large(runtime="ctranslate2", dtype="int8")

    near = alone(model, large.case.pairs)
    company = in_company(model, large.case.pairs)

    assert np.abs(near - large.case.expected).max() < LARGE_INT8_MAX
    assert rms(near - large.case.expected) < LARGE_INT8_RMS
    for logits in company:
        np.testing.assert_allclose(logits, near, atol=LARGE_INT8_MATES)
