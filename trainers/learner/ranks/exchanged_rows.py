"""A batch that lies on all ranks in blocks, by torch.distributed: numbers gathered, and rows sent (ExchangedRows)."""

import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed

from plumbob.trainers.learner.engine import Rank


class ExchangedRows:
    """Satisfies `RowExchange` by torch.distributed: a batch in blocks of as many rows on each rank."""

    def __init__(self, rank: Rank, device: torch.device) -> None:
        self._rank, self._device = rank, device

    def gather(self, own: Tensor) -> Tensor:
        if self._rank.world_size == 1:
            return own
        sent = own.to(self._device, torch.uint8 if own.dtype == torch.bool else own.dtype).contiguous()
        parts = [torch.empty_like(sent) for _ in range(self._rank.world_size)]
        distributed.all_gather(parts, sent)
        return torch.cat(parts).to(own.device, own.dtype)

    def own(self, whole: Tensor) -> Tensor:
        size = len(whole) // self._rank.world_size
        return whole[self._rank.index * size : (self._rank.index + 1) * size]

    def exchange(self, parcels: Mapping[int, Any]) -> dict[int, Any]:
        sent = {to: self._packed(parcel) for to, parcel in parcels.items()}
        sizes = torch.zeros(1, self._rank.world_size, dtype=torch.int64)
        for to, packed in sent.items():
            sizes[0, to] = len(packed)
        incoming = self.gather(sizes)[:, self._rank.index].tolist()
        found = {
            sender: torch.empty(size, dtype=torch.uint8, device=self._device)
            for sender, size in enumerate(incoming)
            if size
        }
        trips = [distributed.P2POp(distributed.isend, packed, to) for to, packed in sent.items()]
        trips += [distributed.P2POp(distributed.irecv, packed, sender) for sender, packed in found.items()]
        for trip in distributed.batch_isend_irecv(trips) if trips else ():
            trip.wait()
        return {sender: pickle.loads(packed.cpu().numpy().tobytes()) for sender, packed in found.items()}

    def _packed(self, parcel: Any) -> Tensor:
        return torch.frombuffer(bytearray(pickle.dumps(parcel)), dtype=torch.uint8).to(self._device)
