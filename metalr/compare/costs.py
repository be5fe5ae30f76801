"""What a training step and a collection cost on paper: FLOPs, bytes, and the floor.

    python -m metalr.compare.costs

A layer of width D, inner width F, with H heads, at length L, multiplies per token

    8 D^2 (four projections) + 4 D F (two of the perceptron) + 4 L D (scores, mixing)

FLOPs forward, and twice that backward. Bytes are the traffic of an ideal program that
reads and writes each array once: weights three times (forward, and for both gradients),
gradients and AdamW's moments once each way, activations once each way. The floor of a
step is the longer of FLOPs / peak and bytes / bandwidth. It ignores elementwise work,
launches and messages; what a run reaches of it is measured, not computed.
"""

import math
from typing import NamedTuple

from metalr.features import STRIDE
from metalr.models.encoder import EncoderConfig


class Device(NamedTuple):
    """Peaks from the data sheet."""

    name: str
    flops: float  # a second, dense bfloat16
    bandwidth: float  # bytes a second


class Step(NamedTuple):
    """What one training step needs."""

    parameters: int
    flops: float
    weight_bytes: float
    activation_bytes: float

    @property
    def bytes(self) -> float:
        """All traffic."""
        return self.weight_bytes + self.activation_bytes


class Collection(NamedTuple):
    """How many runs there are, and what each is."""

    tasks: int
    models: int
    seeds: int
    schedules: int  # runs of a bank: peaks and walks
    steps: int = 120  # of a run, about the median of `banks.Sources.horizons`
    evaluations: int = 10
    validation_rows: int = 200

    @property
    def runs(self) -> int:
        """The product: one more schedule is a run more on every bank."""
        return self.banks * self.schedules

    @property
    def banks(self) -> int:
        """Banks of runs: each is loaded and compiled once, by one worker."""
        return self.tasks * self.models * self.seeds


H100 = Device("H100 SXM", 989e12, 3.35e12)
V5E = Device("TPU v5e", 197e12, 0.819e12)
DEVICES = (H100, V5E)
# Assumptions of the tables below, not measurements.
REACHED = 0.4  # share of the floor that a step reaches
STARTING = 60.0  # seconds to load and compile a bank


def _bert(layers: int, width: int, heads: int) -> EncoderConfig:
    return EncoderConfig(
        "bert", 30522, width, layers, heads, 4 * width, 512, 2, 1e-12, 0.1, 0.1, 0
    )


MODELS = {
    "MiniLM-6": _bert(6, 384, 12),
    "BERT-base": _bert(12, 768, 12),
    "BERT-large": _bert(24, 1024, 16),
}


def parameters(config: EncoderConfig, labels: int = 2) -> int:
    """Returns how many parameters a classifier has."""
    d, f = config.hidden_size, config.intermediate_size
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 4 * d
    return (
        rows * d
        + 2 * d
        + config.num_hidden_layers * layer
        + d * d
        + (d + 1) * labels
        + d
    )


def forward_flops(config: EncoderConfig, batch: int, length: int) -> float:
    """Returns the FLOPs of the products of one forward pass, pooler included."""
    d, f = config.hidden_size, config.intermediate_size
    token = config.num_hidden_layers * (8 * d * d + 4 * d * f + 4 * length * d)
    return batch * (length * token + 2.0 * d * d)


def step(
    config: EncoderConfig,
    batch: int,
    length: int,
    *,
    width: int = 2,
    remat: bool = False,
) -> Step:
    """Returns the cost of a training step under AdamW.

    Args:
      config: The encoder.
      batch: Rows.
      length: Tokens of a row.
      width: Bytes of a number of the computation: 2 for bfloat16.
      remat: Layers are computed twice, and their insides are not kept.
    """
    count, d = parameters(config), config.hidden_size
    # Three reads for the products; gradient written and read, and weight and both
    # moments read and written, in float32.
    weight_bytes = count * (3 * width + 2 * 4 + 6 * 4)
    # Inputs of each product and norm: x, q, k, v, mixed, two residuals; up and gelu;
    # scores and weights by head.
    token = 7 * d + 2 * config.intermediate_size
    token += 2 * config.num_attention_heads * length
    kept = d if remat else token
    layers = config.num_hidden_layers
    activation_bytes = 2.0 * width * batch * length * layers * kept
    times = 4 if remat else 3
    flops = times * forward_flops(config, batch, length)
    return Step(count, flops, weight_bytes, activation_bytes)


def floor(cost: Step, device: Device) -> float:
    """Returns the least seconds that a step can take."""
    return max(cost.flops / device.flops, cost.bytes / device.bandwidth)


def added(cost: Step) -> tuple[float, float]:
    """Returns the FLOPs and bytes that metalr adds to a step, at most.

    The norm of the gradient reads it once more, which clipping does as well; XLA may
    make one pass of the two. Of each coordinate of the sample, gradient and parameter
    are read and four floats read and written, with some twenty operations.
    """
    sample = cost.parameters / STRIDE
    return 2.0 * cost.parameters + 20 * sample, 4 * (cost.parameters + 10 * sample)


def collection_hours(
    of: Collection, config: EncoderConfig, batch: int, length: int, devices: int
) -> float:
    """Returns the hours until the last of `devices` H100 is done.

    A bank runs on one device, so more devices than banks gain nothing.
    """
    one_step = floor(step(config, batch, length), H100) / REACHED
    share = forward_flops(config, of.validation_rows, length) / H100.flops / REACHED
    run = of.steps * one_step + (of.evaluations + 1) * share
    bank = STARTING + of.schedules * run
    return math.ceil(of.banks / devices) * bank / 3600


def tables(batch: int = 32, length: int = 128) -> str:
    """Returns the paper costs as Markdown."""
    lines = [
        f"Batch {batch} x {length}, bfloat16, parameters and AdamW float32",
        "",
        "| model | parameters | TFLOPs a step | GB a step "
        + "".join(f"| floor, {d.name} " for d in DEVICES)
        + "| metalr adds FLOPs, bytes |",
        "|---|--:|--:|--:|" + "--:|" * (len(DEVICES) + 1),
    ]
    for name, config in MODELS.items():
        cost = step(config, batch, length)
        flops, traffic = added(cost)
        floors = "".join(f"| {1e3 * floor(cost, d):.2f} ms " for d in DEVICES)
        lines.append(
            f"| {name} | {cost.parameters / 1e6:.1f} M | {cost.flops / 1e12:.3f} "
            f"| {cost.bytes / 1e9:.2f} {floors}"
            f"| {flops / cost.flops:.3%}, {traffic / cost.bytes:.1%} |"
        )
    lines += [
        "",
        f"1,000 runs of {Collection(1, 1, 1, 1).steps} steps as banks of 9, assumed: "
        f"{REACHED:.0%} of the floor, {STARTING:.0f} s to start a bank",
        "",
        "| model | hours on 1 H100 | on 64 |",
        "|---|--:|--:|",
    ]
    thousand = Collection(tasks=7, models=1, seeds=16, schedules=9)
    for name, config in MODELS.items():
        hours = [collection_hours(thousand, config, batch, length, n) for n in (1, 64)]
        lines.append(f"| {name} | {hours[0]:.2f} | {hours[1]:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
