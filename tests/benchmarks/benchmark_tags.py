"""Tags of words on CoNLL-2003, against seqeval, PyTorch and each word's usual tag.

    python -m tests.benchmarks.benchmark_tags --data FOLDER [--model minilm:2]

FOLDER has `conll2003/{train,validation}.jsonl.gz`. Rows are written in CoNLL's columns,
fine-tuned on as anybody's file, and predicted again from the folder that the run left.
Printed are F1 of entities as the run says it, as seqeval says it of the predictions,
that of transformers' PyTorch model read from the same folder (the first piece of each
word, one row at a time), and that of the tag each word has most often in training.
"""

import argparse
import collections
import gzip
import json
import sys
import tempfile
import time
from pathlib import Path

Rows = list[tuple[list[str], list[str]]]  # words and their tags


def read(path: Path, most: int) -> Rows:
    """Return the first rows of a file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(most), strict=False)]
    return [(row["tokens"], row["ner_tags"]) for row in rows]


def write(path: Path, rows: Rows) -> None:
    """Write rows in columns, a word a line."""
    blocks = [
        "\n".join(f"{word}\t{tag}" for word, tag in zip(*row, strict=True))
        for row in rows
    ]
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def usual(train: Rows, rows: Rows) -> list[list[str]]:
    """Return for each word the tag that it has most often in training."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    for words, tags in train:
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    said = {word: found.most_common(1)[0][0] for word, found in counts.items()}
    return [[said.get(word, "O") for word in words] for words, _ in rows]


def by_torch(folder: Path, rows: Rows) -> list[list[str]]:
    """Return the tags that transformers' PyTorch model gives the rows."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for words, _ in rows:
        batch = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch).logits[0]
        ids = batch.word_ids()
        first = [ids.index(place) for place in range(len(words))]
        found.append([model.config.id2label[int(logits[i].argmax())] for i in first])
    return found


def main() -> None:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="minilm:2")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--validation-rows", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=3)
    arguments = parser.parse_args()
    from seqeval.metrics import f1_score

    import metalr

    folder = arguments.data / "conll2003"
    train = read(folder / "train.jsonl.gz", arguments.rows)
    rows = read(folder / "validation.jsonl.gz", arguments.validation_rows)
    gold = [tags for _, tags in rows]
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place, name) for name in ("train.conll", "validation.conll")]
        for path, of in zip(files, (train, rows), strict=True):
            write(path, of)
        begun = time.perf_counter()
        run = metalr.fine_tune(
            train_file=files[0],
            validation_file=files[1],
            model=arguments.model,
            epochs=arguments.epochs,
            output=Path(place, "run"),
        )
        taken = time.perf_counter() - begun
        tagged = run.load()([{"tokens": words} for words, _ in rows])
        ours = [row["predicted_tags"] for row in tagged]
        theirs = by_torch(Path(place, "run/model"), rows)
    agree = sum(a == b for a, b in zip(ours, theirs, strict=True))
    print(f"{len(train)} rows to train on, {len(rows)} to score, {taken:.0f} s in all")
    print(f"the run, {run.result['metric']:<24} {run.score:.4f}")
    print(f"predictions, seqeval             {f1_score(gold, ours):.4f}")
    print(f"PyTorch, seqeval                 {f1_score(gold, theirs):.4f}")
    print(f"rows with PyTorch's tags         {agree} of {len(rows)}")
    print(f"each word's usual tag, seqeval   {f1_score(gold, usual(train, rows)):.4f}")


if __name__ == "__main__":
    sys.exit(main())
