"""The card of a fine-tuned model: `README.md` beside its weights."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalr.data.labels import KINDS
from metalr.errors import MetalrError, without_secrets
from metalr.models.huggingface import SORTS
from metalr.runtime import files
from metalr.runtime.origin import Origin

FILE, PICTURE = "README.md", "curves.png"

_PIPELINES = {  # of the hub, by kind of task
    "classification": "text-classification",
    "regression": "text-classification",
    "multilabel": "text-classification",
    "qa": "question-answering",
    "tokens": "token-classification",
    "choice": "multiple-choice",
    "mlm": "fill-mask",
}
_POINTS = 10  # of the table of rates
# What the command needs to be given again; the rest is in result.json.
_SETTINGS = (
    "scheduler",
    "learning_rate",
    "batch_size",
    "epochs",
    "max_steps",
    "max_length",
    "weight_decay",
    "warmup_steps",
    "seed",
    "dtype",
)


def write(result: Mapping[str, Any], folder: Path, picture: Path | None = None) -> None:
    """Write the card, and copy the picture of the curves beside it.

    Args:
      result: A `metalr.finetune.result.Result`.
      folder: Of the model.
      picture: The curves of the run, or None.

    Raises:
      MetalrError: A file cannot be written.
    """
    text = card(result, picture=picture is not None)
    try:
        if picture is not None:
            files.replace(folder / PICTURE, lambda to: shutil.copyfile(picture, to))
        files.replace(
            folder / FILE, lambda draft: draft.write_text(text, encoding="utf-8")
        )
    except OSError as fault:
        raise MetalrError(f"cannot write {folder / FILE}: {fault}") from fault


def card(result: Mapping[str, Any], *, picture: bool = False) -> str:
    """Return the card of a run's best model in Markdown, with the hub's metadata.

    No path of this machine is in it, but the name of a file or a folder.

    Args:
      result: A `metalr.finetune.result.Result`.
      picture: Whether `curves.png` lies beside it.
    """
    kind = result.get("reading", {}).get("kind", "")
    model, data = _origin(result["weights"]), _origin(result["data"])
    parts = [
        _metadata(result, kind),
        f"# {_plain(result['task'])}: a fine-tuned {_plain(model)}",
        f"{_plain(model)}, fine-tuned on {_plain(result['task'])} with metalr, the "
        f"learning rate set by `{result['scheduler']}`. These are the weights of step "
        f"{result['best_step']} of {result['steps']}, the best by {result['metric']}.",
        *_use(kind, result.get("reading", {}).get("columns", ())),
        "## Scores",
        _scores(result),
        "## Data",
        _data(result, data),
        "## Training",
        _table(
            ("setting", "value"),
            [
                (name, str(result["settings"][name]))
                for name in _SETTINGS
                if result["settings"].get(name) is not None
            ],
        ),
        "## Learning rate",
        *([f"![Loss, scores and learning rate]({PICTURE})"] if picture else []),
        _rates(result["history"]),
        "## Versions",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    ]
    if result["notes"]:
        parts += [
            "## Notes",
            "\n".join(f"- {_plain(note)}" for note in result["notes"]),
        ]
    return without_secrets("\n\n".join(parts) + "\n")


def _metadata(result: Mapping[str, Any], kind: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    def on_hub(origin: Mapping[str, str]) -> str | None:
        # "nyu-mll/glue sst2": the set, and a configuration of it.
        kind, where, *_ = Origin.of(origin)
        return where.split(" ")[0] if kind == "hub" else None

    pipeline, name = _PIPELINES.get(kind), _plain(result["task"])
    evaluations = [
        EvalResult(
            task_type=pipeline or "other",
            dataset_type=on_hub(result["data"]) or "other",
            dataset_name=name,
            metric_type=metric,
            metric_value=round(float(value), 6),
        )
        for metric, value in result["metrics"].items()
        if value is not None and not metric.endswith("loss")
    ]
    found = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline,
        base_model=on_hub(result["weights"]),
        datasets=on_hub(result["data"]),
        tags=["metalr", "jax"],
        # Results are those of a model with a name.
        model_name=f"{name}-{_plain(_origin(result['weights']))}",
        eval_results=evaluations or None,
    )
    return f"---\n{found.to_yaml()}\n---"


def _origin(origin: Mapping[str, str]) -> str:
    """Return where something comes from, without the folders of this machine."""
    kind, where, *_ = Origin.of(origin)
    return where if kind in ("hub", "toy", "package") else Path(where).name or where


def _use(kind: str, columns: Sequence[str]) -> list[str]:
    """Return how the model is called, on a row with the columns that it reads."""
    if kind not in KINDS or not columns:
        return []
    texts = ("a text", "another text")[: len(columns) - 1]
    row: Any = texts if len(texts) == 2 else "a text"
    if kind == "tokens":
        row = {columns[0]: ["some", "words"]}
    elif kind == "choice":
        row = {columns[0]: "a text", columns[1]: ["one end", "another"]}
    # The name of a column may be markup.
    shown = "".join(f"\\u{ord(c):04x}" if c in "<>`" else c for c in ascii(row))
    sort = SORTS.get(kind, SORTS["classification"])
    return [
        "## Use",
        "```python\nimport metalr\n\n"
        f'model = metalr.load("FOLDER")  # of these files\nmodel({shown})\n```',
        f"transformers loads them by `AutoModelFor{sort}`.",
    ]


def _scores(result: Mapping[str, Any]) -> str:
    chance = result.get("chance", {})
    rows = [
        (name, _number(value), _number(last.get(name)), _number(chance.get(name)))
        for last in [result["last_metrics"]]
        for name, value in result["metrics"].items()
    ]
    return _table(("score", "of this model", "at the end", "by chance"), rows)


def _data(result: Mapping[str, Any], where: str) -> str:
    origin, reading = result["data"], result.get("reading", {})
    lines = [f"- source: {origin.get('kind', '')}, {_plain(where)}"]
    if columns := reading.get("columns"):
        lines.append(f"- columns: {', '.join(map(_plain, columns))}")
    if classes := reading.get("classes"):
        some = list(classes.items())[:20]
        counts = ", ".join(f"{_plain(name)} {count}" for name, count in some)
        more = f" and {len(classes) - len(some)} more" if len(classes) > 20 else ""
        lines.append(f"- rows of each class: {counts}{more}")
    for reason, count in reading.get("left_out", {}).items():
        lines.append(f"- left out: {count} {_plain(reason)}")
    if origin.get("note"):
        lines.append(f"- {_plain(origin['note'])}")
    return "\n".join(lines)


def _rates(history: list[Mapping[str, Any]]) -> str:
    """Return the rate at some ten steps."""
    logged = [row for row in history if row.get("learning_rate") is not None]
    if not logged:
        return "It was not logged."
    places = {round(i * (len(logged) - 1) / (_POINTS - 1)) for i in range(_POINTS)}
    rows = [
        (
            str(logged[i]["step"]),
            _number(logged[i]["learning_rate"]),
            _number(logged[i].get("lr_multiplier")),
            _number(logged[i].get("loss")),
        )
        for i in sorted(places)
    ]
    return _table(("step", "learning rate", "multiplier", "loss"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _number(value: Any) -> str:
    return "" if value is None else f"{float(value):.4g}"


def _plain(text: Any) -> str:
    """Return text that is no Markdown, HTML or second line, whatever a file named."""
    shown = " ".join(str(text).split())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
    for sign in "\\|<>[]`*":
        shown = shown.replace(sign, f"\\{sign}")
    return shown
