"""Model folders with seeded random weights, small enough to be made when tests start."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

TEXT = (
    "what is a panda the giant sometimes called bear simply species endemic to china hi "
    "sieve fine query passage capital of france paris berlin warum ist der himmel blau "
    "rayleigh scattering machine learning water boils at degrees"
)
WORDS = TEXT.split()
CHARACTERS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!'\"()<>/[]-_éèüßñ"
    "鼓筛是一种细大熊猫"
)
TYPES_OF_BERT = 2
N_POSITIONS = 514


def xlm_roberta_tokenizer() -> Tokenizer:
    """A Unigram vocabulary behind NFKC, laid out and templated as XLM-R's."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(piece, 0.0) for piece in special]
    pieces += [(f"▁{word}", -5.0 - rank / 50) for rank, word in enumerate(WORDS)]
    pieces += [("▁", -6.0)]
    pieces += [(character, -9.0 - rank / 50) for rank, character in enumerate(CHARACTERS)]
    pieces += [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(
        [*special, AddedToken("<mask>", lstrip=True, special=True, normalized=False)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


def roberta_tokenizer() -> Tokenizer:
    """A byte-level BPE trained on our few words, templated as RoBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        show_progress=False,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return tokenizer


def bert_tokenizer() -> Tokenizer:
    """A lower-casing WordPiece vocabulary, templated as BERT's with token types 0 and 1."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = list(dict.fromkeys(CHARACTERS.lower()))
    pieces = [*special, *characters, *(f"##{c}" for c in characters)]
    pieces += [word for word in WORDS if len(word) > 1]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


TOKENIZERS = {
    "xlm-roberta": xlm_roberta_tokenizer,
    "roberta": roberta_tokenizer,
    "bert": bert_tokenizer,
}


def config_of(family: str, **changes: Any) -> XLMRobertaConfig | RobertaConfig | BertConfig:
    """A tiny configuration of a family; what `changes` names differs from it."""
    options: dict[str, Any] = {
        "vocab_size": TOKENIZERS[family]().get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "num_labels": 1,
    }
    if family == "bert":
        own = {"max_position_embeddings": N_POSITIONS - 2, "type_vocab_size": TYPES_OF_BERT}
        return BertConfig(**(options | own | changes))
    own = {"max_position_embeddings": N_POSITIONS, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    kind = XLMRobertaConfig if family == "xlm-roberta" else RobertaConfig
    return kind(**(options | own | {"bos_token_id": 0, "pad_token_id": 1} | changes))


def randomize(model: PreTrainedModel, *, seed: int, std: float) -> None:
    """Draw every parameter anew, norms and biases too, so that none can be left out unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std + mean)


def save_classifier(folder: Path, family: str, *, shards: str = "1GB", **changes: Any) -> Path:
    """Write a one-label classifier of a family as `transformers` and `tokenizers` write it.

    Args:
        shards: Largest shard, in transformers' spelling (`20KB`).
        changes: Options of the configuration that differ from the tiny one's.
    """
    kinds = {
        "xlm-roberta": XLMRobertaForSequenceClassification,
        "roberta": RobertaForSequenceClassification,
        "bert": BertForSequenceClassification,
    }
    model = kinds[family](config_of(family, **changes)).eval()
    randomize(model, seed=7, std=0.2)
    model.save_pretrained(folder, max_shard_size=shards)
    TOKENIZERS[family]().save(str(folder / "tokenizer.json"))
    return folder


def save_late_interaction(folder: Path) -> Path:
    """Write a float32 `BertModel` over XLM-R's vocabulary with a maxsim head that has learned."""
    n_pieces = xlm_roberta_tokenizer().get_vocab_size()
    model = BertModel(config_of("bert", vocab_size=n_pieces), add_pooling_layer=False).eval()
    randomize(model, seed=11, std=0.2)
    importance = torch.linspace(-2, 3, model.config.hidden_size)
    hidden = model.config.hidden_size
    change = torch.randn(hidden, hidden, generator=torch.Generator().manual_seed(3)) / 8
    learned = {"maxsim.importance": importance, "maxsim.projection": torch.eye(hidden) + change}
    model.save_pretrained(folder, state_dict=model.state_dict() | learned)
    xlm_roberta_tokenizer().save(str(folder / "tokenizer.json"))
    head = {
        "type": "maxsim",
        "query_prefix": "query:",
        "document_prefix": "passage:",
        "pooled_weight": 0.5,
        "scale": 20.0,
        "offset": 0.6,
        "phrase_weight": 0.75,
        "has_importance": True,
        "has_projection": True,
    }
    write_json(folder / "tamis.json", {"name": "tiny-maxsim", "head": head})
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None takes a key out."""
    content = json.loads(path.read_text()) | changes
    write_json(path, {key: value for key, value in content.items() if value is not None})


def write_json(path: Path, content: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=2))


def quantize_rows(weights: Path) -> None:
    """Rewrite a safetensors file as tamis-mini's: int8 rows with a scale each, the rest float16."""
    stored: dict[str, NDArray[Any]] = {}
    for name, tensor in load_file(weights).items():
        kept = ("position_embeddings", "token_type", "maxsim.projection")
        if tensor.ndim != 2 or any(part in name for part in kept):
            stored[name] = tensor.astype(np.float16)
            continue
        scales = np.abs(tensor).max(axis=1) / np.float32(127)
        stored[name] = np.rint(tensor / scales[:, None]).astype(np.int8)
        stored[f"{name}_scale"] = scales.astype(np.float32)
    save_file(stored, weights)
