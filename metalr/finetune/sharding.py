"""How a run lies on devices: rows over all of them, parameters everywhere or cut.

One program serves every number of devices. A batch has `data` pieces of rows, each
piece filled up with rows of weight 0 where the batch does not divide, and loss and
gradient are those of the whole batch:

    jit    `jax.jit` over a mesh (data, model); XLA adds what the devices must exchange.
           Parameters and optimizer state are whole on each device, or cut over `data`
           (`shard_params`, as ZeRO and FSDP do) and kernels over `model`
    pmap   the step runs as it is on each device and sums gradients itself: the older
           way, whose parameters are whole everywhere
    one    one device and no mesh: nothing here costs anything

Several hosts: each process has the rows of its own devices, all run the same steps.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metalr.errors import MetalrError

DATA, MODEL = "data", "model"

_CUT_FROM = 2**9  # elements of a matrix; biases and less are not worth the messages
# Kernels [in, out] of the encoder: the first of a pair is cut along what it makes, the
# second along what it sums, so that a pair needs one exchange.
_CUT_OUT, _CUT_IN = ("query", "key", "value", "up"), ("output", "down")

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class DeviceLayout:
    """Where batches and states lie. `ONE` is the layout of one device."""

    parallel: str = "one"  # as in `RunConfig`, "auto" decided
    mesh: Mesh | None = None  # None: one device
    shard_params: bool = False

    @property
    def pieces(self) -> int:
        """The number of pieces that a batch is cut into."""
        return 1 if self.mesh is None else self.mesh.shape[DATA]

    def places(self, batch_size: int, parts: int = 1) -> np.ndarray | None:
        """Return which row of a batch each row of this process is.

        Args:
          batch_size: Rows of the whole batch.
          parts: Into which a step accumulates it; each is spread over all devices.

        Returns:
          Places in the batch, -1 for a row that only fills; None for one device, where
          row i is row i.
        """
        if self.mesh is None:
            return None
        rows, pieces = batch_size // parts, self.pieces
        each = -(-rows // pieces)
        grid = np.full((parts, pieces * each), -1)
        grid[:, :rows] = np.arange(batch_size).reshape(parts, rows)
        by_piece = grid.reshape(parts, pieces, each).swapaxes(0, 1)
        here = [
            any(device.process_index == jax.process_index() for device in row)
            for row in self.mesh.devices.reshape(pieces, -1)
        ]
        return by_piece[here].reshape(-1)

    def put(self, batch: Mapping[str, Any]) -> Batch:
        """Return this process's rows as part of the whole batch on the devices."""
        if self.mesh is None:
            # On a CPU a copy would only cost.
            here = jax.default_backend() == "cpu"
            return dict(batch) if here else jax.device_put(dict(batch))
        over = NamedSharding(self.mesh, PartitionSpec(DATA))
        return {
            name: jax.make_array_from_process_local_data(over, np.asarray(value))
            for name, value in batch.items()
        }

    def put_state(self, tree: Any) -> Any:
        """Return parameters or states, which all processes have, on the devices."""
        if self.mesh is None:
            return tree
        if jax.process_count() == 1:
            return jax.device_put(tree, self.shardings(tree))

        def piecewise(x: Any, sharding: NamedSharding) -> jax.Array:
            whole = np.asarray(x)
            return jax.make_array_from_callback(
                whole.shape, sharding, whole.__getitem__
            )

        return jax.tree.map(piecewise, tree, self.shardings(tree))

    def init(self, init: Callable[[Any], Any], params: Any) -> Any:
        """Return `init(params)`, made where it is to lie."""

        def fresh(params: Any) -> Any:
            # Some transformations keep the parameters they start from; donated twice,
            # a buffer would be an error.
            return init(jax.tree.map(jnp.copy, params))

        if self.mesh is None:
            return jax.jit(fresh)(params)  # one small program in place of hundreds
        shardings = self.shardings(jax.eval_shape(init, params))
        return jax.jit(fresh, out_shardings=shardings)(params)

    def shardings(self, tree: Any) -> Any:
        """Return where each leaf of parameters or states lies."""
        mesh: Any = self.mesh
        shared = mesh.shape.get(MODEL, 1)
        pieces = self.pieces if self.shard_params else 1

        def place(path: Any, x: Any) -> NamedSharding:
            return NamedSharding(mesh, _spec(path, x.shape, pieces, shared))

        return jax.tree_util.tree_map_with_path(place, tree)

    # -------------------------------------------------------------- functions

    def split(self, x: jax.Array, parts: int) -> jax.Array:
        """Cut [rows, ...] into [parts, rows / parts, ...] as `places` laid them."""
        if x.ndim == 0:
            return jnp.broadcast_to(x, (parts,))
        pieces = self.pieces if self.parallel == "jit" else 1
        if pieces > 1:
            x = x.reshape(pieces, parts, -1, *x.shape[1:]).swapaxes(0, 1)
            return x.reshape(parts, -1, *x.shape[3:])
        return x.reshape(parts, -1, *x.shape[1:])

    def of_whole_batch(self, value_and_grad: Callable) -> Callable:
        """Make loss and gradient of a piece of a batch those of the whole.

        It is sum over pieces of (weight of the piece / weight of the batch) times what
        the piece gives. Under `jit` the program does not see pieces.
        """
        if self.parallel != "pmap":
            return value_and_grad

        def summed(params: Any, batch: Batch, key: jax.Array) -> Any:
            weight = jnp.sum(batch["weights"])
            share = weight / jax.lax.psum(weight, DATA)
            found = value_and_grad(params, batch, key)
            # A piece may hold filling rows alone, whose mean is 0/0.
            part = jax.tree.map(lambda x: jnp.where(share > 0, share * x, 0), found)
            return jax.lax.psum(part, DATA)

        return summed

    def compile_step(self, step: Callable, state: Any, parts: int = 1) -> Callable:
        """Compile `(state, batch) -> (state, logged)`, the state donated.

        Args:
          step: The step.
          state: One that lies where states are to lie.
          parts: Into which the step cuts a batch, with `split`.
        """
        if self.mesh is None:
            return jax.jit(step, donate_argnums=0)
        if self.parallel == "jit":
            whole = NamedSharding(self.mesh, PartitionSpec())
            out = (self.shardings(state), whole)
            return jax.jit(step, donate_argnums=0, out_shardings=out)
        pieces = self.pieces
        mapped = jax.pmap(
            step, axis_name=DATA, in_axes=(None, 0), out_axes=None, donate_argnums=0
        )

        def on_pieces(state: Any, batch: Batch) -> Any:
            cut = {k: x.reshape(pieces, -1, *x.shape[1:]) for k, x in batch.items()}
            # Dropout draws by the place of a row in the whole batch.
            first = np.arange(pieces) * (cut["weights"].shape[1] // parts)
            return mapped(state, cut | {"first_row": first})

        return on_pieces

    def compile(self, function: Callable) -> Callable:
        """Compile a function whose results every process is to have whole."""
        if self.mesh is None:
            return jax.jit(function)
        whole = NamedSharding(self.mesh, PartitionSpec())
        return jax.jit(function, out_shardings=whole)

    def whole(self, tree: Any) -> Any:
        """Return a tree with every leaf whole, on the host where there is a mesh."""
        if self.mesh is None:
            return tree
        return jax.device_get(self.compile(lambda tree: tree)(tree))


def _spec(path: Any, shape: tuple[int, ...], pieces: int, shared: int) -> PartitionSpec:
    """Return how a leaf is cut, from its name and shape: moments lie as parameters."""
    axes: list[str | None] = [None] * len(shape)
    if len(shape) < 2 or np.prod(shape) < _CUT_FROM:
        return PartitionSpec()
    owner, leaf = ("", "", *names_of(path))[-2:]
    if shared > 1 and leaf == "kernel" and owner in _CUT_OUT + _CUT_IN:
        axis = 1 if owner in _CUT_OUT else 0
        axes[axis] = MODEL if shape[axis] % shared == 0 else None
    free = [i for i, axis in enumerate(axes) if not axis and shape[i] % pieces == 0]
    if pieces > 1 and free:
        axes[max(free, key=lambda i: shape[i])] = DATA
    return PartitionSpec(*axes)


def names_of(path: Any) -> list[str]:
    """Return the names on the way to a leaf, as of `jax.tree.map_with_path`."""
    return jax.tree_util.keystr(path, simple=True, separator="/").split("/")


ONE = DeviceLayout()


def create_layout(
    parallel: str = "auto",
    *,
    shard_params: bool = False,
    model: int = 1,
    devices: Sequence[Any] | None = None,
) -> DeviceLayout:
    """Lay a run over devices.

    Args:
      parallel: auto, one, jit or pmap. auto: jit over all devices, but one device of a
        CPU, whose cores one device uses already.
      shard_params: Cut parameters and optimizer state over the rows' axis.
      model: Devices that share one copy of the kernels.
      devices: None: all that there are.

    Raises:
      MetalrError: The devices do not allow it.
    """
    devices = jax.devices() if devices is None else devices
    if parallel == "auto":
        spare = jax.default_backend() == "cpu" and jax.process_count() == 1
        parallel = "one" if spare or len(devices) == 1 else "jit"
    if parallel == "pmap" and (shard_params or model > 1 or jax.process_count() > 1):
        raise MetalrError(
            "--parallel pmap keeps whole parameters, on one host; take jit for "
            "--shard-params, --model-shards and several processes"
        )
    if parallel == "one":
        if shard_params or model > 1 or jax.process_count() > 1:
            raise MetalrError(
                "one device has nothing to share parameters or rows with; --parallel "
                f"jit takes all {len(devices)} (JAX_NUM_CPU_DEVICES sets a CPU's)"
            )
        return ONE
    if len(devices) % model:
        raise MetalrError(
            f"--model-shards must divide the number of devices, got {model} and "
            f"{len(devices)}"
        )
    grid = np.array(devices).reshape(-1, model)
    if parallel == "pmap":
        return DeviceLayout(parallel, Mesh(grid[:, 0], (DATA,)))
    return DeviceLayout(parallel, Mesh(grid, (DATA, MODEL)), shard_params)
