"""Where rows or weights come from."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """Where rows or weights come from.

    >>> str(Origin("hub", "nyu-mll/glue sst2"))
    'hub nyu-mll/glue sst2'
    """

    kind: str  # hub, folder, file, package or toy
    where: str
    note: str = ""  # what a reader has to know of it
    revision: str = ""  # commit on the hub

    def __str__(self) -> str:
        """Return kind and place in words."""
        return " ".join(filter(None, (self.kind, self.where)))

    def to_json(self) -> dict[str, str]:
        """Return the fields that are not empty, as results hold them."""
        return {name: value for name, value in self._asdict().items() if value}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Origin":
        """Return the origin in a result, whose fields may be missing or null."""
        return cls(*(found.get(name) or "" for name in cls._fields))
