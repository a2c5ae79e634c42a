"""What models answer according to `transformers`: plain forward passes, one pair at a time."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, PreTrainedModel

from tamis.engine.pairs import EncodedPair


def load_classifier(folder: Path) -> PreTrainedModel:
    """A folder's classifier in float32, without dropout."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    return model


@torch.inference_mode()
def classifier_logits(model: PreTrainedModel, pairs: list[EncodedPair]) -> NDArray[np.float32]:
    """Logits of pairs that are read together, each alone and without padding."""
    logits: list[float] = []
    for pair in pairs:
        (sequence,) = pair.sequences
        ids, types = (
            torch.from_numpy(part.astype(np.int64))[None]
            for part in (sequence.token_ids, sequence.type_ids)
        )
        mask = torch.ones_like(ids)
        output = model(input_ids=ids, token_type_ids=types, attention_mask=mask)
        logits.append(output.logits.item())
    return np.array(logits, dtype=np.float32)


class LateInteraction:
    """A maxsim model, word for word as `engine/heads/maxsim.py` describes it, by other means."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.head = json.loads((folder / "tamis.json").read_text())["head"]
        config = BertConfig(**json.loads((folder / "config.json").read_text()))
        self.model = BertModel(config, add_pooling_layer=False).eval()
        tensors = _dequantized(folder / "model.safetensors")
        self.importance = tensors.pop("maxsim.importance", torch.zeros(config.hidden_size))
        self.projection = tensors.pop("maxsim.projection", torch.eye(config.hidden_size))
        self.model.load_state_dict(tensors)
        self.weights = _token_weights(folder)

    @torch.inference_mode()
    def logit(self, query: str, document: str) -> float:
        """The logit of one pair of texts."""
        query_ids, query_states, query_text = self._read(self.head["query_prefix"], query)
        _, document_states, document_text = self._read(self.head["document_prefix"], document)
        maxsim = torch.tensor(0.0)
        if query_text.any() and document_text.any():
            asked = _unit(query_states[query_text] @ self.projection)
            similarities = asked @ _unit(document_states[document_text] @ self.projection).T
            similarities = _in_phrases(similarities, self.head.get("phrase_weight", 0.0))
            weights = self.weights[query_ids[query_text]] * (asked @ self.importance).exp()
            maxsim = (similarities.max(dim=1).values * weights).sum() / weights.sum()
        cosine = torch.cosine_similarity(query_states.mean(0), document_states.mean(0), dim=0)
        share = self.head["pooled_weight"]
        blend = (maxsim + share * cosine) / (1 + share)
        return float(self.head["scale"] * (blend - self.head["offset"]))

    def _read(self, prefix: str, text: str) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, states, and which tokens are text rather than prefix or special."""
        start = len(self.tokenizer.encode(prefix).ids) - 1
        ids = torch.tensor(self.tokenizer.encode(f"{prefix} {text}").ids)
        states = self.model(input_ids=ids[None]).last_hidden_state[0]
        is_text = torch.zeros(len(ids), dtype=torch.bool)
        is_text[start:-1] = True
        return ids, states, is_text


def _in_phrases(cosines: Tensor, weight: float) -> Tensor:
    """One similarity after the other."""
    n_query, n_document = cosines.shape
    found = torch.empty_like(cosines)
    for q in range(n_query):
        for d in range(n_document):
            before = cosines[q - 1, d - 1] if q and d else cosines[q, d]
            has_next = q < n_query - 1 and d < n_document - 1
            behind = cosines[q + 1, d + 1] if has_next else cosines[q, d]
            found[q, d] = (cosines[q, d] + weight * (before + behind)) / (1 + 2 * weight)
    return found


def _unit(states: Tensor) -> Tensor:
    return torch.nn.functional.normalize(states, dim=-1)


def _dequantized(path: Path) -> dict[str, Tensor]:
    stored = load_file(path)
    return {
        name: tensor.float() * stored[f"{name}_scale"][:, None]
        if f"{name}_scale" in stored
        else tensor.float()
        for name, tensor in stored.items()
        if not name.endswith("_scale")
    }


def _token_weights(folder: Path) -> Tensor:
    definition = json.loads((folder / "tokenizer.json").read_text())
    scores = torch.tensor([score for _, score in definition["model"]["vocab"]])
    for token in definition["added_tokens"]:
        if token["special"]:
            scores[token["id"]] = scores.min()
    return -scores
