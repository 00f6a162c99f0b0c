"""Operations that a transformer's matrix products take, by its sizes: of a token forward, and of learning from it."""

from dataclasses import dataclass

from plumbob.models.sizes.config_sizes import ModelSizes


@dataclass(frozen=True)
class Operations:
    """Multiplications and additions.

    Attributes:
        body: in the blocks, attention included.
        head: of the output embeddings.
    """

    body: float = 0.0
    head: float = 0.0

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.body + other.body, self.head + other.head)

    def times(self, body: float, head: float | None = None) -> "Operations":
        """`head`: None as `body`."""
        return Operations(body * self.body, (body if head is None else head) * self.head)


def forward_operations(sizes: ModelSizes, num_tokens: float, length: float, num_predicted: float) -> Operations:
    """2 for each weight and token; and of attention 4 for each number of a token's width and each that it looks at.

    Args:
        num_tokens: that are computed.
        length: of a sequence; a token looks at half of it on average.
        num_predicted: tokens of these that logits are computed for.
    """
    of_token = 2.0 * sizes.num_multiplied + 2.0 * length * sizes.hidden_size * sizes.num_layers
    return Operations(num_tokens * of_token, num_predicted * 2.0 * sizes.hidden_size * sizes.vocab_size)


def learning_operations(
    forward: Operations, trained_share: float, num_tokens: float, num_beside: int = 0, is_recomputed: bool = False
) -> Operations:
    """Forward and backward: the slope of what goes through costs a forward, that of the weights another one.

    Args:
        trained_share: of the model's own weights.
        num_beside: weights of an adapter, which are all trained.
        is_recomputed: whether the blocks go forward a second time instead of keeping what the backward needs.
    """
    whole = forward.times(2.0 + trained_share + is_recomputed, 2.0 + trained_share)
    return whole + Operations(6.0 * num_beside * num_tokens)
