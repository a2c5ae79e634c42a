"""The golden logits that a model folder carries: what tamis's warm-up texts score in float32.

    python -m training.model.golden [FOLDER]

They are computed by torch, straight from the safetensors. Servers compute with CTranslate2 from its
own conversion and compare at each start, the first one too (`tamis/engine/golden.py`).
"""

import argparse
from pathlib import Path

from tamis.engine.golden import GOLDEN_FILE, golden_key, write_golden
from tamis.engine.loading import WARM_UP_DOCUMENTS, WARM_UP_QUERY, load_model, warm_up
from tamis.engine.location import EMBEDDED_FOLDER
from tamis.settings import ModelSettings


def golden_logits(folder: Path) -> dict[str, list[float]]:
    """Logits of the warm-up texts by the key that they hold for."""
    settings = ModelSettings(name=str(folder), runtime="torch", device="cpu", dtype="float32")
    model = load_model(settings)
    key = golden_key(
        (WARM_UP_QUERY, *WARM_UP_DOCUMENTS),
        dtype=model.facts.dtype,
        device=model.facts.device,
        max_length=model.facts.max_length,
    )
    return {key: [float(logit) for logit in warm_up(model)]}


def renew_golden(folder: Path) -> None:
    """Rewrites a folder's golden logits."""
    (folder / GOLDEN_FILE).unlink(missing_ok=True)  # else it were compared with them
    write_golden(folder, golden_logits(folder))


def main() -> None:
    """Parses the command line and writes the file."""
    parser = argparse.ArgumentParser(prog="training.model.golden", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=EMBEDDED_FOLDER)
    folder: Path = parser.parse_args().folder
    renew_golden(folder)


if __name__ == "__main__":
    main()
