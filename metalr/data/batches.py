"""Batches of few static shapes: rows of like length together, order from the seed.

Padding to the longest row wastes most of the work on real text, and one shape a
batch would make jax compile again and again. So lengths are rounded up to a few
*buckets*, chosen to waste least, and every batch has the shape of one of them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from metalr.data.encoded import Encoded
from metalr.data.ragged import Ragged

Batch = dict[str, np.ndarray]

MULTIPLE = 8  # of tokens that rows are padded to


def bucket_lengths(
    lengths: Sequence[int] | np.ndarray, max_shapes: int = 4, multiple: int = MULTIPLE
) -> tuple[int, ...]:
    """Choose the lengths to pad to, such that the sum of padded lengths is least.

    With the rounded lengths l_1 < ... < l_K and their counts, the least cost of the
    first j with s buckets is

        cost(s, j) = min over i < j of cost(s - 1, i) + count(i < k <= j) l_j,

    an exact search in O(K^2 max_shapes). Among equal costs the fewest buckets win.

    Args:
      lengths: Length of each row, in tokens.
      max_shapes: The most buckets.
      multiple: Buckets are multiples of this.

    Returns:
      Ascending lengths; the last is at least the longest row.

    >>> bucket_lengths([3, 5, 8, 9, 60], max_shapes=2)
    (16, 64)
    """
    if len(lengths) == 0 or max_shapes < 1 or multiple < 1:
        raise ValueError("bucket_lengths needs lengths, max_shapes >= 1, multiple >= 1")
    rounded = -(-np.maximum(np.asarray(lengths, np.int64), 1) // multiple) * multiple
    sizes, counts = np.unique(rounded, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])  # rows in the first i sizes
    # step[i, j]: sizes i to j go into a bucket of size j.
    step = (before[None, 1:] - before[:-1, None]) * sizes[None, :].astype(np.float64)
    step[np.tril_indices(len(sizes), -1)] = np.inf
    cost, choices = step[0], [np.zeros(len(sizes), np.int64)]
    totals = [cost[-1]]
    for _ in range(min(max_shapes, len(sizes)) - 1):
        through = np.concatenate([[np.inf], cost[:-1]])[:, None] + step
        choices.append(through.argmin(axis=0))
        cost = through.min(axis=0)
        totals.append(cost[-1])
    end, chosen = len(sizes), []
    for s in range(int(np.argmin(totals)), -1, -1):
        chosen.append(int(sizes[end - 1]))
        end = int(choices[s][end - 1])
    return tuple(reversed(chosen))


class TrainBatches:
    """Shuffled batches for training, each a pure function of data, seed and step.

    Every epoch draws a new permutation, deals its rows to the buckets in that order,
    cuts each bucket into batches and shuffles the batches: within a batch rows are of
    like length and otherwise random. What is left over in a bucket moves up to the
    next longer one, so that an epoch has ceil(n / batch_size) batches and only one
    of them is filled up with rows of weight 0. How many batches a shape gets
    depends on the lengths alone: after one epoch there is no new shape.
    """

    steps_per_epoch: int
    shapes: tuple[int, ...]  # lengths of the batches, ascending

    def __init__(
        self,
        encoded: Encoded,
        batch_size: int,
        *,
        seed: int,
        pad_token_id: int,
        max_shapes: int = 4,
        places: np.ndarray | None = None,
        draws: np.ndarray | None = None,
    ):
        """Choose the buckets.

        Args:
          encoded: The entries to learn from, at least one.
          batch_size: Rows a batch.
          seed: Of the order; 0 or more.
          pad_token_id: Fills input_ids behind the end of a row.
          max_shapes: The most lengths.
          places: Which row of the whole batch each row is, as `DeviceLayout.places` of
            `metalr.finetune.sharding` has them. None: row i is row i.
          draws: [n] how likely each row is drawn, again and again; None: every row
            once an epoch.
        """
        if not len(encoded.input_ids) or batch_size < 1:
            raise ValueError(
                "TrainBatches needs at least one entry and batch_size >= 1"
            )
        lengths = encoded.lengths
        self._encoded, self._batch_size = encoded, batch_size
        self._places = np.arange(batch_size) if places is None else places
        self._seed, self._pad_token_id, self._draws = seed, pad_token_id, draws
        self._buckets = bucket_lengths(lengths, max_shapes)
        self._bucket_of = np.searchsorted(self._buckets, lengths)
        self.steps_per_epoch = -(-len(lengths) // batch_size)
        self._epoch, self._plan = 0, self._make_plan(0)
        found = {length for length, _ in self._plan} if draws is None else self._buckets
        self.shapes = tuple(sorted(found))

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0 on through all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._make_plan(epoch)
        length, rows = self._plan[position]
        return _assemble(self._encoded, rows, self._places, length, self._pad_token_id)

    def _make_plan(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Return the padded length and the rows of each batch of an epoch."""
        generator = np.random.default_rng([self._seed, epoch])
        count = len(self._bucket_of)
        if self._draws is None:
            order = generator.permutation(count)
        else:
            order = generator.choice(count, count, p=self._draws)
        plan, left = [], order[:0]
        for bucket, length in enumerate(self._buckets):
            rows = np.concatenate([left, order[self._bucket_of[order] == bucket]])
            over = len(rows) % self._batch_size
            if bucket == len(self._buckets) - 1:
                over = 0
            rows, left = np.split(rows, [len(rows) - over])
            plan += [
                (length, rows[first : first + self._batch_size])
                for first in range(0, len(rows), self._batch_size)
            ]
        return [plan[i] for i in generator.permutation(len(plan))]


