"""`load`: a fine-tuned model as a function from rows to predictions."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metalr.data import batches, encode, structured
from metalr.data.columns import Row, Rows
from metalr.data.rows import check_rows
from metalr.errors import MetalrError
from metalr.finetune import sharding
from metalr.finetune.usage import Usage
from metalr.models import heads, huggingface
from metalr.predict import evaluation, outputs, reading
from metalr.predict import folder as folders
from metalr.predict.evaluation import Evaluation
from metalr.runtime import progress

CHUNK = 2048  # rows that are tokenized, sorted by length and answered together
# Each pair of a batch's rows and length compiles once, so there are few: a batch of one
# text should not cost as much as one of 64, nor 30 tokens as much as 512.
_ROWS = (1, 8)
_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)


class Model:
    """Map rows to predictions; `load` makes it.

        model = metalr.load("runs/sst2-minilm-metalr-0")
        model("a fine film")["predicted_label"]
        model([{"sentence": "a fine film"}, {"sentence": "a dull one"}])

    A model that reads two texts takes pairs: `model([("premise", "claim"), ...])`.
    """

    def __init__(
        self,
        usage: Usage,
        pretrained: huggingface.Pretrained,
        *,
        batch_size: int = 64,
        layout: sharding.DeviceLayout = sharding.ONE,
    ):
        """Compile nothing yet.

        Args:
          usage: How rows and logits are read.
          pretrained: The model.
          batch_size: Most rows that the device works on at once.
          layout: Of the batches on devices.
        """
        if batch_size < 1:
            raise MetalrError(f"the batch size must be at least 1, got {batch_size}")
        self.usage = usage
        self._model, self._layout = pretrained, layout
        self._batch_sizes = [n for n in _ROWS if n < batch_size] + [batch_size]
        most = -(-usage.max_length // batches.MULTIPLE) * batches.MULTIPLE
        self._lengths = [n for n in _LENGTHS if n < most] + [most]
        self._params = layout.put_state(pretrained.params)

        def forward(params: Any, batch: dict[str, Any]) -> jax.Array:
            return heads.apply(pretrained.graphdef, params, batch)

        self._forward = layout.compile(forward)

    def __call__(self, rows: Any) -> Any:
        """Predict one row, or a list of rows.

        Args:
          rows: A text, a pair of texts as a tuple, a mapping of columns, or a list of
            any of them.

        Returns:
          The predictions, a dictionary a row: `predicted_label` and
          `predicted_probabilities` of a classifier, `predicted_score` of a regression,
          `predicted_answer` with its place in the context of a question,
          `predicted_tags` and `predicted_entities` of words, `predicted_labels` where a
          row may have several, and `predicted_choice`.

        Raises:
          MetalrError: A row lacks a column, or holds no text in it; or the rows are a
            table, or nothing that holds rows.
        """
        if isinstance(rows, str | tuple | Mapping):
            return next(self.stream([self._row(rows)]))
        reading.refuse_other_things(rows)
        return list(self.stream(self._row(row) for row in rows))

    def stream(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        """Yield the prediction of each row, in order, holding few of them at a time.

        Args:
          rows: Mappings of columns; others than the model's are not looked at.

        Raises:
          MetalrError: As of a call; the number of the row is counted from 1.
        """
        numbered, count = enumerate(rows, start=1), None
        while chunk := list(itertools.islice(numbered, CHUNK)):
            task = self.usage.task
            checked = [reading.check(row, task, f"row {n}") for n, row in chunk]
            if task.kind == "choice":
                offered = [row[task.pair or ""] for row in checked]
                count = len(offered[0]) if count is None else count
                name = lambda place, chunk=chunk: f"row {chunk[place][0]}"  # noqa: E731
                structured.check_counts(offered, name, count)
            yield from self._predict(checked)

    def evaluate(self, rows: Iterable[Mapping[str, Any]]) -> Evaluation:
        """Score the model on rows that have labels, as its fine-tune was scored.

            model.evaluate([{"sentence": "a fine film", "label": 1}]).scores["accuracy"]

        Args:
          rows: Mappings of columns, the label's among them, as in a training file; of
            `metalr.data.columns.Rows`, which are checked, as they are.

        Returns:
          The scores, what chance would score, and precision, recall and F1 by class.

        Raises:
          MetalrError: A row lacks a column, or its label is not one of the model's.
        """
        task = self.usage.task
        if not isinstance(rows, Rows):
            rows = check_rows(reading.mappings(rows, task), task, "`rows`")
        return evaluation.evaluate(self.usage, rows, self._in_parts(rows))

    def _in_parts(self, rows: Rows) -> Iterator[Any]:
        """Yield labelled rows with their logits and entries, few at a time."""
        with progress.loading("scoring", len(rows)) as log:
            for first in range(0, len(rows), CHUNK):
                part = rows[first : first + CHUNK]
                entries = self._encode(part, labelled=True)
                yield part, self._logits(entries), entries
                log(first + len(part))

    def _row(self, row: Any) -> Mapping[str, Any]:
        if isinstance(row, Mapping):
            return row
        task = self.usage.task
        names = [name for name in (task.text, task.pair) if name is not None]
        texts = row if isinstance(row, tuple) else (row,)
        if len(texts) != len(names):
            raise MetalrError(
                f"this model reads {' and '.join(map(repr, names))}, so a row without "
                f"names must be {len(names)} text(s), got {len(texts)}"
            )
        return dict(zip(names, texts, strict=True))

    def _predict(self, rows: Sequence[Row]) -> list[Row]:
        entries = self._encode(rows, labelled=False)
        return outputs.outputs(self.usage, self._logits(entries), entries, rows)

    def _encode(self, rows: Sequence[Row], *, labelled: bool) -> encode.Encoded:
        return encode.encode(
            rows,
            self.usage.task,
            self._model.tokenizer,
            self.usage.max_length,
            stride=self.usage.stride,
            labelled=labelled,
        )

    def _logits(self, entries: encode.Encoded) -> list[np.ndarray]:
        count = entries.size
        size = next((n for n in self._batch_sizes if n >= count), self._batch_sizes[-1])
        feed = batches.eval_batches(
            entries,
            size,
            pad_token_id=self._model.config.pad_token_id,
            lengths=self._lengths,
            places=self._layout.places(size),
        )
        logits: list[np.ndarray] = [np.empty(0)] * count

        def keep(index: np.ndarray, found: jax.Array) -> None:
            for place, values in zip(index, jax.device_get(found), strict=True):
                if place >= 0:
                    logits[place] = values

        waiting = None  # the device computes while the host makes the next batch
        for index, batch in feed:
            found = self._forward(self._params, self._layout.put(batch))
            if waiting:
                keep(*waiting)
            waiting = index, found
        if waiting:
            keep(*waiting)
        return logits


def load(
    folder: str | Path,
    *,
    batch_size: int = 64,
    dtype: str = "float32",
    parallel: str = "auto",
    columns: Mapping[str, str] | None = None,
) -> Model:
    """Load a fine-tuned model, ready to be called.

    Args:
      folder: Of a run, of its `model/`, of `metalr export`, or any model of
        transformers with a head for sequences or questions.
      batch_size: Most rows that the device works on at once.
      dtype: What the matrix products run in: float32 or bfloat16.
      parallel: auto, one, jit or pmap, as of finetune.py.
      columns: Other names for the columns, by `text`, `pair` and `label`.

    Raises:
      MetalrError: The folder holds no model that was fine-tuned for a task.
    """
    usage, model = folders.read(Path(folder), dtype)
    return Model(
        reading.renamed(usage, columns or {}),
        model,
        batch_size=batch_size,
        layout=sharding.create_layout(parallel),
    )
