"""Main and first-stage models with real weights: tamis-mini, and parts of it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file, save_file

from tamis.engine.checkpoint import (
    CONFIG_FILE,
    TAMIS_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    read_json,
)
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.location import EMBEDDED_FOLDER
from tamis.settings import DEFAULT_MODEL, DtypeName, ModelSettings


@dataclass(frozen=True, slots=True)
class Stage:
    """tamis-mini, or what is left of it.

    Attributes:
        n_layers: Layers that it runs, the first of its 12.
        max_length: Tokens it reads of a text.
    """

    n_layers: int = 12
    max_length: int = 512

    @property
    def name(self) -> str:
        """As results and plots call it."""
        if self.n_layers < SECOND.n_layers:
            return f"{self.n_layers} of 12 layers"
        return f"{self.max_length} tokens"


DTYPE: DtypeName = "int8"
"""Of both stages: twice as fast as float32, so that more queries can be scored."""
SECOND = Stage()
"""The main model: all layers, full length."""
FIRST = (Stage(n_layers=2), Stage(max_length=64), Stage(max_length=128))
"""First-stage models: a smaller model, and the main model on a cut text."""


def load_stage(stage: Stage, work: Path) -> LoadedModel:
    """The model on ctranslate2; a cut one is written first."""
    cut = stage.n_layers < SECOND.n_layers
    settings = ModelSettings(
        name=str(write_cut(stage.n_layers, work)) if cut else DEFAULT_MODEL,
        runtime="ctranslate2",
        device="cpu",
        dtype=DTYPE,
        max_length=stage.max_length,
        cache_dir=work / "cache",
    )
    return load_model(settings)


def write_cut(n_layers: int, work: Path) -> Path:
    """tamis-mini's folder with its first layers alone, under the head it has."""
    folder = work / f"tamis-mini-{n_layers}-layers"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(EMBEDDED_FOLDER / WEIGHTS_FILE)
    layer = re.compile(r"encoder\.layer\.(\d+)\.")
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if (found := layer.match(name)) is None or int(found[1]) < n_layers
    }
    changes = {CONFIG_FILE: {"num_hidden_layers": n_layers}, TAMIS_FILE: {"name": folder.name}}
    for name, changed in changes.items():
        content = read_json(EMBEDDED_FOLDER / name) | changed
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / TOKENIZER_FILE).write_bytes((EMBEDDED_FOLDER / TOKENIZER_FILE).read_bytes())
    save_file(kept, folder / WEIGHTS_FILE)
    return folder