def eval_batches(
    encoded: Encoded,
    batch_size: int,
    *,
    pad_token_id: int,
    max_shapes: int = 4,
    lengths: Sequence[int] | None = None,
    places: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield every entry exactly once, short ones first, in batches of few shapes.

    Args:
      encoded: The entries; none yields nothing.
      batch_size: Rows of every batch; the last one is filled up.
      pad_token_id: Fills input_ids behind the end of a row.
      max_shapes: The most lengths.
      lengths: To pad to, ascending, the last long enough for all; None: those that
        waste least.
      places: As of `TrainBatches`.

    Yields:
      The entry of each row of the whole batch [batch_size], -1 where it only fills;
      and the batch.
    """
    places = np.arange(batch_size) if places is None else places
    sizes = encoded.lengths
    order = np.argsort(sizes, kind="stable")
    groups = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if not groups:
        return
    longest = [int(sizes[rows[-1]]) for rows in groups]
    buckets = lengths or bucket_lengths(longest, max_shapes)
    for rows, need in zip(groups, longest, strict=True):
        length = buckets[int(np.searchsorted(buckets, need))]
        index = np.full(batch_size, -1, np.int64)
        index[: len(rows)] = rows
        yield index, _assemble(encoded, rows, places, length, pad_token_id)


def _assemble(
    encoded: Encoded, rows: np.ndarray, places: np.ndarray, length: int, pad: int
) -> Batch:
    """Pad rows to one length; a place that no row of the batch has is filled up."""
    # Fillers repeat a real row: with nothing to attend to, softmax would make NaN,
    # and NaN times weight 0 is NaN.
    real = (places >= 0) & (places < len(rows))
    filled = rows[np.where(real, places, 0)]
    # Entries of one row lie one after another.
    group = encoded.group
    entries = (filled[:, None] * group + np.arange(group)).reshape(-1)
    shape = (len(entries), length)
    batch = {
        "input_ids": np.full(shape, pad, np.int32),
        "token_type_ids": np.zeros(shape, np.int32),
        "attention_mask": np.zeros(shape, np.bool_),
    }
    for i, entry in enumerate(map(int, entries)):
        ids = encoded.input_ids[entry]
        end = len(ids)
        batch["input_ids"][i, :end] = ids
        batch["token_type_ids"][i, :end] = encoded.token_type_ids[entry]
        batch["attention_mask"][i, :end] = True
    if group > 1:
        batch = {name: x.reshape(-1, group, length) for name, x in batch.items()}
    weights = real.astype(np.float32)
    if encoded.weights is not None:
        weights *= encoded.weights[filled]
    labels = _labels(encoded.labels, filled, length)
    return batch | {"labels": labels, "weights": weights}


def _labels(labels: np.ndarray | Ragged, rows: np.ndarray, length: int) -> np.ndarray:
    """Return the labels of some rows; those of tokens are padded with -1."""
    if isinstance(labels, np.ndarray):
        return labels[rows]
    found = np.full((len(rows), length), -1, np.int32)
    for i, row in enumerate(rows):
        tags = labels[int(row)]
        found[i, : len(tags)] = tags
    return found
