"""Overhead of a scheduler: the time of its step over plain AdamW's, in pairs.

A pair is one training step under the scheduler and one under AdamW with a constant
rate, on the same batch, in alternating order, so that other load on the machine slows
both sides of a pair. Memory is the size of the optimizer's state.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from metalr.compare import store
from metalr.compare.plan import length
from metalr.finetune import loop, schedulers
from metalr.finetune.config import RunConfig
from metalr.finetune.inputs import max_length_of
from metalr.finetune.preparation import Prepared, prepare

BASELINE = "constant"
_WARM_UP = 2  # pairs that are not counted
_REPETITIONS = 5  # each gives one median


def key(config: RunConfig) -> str:
    """Return the key of a measurement: scheduler, model, shape, kind of device.

    That of a row that learns depends on the predictor and the controller as well.
    """
    names = ("scheduler", "model", "batch_size")
    shape = {name: getattr(config, name) for name in names}
    shape["device"] = jax.default_backend()
    shape["max_length"] = length(config)
    return store.key(shape, overhead=True, **schedulers.learned_by(config))


def measure(runs: Sequence[RunConfig], *, pairs: int = 30) -> Iterator[dict[str, Any]]:
    """Measure each scheduler and shape among the runs once.

    Args:
      runs: The runs of a plan; of runs that differ in rate or seed the first is taken.
      pairs: Steps of each side.

    Yields:
      A line for the store: `step_ratio`, medians of a fifth of the pairs each, and
      `state_ratio`, bytes of the optimizer's state over AdamW's.

    Raises:
      MetalrError: Data or model cannot be loaded.
    """
    plain: dict[tuple, _Side] = {}  # AdamW's side of each task and shape
    for config in {key(config): config for config in reversed(runs)}.values():
        shape = (config.task, config.model, config.batch_size, length(config))
        if shape not in plain:
            adamw = dataclasses.replace(config, scheduler=BASELINE, learning_rate=None)
            plain.clear()  # one in memory at a time
            plain[shape] = _Side(prepare(adamw))
        sides = [plain[shape], _Side(prepare(config))]
        ratios = list(_ratios(sides, pairs))
        size = len(ratios) // _REPETITIONS or 1
        yield {
            "kind": store.OVERHEAD,
            "key": key(config),
            "scheduler": config.scheduler,
            "model": config.model,
            "batch_size": config.batch_size,
            "max_length": sides[1].length,
            "device": jax.devices()[0].platform,
            "step_ratio": [
                round(statistics.median(ratios[i : i + size]), 4)
                for i in range(0, len(ratios) - size + 1, size)
            ],
            "state_ratio": round(sides[1].state_bytes / sides[0].state_bytes, 4),
        }


class _Side:
    """A run that does one step at a time."""

    def __init__(self, prepared: Prepared):
        params = prepared.problem.params
        state = prepared.layout.init(prepared.tx.init, params)
        task, model = prepared.data.task, prepared.model
        self.length = max_length_of(prepared.config, task, model)
        self.state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        self._state = loop.start(params, state, seed=0)
        self._batch = prepared.problem.batches.batch(0)  # of one shape at every step
        self._step: Callable = loop.make_step(
            prepared.problem.loss_fn, prepared.tx, accumulate=1
        )

    def seconds(self) -> float:
        """Do one step and return how long it took."""
        begun = time.perf_counter()
        found = self._step(self._state, self._batch)
        self._state, _ = jax.block_until_ready(found)
        return time.perf_counter() - begun


def _ratios(sides: list[_Side], pairs: int) -> Iterator[float]:
    """Yield the time of the second side over that of the first, pair by pair."""
    for pair in range(pairs + _WARM_UP):
        order = (0, 1) if pair % 2 else (1, 0)
        taken = {side: sides[side].seconds() for side in order}
        if pair >= _WARM_UP:
            yield taken[1] / taken[0]
