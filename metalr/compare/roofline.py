"""Roofline estimates: the FLOPs, bytes and least seconds of a training step.

    python -m metalr.compare.roofline

A layer of width D, inner width F, with H heads, at length L, needs per token

    8 D^2 (four projections) + 4 D F (two of the MLP) + 4 L D (scores, weighted sum)

FLOPs forward, and twice that backward. Bytes are the traffic of an ideal program that
reads and writes each array once: weights three times (forward, and for both gradients),
gradients and AdamW's moments once each way, activations once each way. The least time
of a step is the larger of FLOPs / peak and bytes / bandwidth. Elementwise work, kernel
launches and communication are ignored; the share of the roofline that a run reaches has
to be measured.
"""

import math
from typing import NamedTuple

from metalr.coordinates import STRIDE
from metalr.models.encoder import EncoderConfig


class Device(NamedTuple):
    """Peak rates of a device, from its data sheet."""

    name: str
    flops: float  # a second, dense bfloat16
    bandwidth: float  # bytes a second


class StepCost(NamedTuple):
    """What one training step needs."""

    parameters: int
    flops: float
    weight_bytes: float
    activation_bytes: float

    @property
    def bytes(self) -> float:
        """All memory traffic."""
        return self.weight_bytes + self.activation_bytes


class Collection(NamedTuple):
    """How many runs a collection of traces has, and how long they are."""

    tasks: int
    models: int
    seeds: int
    schedules: int  # runs of a sweep
    steps: int = 120  # of a run, about the median of the horizons collected
    evaluations: int = 10
    validation_rows: int = 200

    @property
    def runs(self) -> int:
        """All runs of all sweeps."""
        return self.sweeps * self.schedules

    @property
    def sweeps(self) -> int:
        """Sweeps of runs; each is loaded and compiled once, by one worker."""
        return self.tasks * self.models * self.seeds


H100 = Device("H100 SXM", 989e12, 3.35e12)
V5E = Device("TPU v5e", 197e12, 0.819e12)
DEVICES = (H100, V5E)
# Assumptions of the tables below, not measurements.
EFFICIENCY = 0.4  # share of the roofline that a step reaches
START_SECONDS = 60.0  # to load and compile a sweep


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
    """Return how many parameters a classifier has."""
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
    """Return the matmul FLOPs of one forward pass, pooler included."""
    d, f = config.hidden_size, config.intermediate_size
    token = config.num_hidden_layers * (8 * d * d + 4 * d * f + 4 * length * d)
    return batch * (length * token + 2.0 * d * d)


def step(
    config: EncoderConfig,
    batch: int,
    length: int,
    *,
    bytes_per_number: int = 2,
    remat: bool = False,
) -> StepCost:
    """Return the cost of a training step under AdamW.

    Args:
      config: The encoder.
      batch: Rows.
      length: Tokens of a row.
      bytes_per_number: Of the computation: 2 for bfloat16.
      remat: Compute layers twice and keep only their inputs.
    """
    count, d = parameters(config), config.hidden_size
    # Weights are read three times for the products; in float32 the gradient is written
    # and read, and weight and both moments are read and written.
    weight_bytes = count * (3 * bytes_per_number + 2 * 4 + 6 * 4)
    # Inputs of each product and norm: x, q, k, v, their mixture, two residuals; both
    # sides of GELU; attention scores and weights by head.
    token = 7 * d + 2 * config.intermediate_size
    token += 2 * config.num_attention_heads * length
    kept = d if remat else token
    layers = config.num_hidden_layers
    numbers = batch * length * layers * kept
    activation_bytes = 2.0 * bytes_per_number * numbers
    times = 4 if remat else 3
    flops = times * forward_flops(config, batch, length)
    return StepCost(count, flops, weight_bytes, activation_bytes)


def least_seconds(cost: StepCost, device: Device) -> float:
    """Return the least seconds that a step can take."""
    return max(cost.flops / device.flops, cost.bytes / device.bandwidth)


def added_by_metalr(cost: StepCost) -> tuple[float, float]:
    """Return the FLOPs and bytes that metalr adds to a step, at most.

    The norm of the gradient reads the gradient once more. Gradient clipping does so
    too, and XLA may fuse both reads. For each sampled coordinate, gradient and
    parameter are read, four floats are read and written, and some twenty operations
    are done.
    """
    sample = cost.parameters / STRIDE
    return 2.0 * cost.parameters + 20 * sample, 4 * (cost.parameters + 10 * sample)


def collection_hours(
    of: Collection, config: EncoderConfig, batch: int, length: int, devices: int
) -> float:
    """Return the hours until the last of `devices` H100 is done.

    A sweep runs on one device, so more devices than sweeps gain nothing.
    """
    one_step = least_seconds(step(config, batch, length), H100) / EFFICIENCY
    validation_flops = forward_flops(config, of.validation_rows, length)
    evaluation = validation_flops / H100.flops / EFFICIENCY
    run = of.steps * one_step + (of.evaluations + 1) * evaluation
    sweep = START_SECONDS + of.schedules * run
    return math.ceil(of.sweeps / devices) * sweep / 3600


def tables(batch: int = 32, length: int = 128) -> str:
    """Return the estimates as Markdown tables."""
    lines = [
        f"Batch {batch} x {length}, bfloat16, parameters and AdamW float32",
        "",
        "| model | parameters | TFLOPs a step | GB a step "
        + "".join(f"| least time, {d.name} " for d in DEVICES)
        + "| metalr adds FLOPs, bytes |",
        "|---|--:|--:|--:|" + "--:|" * (len(DEVICES) + 1),
    ]
    for name, config in MODELS.items():
        cost = step(config, batch, length)
        flops, traffic = added_by_metalr(cost)
        times = "".join(f"| {1e3 * least_seconds(cost, d):.2f} ms " for d in DEVICES)
        lines.append(
            f"| {name} | {cost.parameters / 1e6:.1f} M | {cost.flops / 1e12:.3f} "
            f"| {cost.bytes / 1e9:.2f} {times}"
            f"| {flops / cost.flops:.3%}, {traffic / cost.bytes:.1%} |"
        )
    lines += [
        "",
        f"1,000 runs of {Collection(1, 1, 1, 1).steps} steps in sweeps of 9, assumed: "
        f"{EFFICIENCY:.0%} of the roofline, {START_SECONDS:.0f} s to start a sweep",
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
