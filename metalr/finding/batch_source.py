"""Batches by their number, from whatever holds them, and left where they were."""

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from metalr.errors import MetalrError


def by_step(batches: Any) -> Callable[[int], Any]:
    """Return batches as a function of the step; they begin again at their end.

    Args:
      batches: A function of the step; a sequence; or what makes a fresh iterator each
        time, as a loader of rows does.

    Raises:
      MetalrError: It is an iterator, which could not be put back where it was, or none
        of these.

    >>> [by_step(["a", "b"])(step) for step in (0, 1, 2)]
    ['a', 'b', 'a']
    """
    if callable(batches) and not hasattr(batches, "__iter__"):
        return batches
    if isinstance(batches, Iterator):
        raise MetalrError(
            "`batches` must be readable again from their start, and an iterator is "
            f"not: what a probe takes of a {type(batches).__name__} would be missing "
            "from the run. Give a list, a function of the step, or the loader that "
            "the iterator is of"
        )
    one = isinstance(batches, tuple) and (
        hasattr(batches, "_fields") or all(hasattr(x, "dtype") for x in batches)
    )
    if isinstance(batches, Mapping | str) or hasattr(batches, "dtype") or one:
        raise MetalrError(
            f"`batches` must be several batches, got one {type(batches).__name__}; "
            "give [batch] if the run has only this one"
        )
    if isinstance(batches, Sequence):
        if not batches:
            raise MetalrError("`batches` must hold at least one batch, got none")
        return lambda step: batches[step % len(batches)]
    if isinstance(batches, Iterable):
        return _Again(batches)
    raise MetalrError(
        "`batches` must be a function of the step, a sequence or an iterable, got a "
        f"{type(batches).__name__}"
    )


class _Again:
    """Batches of an iterable by their number, asked for in order."""

    def __init__(self, batches: Iterable[Any]):
        self._batches = batches
        self._iterator: Iterator[Any] = iter(())
        self._next, self._last = 0, None

    def __call__(self, step: int) -> Any:
        """Return the batch of a step; one before the last begins anew."""
        if step == self._next - 1:
            return self._last
        if step < self._next:
            self._iterator, self._next = iter(()), 0
        while self._next <= step:
            self._last, self._next = self._take(), self._next + 1
        return self._last

    def _take(self) -> Any:
        for _ in range(2):
            for batch in self._iterator:
                return batch
            self._iterator = iter(self._batches)
        raise MetalrError("`batches` must hold at least one batch, got none")


@contextlib.contextmanager
def random_states_kept(batches: Any) -> Iterator[None]:
    """Put the generators that batches may draw from back at the end.

    A loader that shuffles draws from one each time that it is iterated: from the global
    one of Python, NumPy or PyTorch, or from that which a PyTorch loader was given.
    """
    own = [(generator, generator.get_state()) for generator in _generators(batches)]
    torch = sys.modules.get("torch")  # not imported: then nobody draws from it
    python, numpy = random.getstate(), np.random.get_state()
    others = torch.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(others)
        for generator, state in own:
            generator.set_state(state)


def _generators(batches: Any) -> list[Any]:
    """Return the generators of a loader as PyTorch's, and of what it draws with."""
    of_batches = getattr(batches, "batch_sampler", None)
    parts = [batches, getattr(batches, "sampler", None)]
    parts += [of_batches, getattr(of_batches, "sampler", None)]
    found = [getattr(part, "generator", None) for part in parts]
    return [one for one in found if hasattr(one, "set_state")]
