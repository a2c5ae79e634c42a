"""XLM-RoBERTa's tokenizer, rebuilt from its vocabulary with the `tokenizers` library."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

SPECIAL_PIECES = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
METASPACE = "▁"

# XLM-R's ids of a sentence, published with its tokenizer: the check that all parts are right.
CHECK_TEXT = "what is a panda?"
CHECK_IDS = [0, 2367, 83, 10, 6, 85407, 32, 2]


@cache
def nmt_nfkc_charsmap() -> bytes:
    """XLM-R's normalization map, from a throw-away sentencepiece model that carries it."""
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f", "g h i j k l"]),
        model_writer=buffer,
        vocab_size=20,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    # generated at import: no types
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made at import
    model.ParseFromString(buffer.getvalue())
    charsmap: bytes = model.normalizer_spec.precompiled_charsmap
    return charsmap


def build_tokenizer(
    pieces: Sequence[str], scores: Sequence[float], *, prepend: bool = True
) -> Tokenizer:
    """Builds the tokenizer of XLM-R's published tokenizer.json over any part of its vocabulary.

    Args:
        pieces: in id order; <s> <pad> </s> <unk> are the first four.
        scores: unigram log-probabilities, 0 for special pieces.
        prepend: False leaves out the metaspace before a word (for counting words that are
            written without spaces).
    """
    tokenizer = Tokenizer(Unigram(list(zip(pieces, scores, strict=True)), unk_id=3))
    tokenizer.normalizer = normalizers.Precompiled(nmt_nfkc_charsmap())
    scheme = "always" if prepend else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement=METASPACE, prepend_scheme=scheme),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=METASPACE, prepend_scheme=scheme)
    tokenizer.add_special_tokens(
        [
            AddedToken(piece, special=True, normalized=False, lstrip=piece == "<mask>")
            for piece in SPECIAL_PIECES
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(p, pieces.index(p)) for p in ("<s>", "</s>")],
    )
    return tokenizer


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Checks the untrimmed tokenizer against XLM-R's own ids.

    Raises:
        ValueError: it gives other ids.
    """
    ids = tokenizer.encode(CHECK_TEXT).ids
    if ids != CHECK_IDS:
        raise ValueError(f"{CHECK_TEXT!r} gives {ids}, XLM-R gives {CHECK_IDS}")
