"""The settings of a small encoder to pre-train, apart from what imports jax."""

import dataclasses

from metalr.data.derived import SETS
from metalr.errors import MetalrError
from metalr.runtime.flags import check_ranges, flag

HEAD_WIDTH = 32  # of an attention head, as MiniLM's


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """What an encoder is made of; each field is a flag of `metalr pretrain`."""

    family: str = flag("bert", "encoder", "of encoders", choices=("bert", "roberta"))
    width: int = flag(
        128, "encoder", f"a multiple of {HEAD_WIDTH}", low=HEAD_WIDTH, high=8192
    )
    layers: int = flag(2, "encoder", "how many", low=1, high=256)
    vocabulary: int = flag(8000, "encoder", "most tokens", low=300, high=2**20)
    tasks: tuple[str, ...] = flag(tuple(SETS), "texts", "those of these tasks")
    data: str = flag(
        "auto", "texts", "hub, toy, a folder, or auto: the hub if it answers, else toy"
    )
    length: int = flag(64, "training", "tokens of a block", low=16, high=512)
    batch_size: int = flag(32, "training", "blocks a step", low=1)
    steps: int = flag(2000, "training", "of the run", low=1)
    learning_rate: float = flag(
        1e-3, "training", "peak of linear warm-up and decay", low=1e-12
    )
    seed: int = flag(0, "training", "of weights, order and hidden words", low=0)


def check(config: PretrainConfig) -> None:
    """Refuse what no encoder can be.

    Raises:
      MetalrError: Says the rule, what was given and the way out.
    """
    check_ranges(config)
    if config.width % HEAD_WIDTH:
        raise MetalrError(
            f"--width must be a multiple of {HEAD_WIDTH}, got {config.width}"
        )
