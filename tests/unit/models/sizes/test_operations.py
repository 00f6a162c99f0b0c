"""Operations of a model whose sizes are small enough to count by hand."""

from plumbob.models.sizes.config_sizes import ModelSizes
from plumbob.models.sizes.operations import Operations, forward_operations, learning_operations

SIZES = ModelSizes(
    num_parameters=500,
    num_layers=2,
    hidden_size=8,
    intermediate_size=16,
    kv_size=4,
    vocab_size=50,
    num_multiplied=100,
)


def test_each_weight_is_a_product_and_a_sum() -> None:
    found = forward_operations(SIZES, num_tokens=10, length=6, num_predicted=4)
    # Each of 10 tokens: 100 weights twice; in each of 2 layers scores and a mean of 8 numbers with 3 tokens on average,
    # 4 x 8 x 3. A head of 8 x 50 weights for 4 of them.
    assert found == Operations(10 * (200 + 2 * 4 * 8 * 3), 4 * 2 * 8 * 50) == Operations(3920, 3200)


def test_a_backward_takes_a_forward_and_another_for_what_is_trained() -> None:
    forward = Operations(3920, 3200)
    assert learning_operations(forward, 1.0, 10) == Operations(3 * 3920, 3 * 3200)
    # An adapter of 7 weights beside a frozen model: forward and both slopes of each, 2 operations a token.
    assert learning_operations(forward, 0.0, 10, num_beside=7) == Operations(2 * 3920 + 6 * 7 * 10, 2 * 3200)
    # Blocks that are computed anew; the head is not.
    assert learning_operations(forward, 0.5, 10, is_recomputed=True) == Operations(3.5 * 3920, 2.5 * 3200)
