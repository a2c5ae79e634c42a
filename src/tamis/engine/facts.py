"""What a loaded model is, said once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model that is ready to score: what it is, and where and how it computes.

    Attributes:
        runtime: The inference library it runs on.
        device: `cpu` or `cuda`.
        dtype: What it computes in.
        max_length: Tokens a pair may have here.
        max_batch_tokens: The token budget of one forward pass that suits it here.
        digest: sha256 of the files that it was read from.
    """

    name: str
    runtime: str
    device: str
    dtype: str
    max_length: int
    max_batch_tokens: int
    digest: str = ""

    @property
    def identity(self) -> tuple[str, ...]:
        """What decides a logit besides the texts."""
        return (
            *(self.name, self.digest, self.runtime, self.device, self.dtype),
            str(self.max_length),
        )
