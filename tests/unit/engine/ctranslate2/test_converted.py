import errno
import io
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tamis.engine.ctranslate2 import converted as engine_converted
from tamis.engine.ctranslate2.scratch import scratch_folder
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.manifest import write_manifest
from tamis.errors import ChecksumMismatchError, ModelError
from tamis.settings import DtypeName, ModelSettings
from tests.tiny_models import write_json


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny XLM-R reranker that may be changed."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def opened(folder: Path, cache_dir: Path, *, dtype: DtypeName = "auto") -> LoadedModel:
    """The model of a folder on ctranslate2."""
    return load_model(ModelSettings(name=str(folder), cache_dir=cache_dir, dtype=dtype))


def change_a_byte(path: Path) -> None:
    """Other content of the same size: a weight, or a blank of the JSON."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".json":
        data[data.index(b"\n")] = ord(" ")
    else:
        data[-1] ^= 1
    path.write_bytes(data)


def kept(cache_dir: Path) -> dict[str, int]:
    """The converted folders of a cache and when each was made."""
    return {path.name: path.stat().st_ino for path in (cache_dir / "converted").iterdir()}


def test_a_conversion_is_kept_and_used_again(folder: Path, cache_dir: Path) -> None:
    opened(folder, cache_dir)
    first = kept(cache_dir)
    opened(folder, cache_dir)

    assert kept(cache_dir) == first
    assert len(first) == 1


def test_each_stored_dtype_has_its_own_conversion(folder: Path, cache_dir: Path) -> None:
    for dtype in ("float32", "int8", "bfloat16"):
        opened(folder, cache_dir, dtype=dtype)

    assert len(kept(cache_dir)) == 2


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_changed_source_is_converted_anew(folder: Path, cache_dir: Path, name: str) -> None:
    for path in folder.iterdir():
        os.utime(path, ns=(0, 0))
    opened(folder, cache_dir)
    change_a_byte(folder / name)
    os.utime(folder / name, ns=(0, 0))

    opened(folder, cache_dir)

    assert len(kept(cache_dir)) == 2


def test_a_cache_that_cannot_be_written_costs_a_warning_and_no_more(
    folder: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache_dir.write_text("a file stands where the folder should be")

    model = opened(folder, cache_dir)

    assert model.backend.forward(model.tokenizer.encode("q", ["d"])).shape == (1,)
    assert "cannot store the converted model" in caplog.text


def test_a_conversion_that_cannot_be_read_is_made_again(
    folder: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(folder, cache_dir)
    (made,) = (cache_dir / "converted").iterdir()
    (made / "ctranslate2" / "model.bin").unlink()
    (made / "ctranslate2" / "model.bin").symlink_to("/proc/self/mem")

    model = opened(folder, cache_dir)

    assert model.backend.forward(model.tokenizer.encode("q", ["d"])).shape == (1,)
    assert "is converted again" in caplog.text


def test_models_that_start_at_once_share_one_conversion(
    folder: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: opened(folder, cache_dir), range(8)))

    logits = {
        model.backend.forward(model.tokenizer.encode("q", ["d"])).tobytes() for model in models
    }
    assert len(logits) == len(kept(cache_dir)) == 1
    assert not caplog.records


def test_processes_that_start_at_once_share_one_conversion(folder: Path, cache_dir: Path) -> None:
    code = f"""
from tamis.engine.loading import load_model
from tamis.settings import ModelSettings
load_model(ModelSettings(name={str(folder)!r}, cache_dir={str(cache_dir)!r}, threads=1))
"""
    command = [sys.executable, "-c", code]

    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    complaints = [process.communicate()[1] for process in started]

    assert complaints == [b""] * 4
    assert len(kept(cache_dir)) == 1


def test_a_spoilt_conversion_is_made_again(
    folder: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(folder, cache_dir)
    (made,) = (cache_dir / "converted").iterdir()
    (made / "ctranslate2" / "model.bin").write_bytes(b"cut short")

    model = opened(folder, cache_dir)

    assert model.backend.forward(model.tokenizer.encode("q", ["d"])).shape == (1,)
    assert "is converted again" in caplog.text


def test_a_conversion_without_its_manifest_is_made_again(folder: Path, cache_dir: Path) -> None:
    opened(folder, cache_dir)
    (made,) = (cache_dir / "converted").iterdir()
    (made / "tamis-manifest.json").unlink()

    opened(folder, cache_dir)

    assert (made / "tamis-manifest.json").exists()


def test_a_source_is_verified_when_it_is_converted(folder: Path, cache_dir: Path) -> None:
    write_manifest(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")

    with pytest.raises(ChecksumMismatchError, match=r"model\.safetensors"):
        opened(folder, cache_dir)


def test_a_source_that_changed_under_its_manifest_is_refused_after_its_conversion_too(
    folder: Path, cache_dir: Path
) -> None:
    write_manifest(folder)
    opened(folder, cache_dir)
    change_a_byte(folder / "model.safetensors")

    with pytest.raises(ChecksumMismatchError, match=r"model\.safetensors"):
        opened(folder, cache_dir)


def test_the_folder_of_a_killed_conversion_is_removed_at_the_next_start(
    folder: Path, cache_dir: Path
) -> None:
    opened(folder, cache_dir)
    left, foreign = (cache_dir / "converted" / f".converting.{name}" for name in ("a", "b"))
    (left / "made").mkdir(parents=True)
    (foreign / "else").mkdir(parents=True)
    with scratch_folder(cache_dir / "converted") as living:
        opened(folder, cache_dir)

        assert living.is_dir()
    assert not left.exists()
    assert foreign.exists()
    assert not living.exists()


def test_the_names_of_cached_models_are_plain(folder: Path, cache_dir: Path) -> None:
    write_json(folder / "tamis.json", {"name": "BAAI/bge reranker\nv2"})

    opened(folder, cache_dir)

    assert next(iter(kept(cache_dir))).startswith("BAAI-bge-reranker-v2-float32-")


def test_no_room_anywhere_is_a_sentence(
    folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tamis.engine.ctranslate2.converted.convert", no_room)

    with pytest.raises(ModelError, match=r"cannot be converted in .* either: No space left"):
        opened(folder, cache_dir)


@pytest.mark.parametrize(
    ("is_terminal", "large", "said"), [(True, 0, 1), (True, 1e9, 0), (False, 0, 0)]
)
def test_the_conversion_of_a_large_model_says_so_on_a_terminal(
    folder: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
    large: float,
    said: int,
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(engine_converted, "_LARGE_BYTES", large)
    for _ in range(2):
        opened(folder, cache_dir)
    assert stderr.getvalue().count("converting model (0.0 GB), once") == said
