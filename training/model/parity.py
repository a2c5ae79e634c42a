"""Exports the whole base as a plain Hugging Face folder, to test engines on.

    python -m training.model.parity FOLDER

Nothing trimmed, float32, with the head that the base had before training: the largest real model
that needs no download from a hub.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.model.base import DEFAULT_WORK, fetch, read_base
from training.model.folder import Head, write_folder
from training.model.tokenizer import build_tokenizer, check_tokenizer

DEFAULT_HEAD = Head(pooled_weight=1.0, scale=40.0, offset=0.84)


def export_full_base(folder: Path, work: Path = DEFAULT_WORK, head: Head = DEFAULT_HEAD) -> Path:
    """Writes multilingual-e5-small (dequantized, 250,037 rows) into `folder`; returns it."""
    base = read_base(fetch(work))
    check_tokenizer(build_tokenizer(base.pieces, base.scores))
    write_folder(folder, base, head, name="e5-full", version="0", quantized=False)
    return folder


def main() -> None:
    """Parses the command line and exports."""
    parser = argparse.ArgumentParser(prog="training.model.parity", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    options = parser.parse_args()
    print(export_full_base(options.folder, options.work))


if __name__ == "__main__":
    main()
