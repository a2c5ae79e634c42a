import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tamis.engine.calibration import CalibrationReport, write_report
from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.ctranslate2 import kernels, opening
from tamis.engine.ctranslate2.conversion import convert
from tamis.engine.ctranslate2.runtime import computed_dtypes
from tamis.engine.ctranslate2.tuning import TUNING_FILE
from tamis.engine.device import processor_name, usable_cores
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.torch.runtime import computed_dtypes as computed_by_torch
from tamis.errors import RuntimeUnavailableError
from tamis.settings import DtypeName, ModelSettings, RuntimeName
from tests.tiny_models import quantize_rows, write_json

RUNTIMES: list[RuntimeName] = ["ctranslate2", "torch"]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny XLM-R reranker that may be changed."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def opened(folder: Path, cache_dir: Path, *, dtype: DtypeName = "auto") -> LoadedModel:
    """The model of a folder on ctranslate2."""
    return load_model(ModelSettings(name=str(folder), cache_dir=cache_dir, dtype=dtype))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_cuda_that_is_not_there_is_refused(
    folder: Path, cache_dir: Path, runtime: RuntimeName
) -> None:
    settings = ModelSettings(name=str(folder), cache_dir=cache_dir, runtime=runtime, device="cuda")

    with pytest.raises(RuntimeUnavailableError, match="no CUDA device"):
        load_model(settings)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_that_the_cpu_lacks_becomes_float32_with_a_warning(
    folder: Path,
    cache_dir: Path,
    runtime: RuntimeName,
    dtype: DtypeName,
    caplog: pytest.LogCaptureFixture,
) -> None:
    computed = (computed_by_torch if runtime == "torch" else computed_dtypes)("cpu")
    model = load_model(
        ModelSettings(name=str(folder), cache_dir=cache_dir, runtime=runtime, dtype=dtype)
    )

    assert model.facts.dtype == (dtype if dtype in computed else "float32")
    warned = [r for r in caplog.records if r.levelno == logging.WARNING and dtype in r.message]
    assert bool(warned) == (dtype not in computed)


