"""What a task is: its columns, labels and scores."""

import dataclasses
from collections.abc import Sequence

# The scores of a user's own task by kind, the one that picks the best step first; those
# of tags and of questions depend on their labels and answers.
SCORES: dict[str, tuple[str, ...]] = {
    # Matthews beside accuracy, because nobody says which of the user's labels is the
    # positive one that F1 would need.
    "classification": ("accuracy", "matthews"),
    "regression": ("pearson", "spearman"),
    "multilabel": ("micro_f1", "macro_f1", "accuracy"),
    "choice": ("accuracy",),
}


def of_own_rows(scores: Sequence[str]) -> tuple[str, ...]:
    """Return the scores of classes in the user's own rows, rare ones among them.

    A task of the table has the scores that its set is reported by; of other rows
    nobody knows how frequent the classes are.
    """
    return tuple(dict.fromkeys((*scores, "macro_f1", "matthews")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a task is: its columns, its labels, its scores and its home on the hub."""

    name: str
    kind: str = "classification"  # or another one of `labels.KINDS`
    text: str  # column
    pair: str | None = None  # column of the second text, or of those to choose from
    label: str = "label"  # column
    labels: tuple[str, ...] = ()  # names by id; () for regression, qa and choice
    metric: str = "accuracy"  # the score that picks the best step
    metrics: tuple[str, ...] = ("accuracy",)
    hub: tuple[str, str | None]  # data set id, configuration; ("", None): a file's
    validation: tuple[str, ...] = ("validation",)  # splits, the main one first
    # Tokens, unless the user says otherwise. Lengths are chosen so that under 1 % of
    # the real rows are cut; not so for IMDB (median 228; 256 costs twice the time)
    # and SQuAD, whose contexts are split into overlapping windows anyway.
    max_length: int = 128
    made_of: tuple[str, ...] = ()  # tasks whose texts its rows are put together from
    null: bool = False  # a question may have no answer, as in SQuAD 2.0
    separator: str | None = None  # between several labels in one cell
    told_by: str | None = None  # a choice's label: number, letter or text; None: unread

    @property
    def lists(self) -> tuple[str, ...]:
        """The columns whose cells are lists of texts."""
        of = {"tokens": self.text, "choice": self.pair}.get(self.kind)
        return () if of is None else (of,)
