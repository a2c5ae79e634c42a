"""(query, documents) -> encoded pairs: templates, truncation, token counts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from tokenizers import Encoding, Tokenizer

from tamis.engine.checkpoint import TOKENIZER_FILE
from tamis.engine.files import read_json
from tamis.engine.pairs import EncodedPair, TokenIds, require_uncut
from tamis.engine.templates import PairTemplate
from tamis.errors import InvalidTextError, UnsupportedModelError
from tamis.types import TruncationSide

CHARACTERS_PER_TOKEN = 32
"""Characters looked at for each token of room at first: twice XLM-R's longest piece."""

SPARSE_TEXT_DOUBLINGS = 4
"""How often more is looked at when that was too little: 262,000 characters for 512 tokens."""

WORD_START = "▁"
"""What Metaspace puts before a word; a piece of its own where no longer piece begins the word."""

CONTROL_SPELLINGS = (
    *("<s>", "</s>", "<pad>", "<unk>", "<mask>"),
    *("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"),
)
"""Pieces that steer a model, should a tokenizer.json fail to flag them as special."""


class PairTokenizer:
    """Turns texts into `EncodedPair`s. Safe to call from any thread.

    Text is text: strings such as `</s>` or `<mask>` inside it become ordinary tokens, never
    special ones (see `text_definition`).

    Args:
        tokenizer: For text alone.
        template: How query and document become sequences.
        max_length: Tokens a pair may have.
        normalize: Applied to each text first; it keeps each character at its place.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: PairTemplate,
        *,
        max_length: int,
        normalize: Callable[[str], str] = str,
    ) -> None:
        self._tokenizer = tokenizer
        self._read = normalize
        self._template = template
        self._max_length = max_length

    def encode(
        self,
        query: str,
        documents: Sequence[str],
        *,
        truncate: bool = True,
        truncation_side: TruncationSide = "right",
        indices: Sequence[int] | None = None,
    ) -> list[EncodedPair]:
        """One pair for each document, in order; `indices` is what the caller calls each.

        The document is cut first; the query is kept whole up to half of `max_length`.

        Raises:
            InvalidTextError: a text is not valid Unicode.
            TextTooLongError: `truncate` is False and a text does not fit.
        """
        named = range(len(documents)) if indices is None else indices
        _require_unicode([query, *documents], ["query", *(f"document {n}" for n in named)])
        room = self._template.query_room(self._max_length)
        ((query_ids, query_cut),) = self._ids([query], room, "right")
        start = self._template.start(query_ids)
        room = self._template.document_room(self._max_length, len(query_ids))
        pairs = [
            EncodedPair(self._template.finish(start, ids), truncated=cut, query_truncated=query_cut)
            for ids, cut in self._ids(documents, room, truncation_side)
        ]
        if not truncate:
            _refuse_truncated(pairs, self._max_length, named)
        return pairs

    def spans(self, text: str, n_tokens: int) -> list[tuple[int, int]]:
        """Start and end, in characters, of the first `n_tokens` text tokens of a text.

        A piece that only marks the beginning of a word has no characters of its own.
        """
        encode = self._tokenizer.encode_batch
        (encoding,) = _encode_enough(encode, [self._read(text)], n_tokens, "right")
        tokens = list(zip(encoding.tokens, encoding.offsets, strict=True))[:n_tokens]
        return [(start, start if token == WORD_START else end) for token, (start, end) in tokens]

    def _ids(
        self, texts: Sequence[str], room: int, side: TruncationSide
    ) -> Iterator[tuple[TokenIds, bool]]:
        """At most `room` ids of each text, and whether it has more."""
        encode = self._tokenizer.encode_batch_fast  # without places in the text
        longest = (room + 1) * CHARACTERS_PER_TOKEN * 2**SPARSE_TEXT_DOUBLINGS
        read = list(map(self._read, texts))
        for text, encoding in zip(texts, _encode_enough(encode, read, room, side), strict=True):
            ids = encoding.ids
            kept = ids[:room] if side == "right" else ids[max(0, len(ids) - room) :]
            yield np.array(kept, dtype=np.int32), len(ids) > room or len(text) > longest


def read_definition(folder: Path) -> dict[str, Any]:
    """The contents of a model's tokenizer.json.

    Raises:
        ModelError: it is missing or cut short, or not what `tokenizers` writes.
    """
    path = folder / TOKENIZER_FILE
    definition = read_json(path)
    if not isinstance(definition.get("model"), dict):
        raise UnsupportedModelError(
            f"{path} has no `model`; tamis reads what `tokenizers` writes (`Tokenizer.save`)"
        )
    return definition


def read_text_tokenizer(definition: dict[str, Any]) -> Tokenizer:
    """A tokenizer for text, from the contents of a tokenizer.json (see `text_definition`).

    Raises:
        UnsupportedModelError: the `tokenizers` library cannot read it.
    """
    return open_text_tokenizer(text_definition(definition))


def text_definition(definition: dict[str, Any]) -> bytes:
    """A tokenizer.json for text alone, from the contents of one for anything.

    Special tokens are taken out of the text's reach: out of the added tokens, so that they are
    not looked for in text, and out of the vocabulary's spellings, where a Unigram model would
    find them on its own. A document therefore cannot forge `</s>` or `<mask>`. The template
    (post_processor) stays, for it puts them in by their ids.
    """
    special = special_ids(definition)
    added = cast("list[dict[str, Any]]", definition.get("added_tokens") or [])
    return msgspec.json.encode(
        definition
        | {
            "added_tokens": [token for token in added if token["id"] not in special],
            "model": _without_spellings(definition["model"], special),
            "truncation": None,
            "padding": None,
        }
    )


def open_text_tokenizer(definition: bytes) -> Tokenizer:
    """A tokenizer from what `text_definition` has made.

    Raises:
        UnsupportedModelError: the `tokenizers` library cannot read it.
    """
    try:
        return Tokenizer.from_buffer(definition)
    except Exception as error:
        raise UnsupportedModelError(f"tokenizer.json cannot be read: {error}") from error


def special_ids(definition: Mapping[str, Any]) -> set[int]:
    """Ids that text must not reach, whether or not the file flags them as special."""
    added = cast("list[dict[str, Any]]", definition.get("added_tokens") or [])
    spelled = {token["content"]: token["id"] for token in added} | _control_pieces(definition)
    flagged = {cast("int", token["id"]) for token in added if token.get("special")}
    controls = {cast("int", spelled[piece]) for piece in CONTROL_SPELLINGS if piece in spelled}
    return flagged | controls | _template_ids(definition.get("post_processor"))


def _control_pieces(definition: Mapping[str, Any]) -> dict[str, int]:
    vocabulary: Any = cast("dict[str, Any]", definition["model"]).get("vocab") or {}
    if isinstance(vocabulary, dict):
        return cast("dict[str, int]", vocabulary)
    pieces = cast("list[tuple[str, float]]", vocabulary)
    return {piece: index for index, (piece, _) in enumerate(pieces)}


def _template_ids(processor: Any) -> set[int]:
    """Ids that a post-processor, or one inside it, puts around texts."""
    if not isinstance(processor, dict):
        return set()
    parts = cast("dict[str, Any]", processor)
    ids = {parts[end][1] for end in ("cls", "sep") if end in parts}
    for token in cast("dict[str, Any]", parts.get("special_tokens") or {}).values():
        ids |= set(token["ids"])
    return ids.union(*map(_template_ids, parts.get("processors") or []))


def _without_spellings(model: dict[str, Any], special: set[int]) -> dict[str, Any]:
    """The vocabulary with special tokens spelled so that no text matches them.

    A piece with a space in it is never looked up: pre-tokenizers split or replace spaces.
    """
    vocabulary: Any = model.get("vocab") or {}
    if isinstance(vocabulary, list):
        pieces = cast("list[tuple[str, float]]", vocabulary)
        spelled = [
            [f"special {index}", score] if index in special else [piece, score]
            for index, (piece, score) in enumerate(pieces)
        ]
        return model | {"vocab": spelled}
    ids = cast("dict[str, int]", vocabulary)
    renamed = {f"special {i}" if i in special else piece: i for piece, i in ids.items()}
    unknown = ids.get(model.get("unk_token") or "")
    return model | {
        "vocab": renamed,
        "unk_token": f"special {unknown}" if unknown in special else model.get("unk_token"),
    }


def _encode_enough(
    encode: Callable[..., list[Encoding]], texts: Sequence[str], room: int, side: TruncationSide
) -> list[Encoding]:
    """Encode texts whole, or enough of their beginning (end) to have more than `room` tokens.

    Tokenizing costs by the character, so a long text is cut first, and less of it is cut while
    it proves sparse (a long run of blanks is one token), `SPARSE_TEXT_DOUBLINGS` times at most.
    """
    found: dict[int, Encoding] = {}
    most = (room + 1) * CHARACTERS_PER_TOKEN
    waiting = list(range(len(texts)))
    for _ in range(1 + SPARSE_TEXT_DOUBLINGS):
        short = [texts[n][:most] if side == "right" else texts[n][-most:] for n in waiting]
        found |= dict(zip(waiting, encode(short, add_special_tokens=False), strict=True))
        waiting = [n for n in waiting if len(texts[n]) > most and len(found[n].ids) <= room]
        if not waiting:
            break
        most *= 2
    return [found[n] for n in range(len(texts))]


def _refuse_truncated(pairs: list[EncodedPair], max_length: int, indices: Sequence[int]) -> None:
    for index, pair in zip(indices, pairs, strict=True):
        require_uncut(pair, max_length, index)


def _require_unicode(texts: Sequence[str], names: Sequence[str]) -> None:
    """All of each text counts, what will be cut of it too: it may go back to the caller."""
    for name, text in zip(names, texts, strict=True):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidTextError(
                f"{name} is not valid Unicode: lone surrogate at character {error.start}"
            ) from error
