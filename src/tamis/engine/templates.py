"""How query and document become sequences: a tokenizer's templates, and how many tokens fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer

from tamis.engine.pairs import TokenIds, TokenSequence
from tamis.errors import UnsupportedModelError


class PairTemplate(Protocol):
    """How query and document become sequences, and how many tokens each may keep."""

    def query_room(self, max_length: int) -> int:
        """Most text tokens a query may keep."""
        ...

    def document_room(self, max_length: int, n_query_tokens: int) -> int:
        """Most text tokens a document may keep with a query of `n_query_tokens`."""
        ...

    def start(self, query_ids: TokenIds) -> TokenSequence:
        """The part that all pairs of one query share."""
        ...

    def finish(self, start: TokenSequence, document_ids: TokenIds) -> tuple[TokenSequence, ...]:
        """The sequences of one pair."""
        ...


@dataclass(frozen=True, slots=True)
class JointTemplate:
    """Query and document in one sequence: prefix, query, middle, document, suffix.

    XLM-R's is `<s> query </s></s> document </s>`; the token types are the model's own.
    """

    prefix: TokenSequence
    middle: TokenSequence
    suffix: TokenSequence
    query_type: int
    document_type: int

    @property
    def n_special(self) -> int:
        """Tokens that are not text."""
        return sum(len(part.token_ids) for part in (self.prefix, self.middle, self.suffix))

    def query_room(self, max_length: int) -> int:
        """Half of `max_length`: a document always keeps the other half."""
        return max_length // 2

    def document_room(self, max_length: int, n_query_tokens: int) -> int:
        """What query and special tokens leave."""
        return max(0, max_length - self.n_special - n_query_tokens)

    def start(self, query_ids: TokenIds) -> TokenSequence:
        """Prefix, query and middle."""
        return _join(self.prefix, _typed(query_ids, self.query_type), self.middle)

    def finish(self, start: TokenSequence, document_ids: TokenIds) -> tuple[TokenSequence, ...]:
        """One sequence."""
        return (_join(start, _typed(document_ids, self.document_type), self.suffix),)


@dataclass(frozen=True, slots=True)
class SeparateTemplate:
    """Query and document in sequences of their own, each behind its prefix.

    multilingual-e5's are `<s> query: … </s>` and `<s> passage: … </s>`.
    """

    query_prefix: TokenSequence
    document_prefix: TokenSequence
    suffix: TokenSequence

    def query_room(self, max_length: int) -> int:
        """Half of `max_length`, as where both are read together."""
        n_around = len(self.query_prefix.token_ids) + len(self.suffix.token_ids)
        return max(0, max_length // 2 - n_around)

    def document_room(self, max_length: int, n_query_tokens: int) -> int:
        """All of `max_length` but prefix and suffix: the query is elsewhere."""
        n_around = len(self.document_prefix.token_ids) + len(self.suffix.token_ids)
        return max(0, max_length - n_around)

    def start(self, query_ids: TokenIds) -> TokenSequence:
        """The query's whole sequence."""
        return _join(self.query_prefix, _typed(query_ids, 0), self.suffix)

    def finish(self, start: TokenSequence, document_ids: TokenIds) -> tuple[TokenSequence, ...]:
        """Query and document."""
        return start, _join(self.document_prefix, _typed(document_ids, 0), self.suffix)


def read_joint_template(tokenizer: Tokenizer) -> JointTemplate:
    """The model's own pair template, found by encoding a pair with its tokenizer.

    Raises:
        UnsupportedModelError: the tokenizer puts no special tokens around a pair.
    """
    encoding = tokenizer.encode("a", "b")
    sides = encoding.sequence_ids
    if None not in sides or 0 not in sides or 1 not in sides:
        raise UnsupportedModelError("tokenizer.json has no template for pairs (post_processor)")
    query, document = sides.index(0), sides.index(1)
    query_end = len(sides) - sides[::-1].index(0)
    document_end = len(sides) - sides[::-1].index(1)
    tokens = _sequence(encoding.ids, encoding.type_ids)
    return JointTemplate(
        prefix=_slice(tokens, 0, query),
        middle=_slice(tokens, query_end, document),
        suffix=_slice(tokens, document_end, len(sides)),
        query_type=encoding.type_ids[query],
        document_type=encoding.type_ids[document],
    )


def read_separate_template(
    tokenizer: Tokenizer, *, query_prefix: str, document_prefix: str
) -> SeparateTemplate:
    """Templates of a model that reads query and document apart, behind these prefixes."""
    parts: list[TokenSequence] = []
    for prefix in (query_prefix, document_prefix):
        encoding = tokenizer.encode(prefix)
        parts.append(_sequence(encoding.ids, [0] * len(encoding.ids)))
    sides = tokenizer.encode(query_prefix).sequence_ids
    n_suffix = sides[::-1].index(0)
    query, document = (_slice(part, 0, len(part.token_ids) - n_suffix) for part in parts)
    return SeparateTemplate(query, document, _slice(parts[0], -n_suffix, len(sides)))


def _sequence(ids: Sequence[int], type_ids: Sequence[int]) -> TokenSequence:
    return TokenSequence(np.array(ids, dtype=np.int32), np.array(type_ids, dtype=np.int32))


def _typed(ids: TokenIds, type_id: int) -> TokenSequence:
    return TokenSequence(ids, np.full(len(ids), type_id, dtype=np.int32))


def _slice(tokens: TokenSequence, start: int, end: int) -> TokenSequence:
    return TokenSequence(tokens.token_ids[start:end], tokens.type_ids[start:end])


def _join(*parts: TokenSequence) -> TokenSequence:
    return TokenSequence(
        np.concatenate([part.token_ids for part in parts]),
        np.concatenate([part.type_ids for part in parts]),
    )