def test_a_source_that_names_int8_gets_it_with_a_report_and_not_before(
    folder: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_json(folder / "tamis.json", {"dtype": {"cpu": "int8"}})

    with caplog.at_level(logging.INFO):
        assert opened(folder, cache_dir).facts.dtype == "float32"
    assert "that tamis.json names int8 is no report" in caplog.text

    assert opened(folder, cache_dir, dtype="int8").facts.dtype == "int8"
    (converted,) = (cache_dir / "converted").glob("*-int8-*")
    write_report(converted, REPORT)
    assert opened(folder, cache_dir).facts.dtype == "int8"


def test_a_folder_that_was_converted_for_int8_computes_in_it(
    folder: Path, cache_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = convert(read_checkpoint(folder), tmp_path / "made", dtype="int8")

    with caplog.at_level(logging.INFO):
        assert opened(made, cache_dir).facts.dtype == "int8"
    assert "computes in int8 on a CPU: it was converted for it" in caplog.text


def test_torch_runs_a_model_made_for_int8_in_float32(folder: Path, cache_dir: Path) -> None:
    write_json(folder / "tamis.json", {"dtype": {"cpu": "int8"}})
    quantize_rows(folder / "model.safetensors")

    model = load_model(ModelSettings(name=str(folder), cache_dir=cache_dir, runtime="torch"))

    assert model.facts.dtype == "float32"


def test_torch_has_no_int8(folder: Path, cache_dir: Path) -> None:
    settings = ModelSettings(name=str(folder), runtime="torch", dtype="int8")

    with pytest.raises(RuntimeUnavailableError, match=r"no int8 on cpu here, only .*float32"):
        load_model(settings)


def test_without_torch_its_runtime_says_what_to_install(folder: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from tamis.engine.loading import load_model
from tamis.errors import RuntimeUnavailableError
from tamis.settings import ModelSettings
try:
    load_model(ModelSettings(name={str(folder)!r}, runtime="torch"))
except RuntimeUnavailableError as error:
    print(error)
"""

    printed = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert "pip install tamis[torch]" in printed


def test_the_default_runtime_needs_neither_torch_nor_transformers(
    folder: Path, cache_dir: Path
) -> None:
    code = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from tamis.engine.loading import load_model
from tamis.settings import ModelSettings
print(load_model(ModelSettings(name={str(folder)!r}, cache_dir={str(cache_dir)!r})).facts.runtime)
"""

    printed = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert printed.strip() == "ctranslate2"


REPORT = CalibrationReport(
    max_length=512,
    processor=processor_name(),
    n_queries=200,
    n_pairs=400,
    logit_difference_max=0.0,
    logit_difference_rms=0.0,
    logit_std=1.0,
    tau=1.0,
    tau_lowest_decile=1.0,
    same_top_1=1.0,
    n_top_5_queries=200,
    same_top_5=1.0,
    n_judged_queries=200,
    ndcg_float32=0.7,
    ndcg_int8=0.7,
)


@pytest.mark.parametrize(
    ("tau", "dtype", "reason"),
    [(1.0, "int8", "report of int8 passes"), (0.5, "float32", "report of int8 fails: tau 0.500")],
)
def test_auto_takes_int8_on_a_cpu_only_where_its_report_passes(
    folder: Path,
    cache_dir: Path,
    caplog: pytest.LogCaptureFixture,
    tau: float,
    dtype: str,
    reason: str,
) -> None:
    opened(folder, cache_dir, dtype="int8")
    (converted,) = (cache_dir / "converted").iterdir()
    write_report(converted, msgspec.structs.replace(REPORT, tau=tau))

    with caplog.at_level(logging.INFO):
        assert opened(folder, cache_dir).facts.dtype == dtype
    assert reason in caplog.text


def test_auto_takes_float32_where_there_is_no_report_or_a_spoilt_one(
    folder: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(folder, cache_dir, dtype="int8")
    (converted,) = (cache_dir / "converted").iterdir()
    with caplog.at_level(logging.INFO):
        assert opened(folder, cache_dir).facts.dtype == "float32"
        assert "int8 has no calibration report" in caplog.text
        (converted / "tamis-calibration.json").write_text("{}")
        assert opened(folder, cache_dir).facts.dtype == "float32"
        assert "tamis-calibration.json" in caplog.text


def test_a_report_does_not_stand_for_a_changed_source(folder: Path, cache_dir: Path) -> None:
    opened(folder, cache_dir, dtype="int8")
    (converted,) = (cache_dir / "converted").iterdir()
    write_report(converted, REPORT)
    with (folder / "tokenizer.json").open("a", encoding="utf-8") as tokenizer:
        tokenizer.write("\n")

    assert opened(folder, cache_dir).facts.dtype == "float32"


@pytest.mark.parametrize(
    ("change", "dtype", "reason"),
    [
        ({"max_length": 511}, "float32", "at most 511 tokens, and they may have 512 now"),
        ({"max_length": 513}, "int8", "with up to 513 tokens a pair, 512 now"),
        ({"processor": "another"}, "int8", "on another processor: another"),
    ],
    ids=str,
)
def test_the_log_tells_where_a_report_was_made_for_something_else(
    folder: Path,
    cache_dir: Path,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, object],
    dtype: str,
    reason: str,
) -> None:
    opened(folder, cache_dir, dtype="int8")
    (converted,) = (cache_dir / "converted").iterdir()
    write_report(converted, msgspec.structs.replace(REPORT, **change))

    with caplog.at_level(logging.INFO):
        assert opened(folder, cache_dir).facts.dtype == dtype
    assert reason in caplog.text


def test_a_report_stands_where_the_model_itself_reads_no_more(
    folder: Path, cache_dir: Path
) -> None:
    opened(folder, cache_dir, dtype="int8")
    (converted,) = (cache_dir / "converted").iterdir()
    write_report(converted, REPORT)
    model = load_model(ModelSettings(name=str(folder), cache_dir=cache_dir, max_length=256))
    assert model.facts.dtype == "int8"


def tuned(folder: Path, cache_dir: Path) -> Path:
    """Convert and measure a model; the file with the result."""
    opened(folder, cache_dir)
    (converted,) = (cache_dir / "converted").iterdir()
    opening.tune_converted(converted, threads=usable_cores())
    return converted / TUNING_FILE


def test_tuning_times_other_kernels_and_the_next_start_takes_the_fastest(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "has_avx512", lambda: False)
    monkeypatch.setattr(opening, "settle_kernels", lambda *_: "mkl")
    file = tuned(folder, cache_dir)
    ((key, measured),) = json.loads(file.read_text()).items()
    assert set(measured["kernels_tokens_per_second"]) == {"mkl", "onednn"}

    file.write_text(json.dumps({key: measured | {"kernels": "onednn"}}))
    asked: list[str | None] = []
    monkeypatch.setattr(opening, "settle_kernels", lambda *measured: asked.extend(measured))
    asked_for: tuple[DtypeName, ...] = ("auto", "bfloat16", "int8")
    for dtype in asked_for:
        opened(folder, cache_dir, dtype=dtype)
    assert asked == ["onednn", "onednn", None]


def test_stored_kernels_reach_ctranslate2(folder: Path, cache_dir: Path) -> None:
    file = tuned(folder, cache_dir)
    ((key, measured),) = json.loads(file.read_text()).items()
    code = f"""
from tamis.engine.loading import load_model
from tamis.settings import ModelSettings
load_model(ModelSettings(name={str(folder)!r}, cache_dir={str(cache_dir)!r}))
"""
    other = kernels.with_other_library(kernels.own_choice() or "mkl")
    file.write_text(json.dumps({key: measured | {"kernels": other}}))
    environment = os.environ | {"CT2_VERBOSE": "1"}
    for name in (kernels.LIBRARY_VARIABLE, kernels.VECTORS_VARIABLE):
        environment.pop(name, None)

    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert f"Use Intel MKL: {str(other == 'mkl').lower()}" in said.stderr + said.stdout
