"""What a task brings to training, and the state that follows from it."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from como_jax import errors, trees
from como_jax.data.read_options import ReadOptions
from como_jax.parallel import distributed, rules
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import memory, rng, state, step


class Batches(Protocol):
  """Batches that are read ahead until they are closed."""

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    """Itself."""
    ...

  def __next__(self) -> dict[str, np.ndarray]:
    """The next batch."""
    ...

  def close(self) -> None:
    """Ends what reads ahead."""
    ...


@dataclasses.dataclass(frozen=True)
class TrainJob:
  """What a task brings to the shared machinery.

  Attributes:
    model: record with `init`, `frozen` and `config`; hashable.
    loss: `(params, batch, key) -> {term: (sum, count)}`.
    weights: weight of each term; None for one that is only logged.
    batches: `start_step -> iterator` of numpy batches, closable.
    evaluate: `params -> {name: value}`, or None.
    evaluate_together: whether `evaluate` takes the parameters as they are sharded, and the
      processes share its work. Else each process evaluates alone, with whole parameters.
    examples_per_step: for the throughput.
    unit: of an example, in words ("pairs", "images").
    read_options: how the batches are read, for the log.
    batch: shapes of a whole batch, for the program to be compiled before there is one.
    data: (folder of shards, folder of labels or "") of each data set, in the config's order.
    constants: arrays the loss takes as a fourth argument (see `step.TrainStep`).
    initial_params: named parts of the parameters to replace after init, as {"encoder": tree}.
    init_from_data: `params -> named parts` that the task measures on its data where a run starts,
      and never again on resume: nested dicts as the parameters, with the leaves to replace alone.
      It must not call collectives.
    files: JSON files that stand beside the checkpoints and the weights, name -> text.
    useful_loss: `loss` of the model that repeats no operation to save memory, for the share of the
      devices' peak (`models.without_repetition`); None: `loss` repeats none.
  """

  model: Any
  loss: step.Loss
  weights: step.Weights
  batches: Callable[[int], Batches]
  evaluate: Callable[[Any], dict[str, float]] | None
  examples_per_step: int
  unit: str
  read_options: ReadOptions
  batch: Mapping[str, jax.ShapeDtypeStruct]
  data: Sequence[tuple[str, str]]
  initial_params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  evaluate_together: bool = False
  init_from_data: Callable[[Any], Mapping[str, Any]] | None = None
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)
  useful_loss: step.Loss | None = None


def state_shapes(
  job: TrainJob, tx, *, frozen: tuple[str, ...], ema: bool, mesh: jax.sharding.Mesh
) -> state.TrainState:
  """Shapes, types and shardings of the state."""
  shapes = jax.eval_shape(
    _creator(job.model, tx, frozen, ema), rng.key(0, "init"), dict(job.initial_params)
  )
  return jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
    shapes,
    rules.shardings(shapes, mesh),
  )


def initial_state(
  job: TrainJob, tx, *, frozen: tuple[str, ...], ema: bool, seed: int, mesh: jax.sharding.Mesh
) -> state.TrainState:
  """The state at step 0, made sharded under jit, with the job's given parts in place."""
  create, key = _creator(job.model, tx, frozen, ema), rng.key(seed, "init")
  start = jax.tree.map(np.asarray, dict(job.initial_params))
  shapes = jax.eval_shape(create, key, start)
  return jax.jit(create, out_shardings=rules.shardings(shapes, mesh))(key, start)


def begun(job: TrainJob, current: state.TrainState) -> state.TrainState:
  """The state of a new run with what the job measures on its data in place.

  The averaged weights have it too.

  Raises:
    errors.UserError: the data do not allow it.
  """
  init_from_data = job.init_from_data
  if init_from_data is None:
    return current
  params = replicated(current.params)
  parts = distributed.broadcast_arrays_from_primary(
    distributed.run_on_all_processes(lambda: init_from_data(params))
  )
  flat = trees.flatten(parts)

  def put(tree):
    if tree is None:
      return None
    leaves = trees.flatten(tree)
    for name in flat.keys() & leaves.keys():
      old = leaves[name]  # jit makes an array of its own, as the state is donated
      leaves[name] = jax.jit(lambda x, old=old: x.astype(old.dtype), out_shardings=old.sharding)(
        flat[name]
      )
    return trees.unflatten(leaves)

  return dataclasses.replace(current, params=put(current.params), ema=put(current.ema))


def check_memory(
  train_step: Any, shapes: state.TrainState, job: TrainJob, section, mesh: jax.sharding.Mesh
) -> None:
  """Compiles the train step, and refuses it where it cannot fit into memory.

  The first step finds it compiled.

  Raises:
    errors.UserError: with what it needs and what there is.
  """
  settings = dict(batch_size=section.batch_size, accumulate=section.accumulate)
  memory.check(
    memory.size(shapes, mesh_size=mesh.size),
    mesh.local_devices,
    **settings,
    what="the state of the run (weights and optimizer) alone",
  )
  try:
    need = memory.needed(train_step.compile(shapes, batch_shapes(job, mesh)))
  except jax.errors.JaxRuntimeError as error:  # compilers of accelerators refuse what cannot fit
    if not memory.is_out_of_memory(error):
      raise
    raise errors.UserError(
      f"a train step does not fit into memory ({str(error).splitlines()[0][:200]}): {memory.ADVICE}"
    ) from error
  if need is not None:
    memory.check(need, mesh.local_devices, **settings)


def batch_shapes(job: TrainJob, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes, types and shardings of a whole batch."""
  rows = mesh_lib.batch_sharding(mesh)
  return {
    name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=rows)
    for name, spec in job.batch.items()
  }


def replicated(params):
  """Parameters to evaluate, whole on a device of each process.

  All processes then compute the same scores, and process 0 logs them; waiting for one of them in a
  collective would take as long.
  """
  return params if jax.process_count() == 1 else jax.device_put(distributed.gather(params))


@functools.lru_cache(maxsize=1)
def _creator(model: Any, tx, frozen: tuple[str, ...], ema: bool) -> Callable:
  """(key, given parts) -> the state; one function a run, so that JAX traces it once."""
  return lambda key, start: state.create({**model.init(key), **start}, tx, frozen=frozen, ema=ema)
