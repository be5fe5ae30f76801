"""The tasks, and what the rows of one are once they are loaded."""

from typing import NamedTuple

from metalr.data import derived, structured
from metalr.data.columns import Rows
from metalr.data.reading import Reading
from metalr.data.schema import SCORES, Task
from metalr.runtime.origin import Origin


class TaskData(NamedTuple):
    """The rows of one run: `metalr.data.loading.load`'s answer."""

    task: Task
    train: Rows
    validation: dict[str, Rows]  # by split, the main one first
    origin: Origin
    reading: Reading  # what was read, left out and assumed


# docs/protocol.md tests on these, and says what was chosen after a look at them; no
# predictor is fitted to them.
FRESH = ("mr", "sst5", "sick", "emotion", "financial_phrasebank")

_EMOTIONS = tuple(
    "admiration amusement anger annoyance approval caring confusion curiosity desire "
    "disappointment disapproval disgust embarrassment excitement fear gratitude grief "
    "joy love nervousness optimism pride realization relief remorse sadness surprise "
    "neutral".split()
)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="sst2",
            text="sentence",
            labels=("negative", "positive"),
            hub=("nyu-mll/glue", "sst2"),
            max_length=64,
        ),
        Task(
            name="mnli",
            text="premise",
            pair="hypothesis",
            labels=("entailment", "neutral", "contradiction"),
            hub=("nyu-mll/glue", "mnli"),
            validation=("validation_matched", "validation_mismatched"),
        ),
        # GLUE scores QQP and MRPC by accuracy and F1 both. QQP is quoted by its
        # accuracy; two thirds of MRPC are positive, where F1 is the one quoted.
        Task(
            name="qqp",
            text="question1",
            pair="question2",
            labels=("not_duplicate", "duplicate"),
            metrics=("accuracy", "f1"),
            hub=("nyu-mll/glue", "qqp"),
        ),
        Task(
            name="qnli",
            text="question",
            pair="sentence",
            labels=("entailment", "not_entailment"),
            hub=("nyu-mll/glue", "qnli"),
        ),
        Task(
            name="cola",
            text="sentence",
            labels=("unacceptable", "acceptable"),
            metric="matthews",
            metrics=("matthews", "accuracy"),
            hub=("nyu-mll/glue", "cola"),
            max_length=48,
        ),
        Task(
            name="rte",
            text="sentence1",
            pair="sentence2",
            labels=("entailment", "not_entailment"),
            hub=("nyu-mll/glue", "rte"),
            max_length=256,  # one row in eight is longer than 128
        ),
        Task(
            name="mrpc",
            text="sentence1",
            pair="sentence2",
            labels=("not_equivalent", "equivalent"),
            metric="f1",
            metrics=("accuracy", "f1"),
            hub=("nyu-mll/glue", "mrpc"),
        ),
        Task(
            name="stsb",
            kind="regression",
            text="sentence1",
            pair="sentence2",
            metric="pearson",
            metrics=SCORES["regression"],
            hub=("nyu-mll/glue", "stsb"),
        ),
        Task(
            name="imdb",
            text="text",
            labels=("neg", "pos"),
            hub=("stanfordnlp/imdb", None),
        ),
        Task(
            name="ag_news",
            text="text",
            labels=("World", "Sports", "Business", "Sci/Tech"),
            hub=("fancyzhx/ag_news", None),
        ),
        Task(
            name="squad",
            kind="qa",
            text="question",
            pair="context",
            label="answers",
            metric="f1",
            metrics=("exact_match", "f1"),
            hub=("rajpurkar/squad", None),
            max_length=256,
        ),
        Task(
            name="squad_v2",
            kind="qa",
            text="question",
            pair="context",
            label="answers",
            null=True,
            metric="f1",
            metrics=(
                *("exact_match", "f1", "has_answer_exact_match", "has_answer_f1"),
                *("no_answer_f1", "best_exact_match", "best_f1"),
            ),
            hub=("rajpurkar/squad_v2", None),
            max_length=256,
        ),
        Task(
            name="conll2003",
            kind="tokens",
            text="tokens",
            label="ner_tags",
            labels=(
                *("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"),
                *("B-MISC", "I-MISC"),
            ),
            metric="entity_f1",
            metrics=structured.tag_scores(("O", "B-PER")),
            hub=("tomaarsen/conll2003", None),
        ),
        Task(
            name="go_emotions",
            kind="multilabel",
            text="text",
            label="labels",
            labels=_EMOTIONS,
            metric="micro_f1",
            metrics=SCORES["multilabel"],
            hub=("google-research-datasets/go_emotions", "simplified"),
            max_length=64,
        ),
        Task(
            name="swag",
            kind="choice",
            text="sent1",
            pair="choices",
            hub=("allenai/swag", "regular"),
            max_length=96,
        ),
        Task(
            name="mr",
            text="text",
            labels=("negative", "positive"),
            hub=("cornell-movie-review-data/rotten_tomatoes", None),
            max_length=64,
        ),
        Task(
            name="sst5",
            text="text",
            labels=(
                "very negative",
                "negative",
                "neutral",
                "positive",
                "very positive",
            ),
            hub=("SetFit/sst5", None),
            max_length=64,
        ),
        Task(
            name="sick",
            text="premise",
            pair="hypothesis",
            labels=("entailment", "neutral", "contradiction"),
            hub=("", None),
            max_length=64,
        ),
        Task(
            name="emotion",
            text="text",
            labels=("sadness", "joy", "love", "anger", "fear", "surprise"),
            hub=("dair-ai/emotion", "split"),
            max_length=64,
        ),
        Task(
            name="financial_phrasebank",
            text="sentence",
            labels=("negative", "neutral", "positive"),
            hub=("", None),
            max_length=96,
        ),
        *derived.TASKS,
    )
}
