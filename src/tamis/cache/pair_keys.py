"""Keys of pairs: everything that a logit depends on, and who may see it.

A key is a digest under a secret: who reads a store cannot tell which texts it has scores of, nor
make an entry that would be believed. Every part goes in with its length before it, so that no two
different lists of parts make the same bytes.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from tamis.cache.store import NAMESPACE_BYTES
from tamis.types import TruncationSide

KEY_VERSION = 2
"""Raised when the same texts, model and options may come to another logit: templates, special
tokens, a head's arithmetic, or the layout of values."""

NO_SECRET = b"tamis"
"""What keys are made under where nobody has set a secret: no protection, but a key all the same."""


@dataclass(frozen=True, slots=True)
class PairKeys:
    """Makes the keys of one model's pairs.

    Args:
        secret: Servers that share a store share it.
        identity: What else than the texts decides a logit: files, arithmetic, lengths.
    """

    secret: bytes
    identity: Sequence[str]

    def of(
        self,
        namespace: str,
        query: str,
        documents: Sequence[str],
        *,
        truncation_side: TruncationSide = "right",
    ) -> list[bytes]:
        """One key for each document, of `KEY_BYTES`.

        Args:
            namespace: Who may see the scores.
            query: As it is asked; no form of it is taken for another.
            documents: The texts.
            truncation_side: The end that is cut.
        """
        start = namespace_digest(self.secret, namespace)
        parts = (str(KEY_VERSION), *self.identity, namespace, truncation_side, query)
        common = hmac.new(self.secret, digestmod="sha256")
        for part in parts:
            common.update(_framed(part))
        keys: list[bytes] = []
        for document in documents:
            digest = common.copy()
            digest.update(_framed(document))
            keys.append(start + digest.digest())
        return keys


def namespace_digest(secret: bytes, namespace: str) -> bytes:
    """What all keys of a namespace begin with."""
    content = b"namespace" + _framed(namespace)
    return hmac.digest(secret, content, "sha256")[:NAMESPACE_BYTES]


def _framed(text: str) -> bytes:
    """Its length, then itself; what is no valid Unicode is told apart, and refused elsewhere."""
    content = text.encode("utf-8", "surrogatepass")
    return len(content).to_bytes(8, "little") + content
