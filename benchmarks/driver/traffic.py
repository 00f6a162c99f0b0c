"""What goes through the driver: bytes that it sends, puts into the object store and gets out of it (`Traffic`)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray import ObjectRef
from ray.experimental import get_object_locations


class Traffic:
    """Counts while `counting` is open. A count costs time: a step that is counted is not one that is timed.

    Attributes:
        through_driver: bytes of what it sent with calls, put and got.
        to_learners: bytes that learner ranks read, each for itself: of a reference, its object's size.
    """

    def __init__(self) -> None:
        self.through_driver = self.to_learners = 0
        self._is_on = False

    def called(self, arguments: tuple[Any, ...], is_learner: bool) -> None:
        """Note what a call to a worker carries."""
        if not self._is_on:
            return
        references = [one for one in arguments if isinstance(one, ObjectRef)]
        own = size_of(tuple(one for one in arguments if not isinstance(one, ObjectRef)))
        self.through_driver += own
        if is_learner:
            self.to_learners += own + sum(
                found["object_size"] or 0 for found in get_object_locations(references).values()
            )

    @contextmanager
    def counting(self) -> Iterator[None]:
        put, get = ray.put, ray.get

        def counted_put(value: Any, **options: Any) -> ObjectRef:
            self.through_driver += size_of(value)
            return put(value, **options)

        def counted_get(references: Any, **options: Any) -> Any:
            found = get(references, **options)
            self.through_driver += size_of(found)
            return found

        self._is_on, ray.put, ray.get = True, counted_put, counted_get
        try:
            yield
        finally:
            self._is_on, ray.put, ray.get = False, put, get


def size_of(value: Any) -> int:
    """Bytes of a value as Ray serialises it, arrays included."""
    context = ray._private.worker.global_worker.get_serialization_context()
    total: int = context.serialize(value).total_bytes
    return total


class CallTarget:
    """One worker as the driver calls it: a shared actor, whose calls begin with what names this worker.

    Args:
        first: arguments before those of each call.
    """

    def __init__(self, actor: Any, traffic: Traffic, is_learner: bool = False, first: tuple[int, ...] = ()) -> None:
        self._actor, self._traffic, self._is_learner, self._first = actor, traffic, is_learner, first

    def __getattr__(self, name: str) -> "RemoteMethod":
        return RemoteMethod(self, name)

    def call(self, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        self._traffic.called(arguments, self._is_learner)
        return getattr(self._actor, name).options(**options).remote(*self._first, *arguments)


class RemoteMethod:
    """What `handle.method` is of a Ray actor."""

    def __init__(self, target: CallTarget, name: str, **options: Any) -> None:
        self._target, self._name, self._options = target, name, options

    def options(self, **options: Any) -> "RemoteMethod":
        return RemoteMethod(self._target, self._name, **options)

    def remote(self, *arguments: Any) -> Any:
        return self._target.call(self._name, arguments, self._options)
