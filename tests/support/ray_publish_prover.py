"""A rollout worker for the tests of a publish, in a module that Ray's processes can import."""

from pathlib import Path

from plumbob.models.adapter import Adapter
from plumbob.rollout.publish_proof import PublishProof


class Prover:
    """A rollout worker that proves another version, or another number of tensors, than it was sent, by so many."""

    def __init__(self, log: Path, version_off: int = 0, tensors_off: int = 0) -> None:
        self._name, self._version_off, self._tensors_off = log.stem, version_off, tensors_off

    def load(self, adapter: Adapter) -> PublishProof:
        version, num_tensors = adapter.version + self._version_off, len(adapter.tensors) + self._tensors_off
        return PublishProof(self._name, version, num_tensors, max_abs_difference=0.0, max_allowed=0.0, seconds=0.0)
