"""The sizes and rates of an encoder."""

import dataclasses

from metalr.models.families import FAMILIES
from metalr.models.family import Family


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes and rates of an encoder; the names are those of BERT's config.json."""

    family: str  # a row of FAMILIES
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int  # 0: no table of types
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    pad_token_id: int
    # What only some families have; `Family.names` says which.
    classifier_dropout: float | None = None  # None: hidden_dropout_prob
    embedding_size: int = 0  # of the tables; 0: hidden_size
    hidden_act: str = "gelu"
    classifier_pooling: str = "cls"
    # Every so many layers all tokens are attended to, in the others those in the
    # window, in tokens; rotations turn by these bases.
    global_attn_every_n_layers: int = 1
    local_attention: int = 0
    global_rope_theta: float = 0.0
    local_rope_theta: float = 0.0

    # Rows of the table of distances in one direction, and the farthest of its own.
    position_buckets: int = 0
    max_relative_positions: int = 0

    @property
    def differences(self) -> Family:
        """The row of its family."""
        return FAMILIES[self.family]

    @property
    def first_position(self) -> int:
        """The row of the position table that the first token of a text reads."""
        after = self.differences.positions == "after padding"
        return self.pad_token_id + 1 if after else 0

    @property
    def max_length(self) -> int:
        """The longest input in tokens: 512 for RoBERTa's table of 514 rows."""
        return self.max_position_embeddings - self.first_position

    @property
    def table_width(self) -> int:
        """The width of the tables of words, positions and types."""
        return self.embedding_size or self.hidden_size

    @property
    def projects_embeddings(self) -> bool:
        """Whether a linear layer leads from the tables to the layers."""
        always = self.differences.always_projects
        return always or self.table_width != self.hidden_size

    @property
    def stored_layers(self) -> int:
        """How many layers have weights of their own."""
        return 1 if self.differences.one_layer_for_all else self.num_hidden_layers

    @property
    def head_dropout(self) -> float:
        """The dropout rate of the heads over the first token."""
        rate = self.classifier_dropout
        return self.hidden_dropout_prob if rate is None else rate
