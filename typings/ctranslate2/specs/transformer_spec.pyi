from typing import Any

from ctranslate2.specs.common_spec import Activation, EmbeddingsMerge

class TransformerEncoderSpec:
    scale_embeddings: bool
    embeddings: list[Any]
    layer: list[Any]
    position_encodings: Any
    layernorm_embedding: Any
    def __init__(
        self,
        num_layers: int,
        num_heads: int,
        *,
        pre_norm: bool = True,
        activation: Activation = ...,
        num_source_embeddings: int = 1,
        embeddings_merge: EmbeddingsMerge = ...,
        layernorm_embedding: bool = False,
    ) -> None: ...

class TransformerEncoderModelSpec:
    config: Any
    pooler_dense: Any
    def __init__(self, encoder: TransformerEncoderSpec, *, pooling_layer: bool = False) -> None: ...
    def register_vocabulary(self, tokens: list[str]) -> None: ...
    def validate(self) -> None: ...
    def optimize(self, quantization: str | None = None) -> None: ...
    def save(self, output_dir: str) -> None: ...
