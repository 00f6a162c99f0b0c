"""LoRA on a CPU as one pair of matrix products an adapter: vLLM's own copies the adapter once for each token.

vLLM 0.32 gathers A and B for every token, [tokens, r, in] and [tokens, out, r], which takes longer than the model
does. Tokens of one adapter are multiplied together here. Imported by vLLM, by its name.
"""

from typing import Any

from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

NAME = f"{__name__}.GroupedLora"


class GroupedLora(PunicaWrapperCPU):
    """y += scale (x A^T) B^T, as vLLM's: x A^T in float32, the second product in the dtype of y.

    A token without an adapter gets nothing: vLLM's would give it the adapter in the last slot while it decodes.
    """

    _groups: tuple[tuple[int, Tensor | slice], ...] = ()
    """(slot of an adapter, the rows of its tokens)"""

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """As vLLM's; called when the tokens of a batch are other adapters' than before."""
        super().update_metadata(*args, **kwargs)
        slots = self.token_lora_indices.unique().tolist()
        self._groups = tuple((slot, self._rows(slot, len(slots))) for slot in slots if slot >= 0)

    def _rows(self, slot: int, num_slots: int) -> Tensor | slice:
        return slice(None) if num_slots == 1 else (self.token_lora_indices == slot).nonzero()[:, 0]

    def _shrink(self, y: Tensor, x: Tensor, a_stacked: Tensor, scale: float) -> None:
        """y [tokens, r] = scale x A^T; `a_stacked` [slots, 1, r, in]."""
        for slot, rows in self._groups:
            a = a_stacked[slot].squeeze(0).to(y.dtype)
            y[rows, : len(a)] = scale * (x[rows].to(y.dtype) @ a.T)

    def _expand_slice(
        self, y: Tensor, x: Tensor, b_stacked: Tensor, offset: int, size: int, add_inputs: bool = True
    ) -> None:
        """Columns [offset, offset + size) of y [tokens, out] += x B^T; `b_stacked` [slots, 1, size, r]."""
        for slot, rows in self._groups:
            b = b_stacked[slot].squeeze(0)[:size].to(y.dtype)
            product = x[rows].to(y.dtype) @ b.T
            columns = slice(offset, offset + len(b))
            y[rows, columns] = y[rows, columns] + product if add_inputs else product

    def _expand(self, y: Tensor, x: Tensor, b_stacked: Tensor, add_inputs: bool) -> None:
        self._expand_slice(y, x, b_stacked, 0, y.shape[1], add_inputs)

    _shrink_prefill = _shrink_decode = _shrink
    _expand_slice_prefill = _expand_slice_decode = _expand_slice
    _expand_prefill = _expand_decode = _expand


def use_grouped_lora() -> None:
    """Have engines that this process starts from now on compute with it. On a CPU alone."""
    from vllm.platforms import current_platform

    type(current_platform).get_punica_wrapper = classmethod(lambda cls: NAME)
