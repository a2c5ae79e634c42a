"""What fixed texts score, compared at each start.

A model may carry its golden logits, made by another library (`training/golden.py`). A converted
model that does not keeps what they scored when it was first loaded. A manifest finds bytes that
have changed. This finds what no file shows: another library, driver or processor that computes
something else.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import msgspec
import numpy as np

from tamis.engine.device import processor_name
from tamis.engine.files import read_json
from tamis.engine.pairs import Logits
from tamis.errors import GoldenMismatchError, ModelError, UnsafeModelError

logger = logging.getLogger(__name__)

GOLDEN_FILE = "tamis-golden.json"
TOLERANCES: Mapping[str, float] = {"float32": 1e-4, "float16": 0.01, "bfloat16": 0.1, "int8": 0.25}
"""How far a logit may be off, or so much of its size where that is more than 1; published in
docs/numerics.md (float32, int8) and docs/gpu.md."""


def golden_key(texts: Sequence[str], *, dtype: str, device: str, max_length: int) -> str:
    """What golden logits hold for.

    float32 is one truth for all machines. In less, processors differ by more than they should
    differ from themselves, so that each has its own. Another version's other texts have theirs.
    """
    where = "" if dtype == "float32" else f", {processor_name() if device == 'cpu' else device}"
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]
    return f"{dtype}, at most {max_length} tokens a pair{where}, texts {digest}"


def compare_with_golden(
    logits: Logits, *, key: str, dtype: str, carried: Path, kept: Path | None
) -> None:
    """Compare the golden pairs' logits with those that the model carries.

    Where it carries none they are compared with those of the first start, or kept if it is this.

    Args:
        logits: Of the golden pairs, (n_pairs,), now.
        key: What they hold for (`golden_key`).
        dtype: What they were computed in.
        carried: The model's own folder.
        kept: The folder of its converted form, if it stays there; what cannot be kept there is
            not compared the next time.

    Raises:
        GoldenMismatchError: they differ by more than the precision explains.
    """
    golden = read_golden(carried).get(key)
    if golden is not None:
        _require_alike(logits, golden, folder=carried, dtype=dtype)
    elif kept is not None:
        held = read_golden(kept)
        if key in held:
            _require_alike(logits, held[key], folder=kept, dtype=dtype)
        else:
            write_golden(kept, held | {key: [float(logit) for logit in logits]})


def read_golden(folder: Path) -> dict[str, list[float]]:
    """Golden logits of a folder by key; empty if there are none, or the file is corrupt.

    Raises:
        UnsafeModelError: it is not a regular file, or far larger than golden logits are.
    """
    path = folder / GOLDEN_FILE
    try:
        if path.exists():
            return msgspec.convert(read_json(path), dict[str, list[float]])
    except UnsafeModelError:
        raise
    except (ModelError, msgspec.ValidationError, OSError) as error:
        logger.warning("golden logits are not used, and recorded again if possible: %s", error)
    return {}


def write_golden(folder: Path, golden: Mapping[str, list[float]]) -> None:
    """Put golden logits into a folder; where that cannot be, the log says so."""
    path = folder / GOLDEN_FILE
    draft = path.with_name(f".{path.name}.{uuid4().hex}")  # other processes start, too
    try:
        draft.write_text(json.dumps(golden, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        logger.warning("cannot store the golden logits in %s: %s", path.parent, error)


def _require_alike(logits: Logits, held: Sequence[float], *, folder: Path, dtype: str) -> None:
    golden = np.asarray(held, dtype=np.float32)
    if golden.shape == logits.shape:
        sizes = np.maximum(1, np.abs(golden))
        off = float((np.abs(logits - golden) / sizes).max(initial=0.0))
        if off <= TOLERANCES[dtype]:
            return
    raise GoldenMismatchError(
        f"the model in {folder} does not score as it should: its golden pairs had logits "
        f"{_listed(golden)} and have {_listed(logits)} now, further apart than "
        f"{TOLERANCES[dtype]:g} in {dtype}; look for what has changed (library, driver, "
        f"processor), then convert it again or remove {GOLDEN_FILE}"
    )


def _listed(logits: Logits) -> str:
    return ", ".join(f"{logit:.4f}" for logit in logits)
