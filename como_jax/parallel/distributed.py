"""Runs with several processes: start, agreement between processes, and gathering of arrays.

The same command starts a run on every host. Environment variables describe the other processes:

  COMO_JAX_COORDINATOR=HOST:PORT, COMO_JAX_PROCESSES=N, COMO_JAX_PROCESS_INDEX=I
      set by hand or by launch/local_processes.py
  COMO_JAX_DISTRIBUTED=1, or the flag --distributed
      jax finds the processes itself: TPU pods, Slurm, GKE, MPI
  COMO_JAX_CPU_DEVICES=K
      CPU devices of each process (also of a single process)
  COMO_JAX_JOIN_SECONDS=300
      time limit of the start, in which all processes must join
  COMO_JAX_HEARTBEAT_SECONDS=100
      time without a heartbeat after which a process counts as dead

Without these variables there is one process, and the functions here have no cost. Only process 0
writes files and prints; the others print errors. Code that may fail before the first step runs
under `run_on_all_processes`. All processes then end in the same way, and none waits for a process
that has ended.
"""

import contextlib
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from como_jax import errors
from como_jax.parallel import rendezvous

COORDINATOR, PROCESSES, INDEX = (
  "COMO_JAX_COORDINATOR",
  "COMO_JAX_PROCESSES",
  "COMO_JAX_PROCESS_INDEX",
)
DETECT, CPU_DEVICES = "COMO_JAX_DISTRIBUTED", "COMO_JAX_CPU_DEVICES"
JOIN_SECONDS, HEARTBEAT_SECONDS = "COMO_JAX_JOIN_SECONDS", "COMO_JAX_HEARTBEAT_SECONDS"
_MESSAGE = 2048  # bytes of an error that is sent to the other processes
_PATIENCE = 30 * 24 * 3600  # maximum seconds from the end of the first process to that of the last


def initialize(*, detect: bool = False, environment: Mapping[str, str] | None = None) -> bool:
  """Joins the other processes, if there are any; must run before jax creates its devices.

  Args:
    detect: whether jax finds the cluster (TPU pod, Slurm, ...), as with COMO_JAX_DISTRIBUTED=1.
    environment: used instead of os.environ.

  Returns:
    Whether the run is configured for several processes.

  Raises:
    errors.UserError: an incomplete address, an invalid number, or no cluster that jax knows.
    errors.Transient: processes that did not join (the message names them).
  """
  env = os.environ if environment is None else environment
  devices = _integer(env, CPU_DEVICES, minimum=1)
  if devices:
    jax.config.update("jax_num_cpu_devices", devices)
  names = [name for name in (COORDINATOR, PROCESSES, INDEX) if env.get(name)]
  detect = detect or env.get(DETECT, "") not in ("", "0")
  if not names and not detect:
    return False
  join = _integer(env, JOIN_SECONDS, minimum=1) or 300
  settings: dict[str, Any] = {
    "initialization_timeout": join,
    "heartbeat_timeout_seconds": _integer(env, HEARTBEAT_SECONDS, minimum=1) or 100,
  }
  if names:
    settings |= _explicit(env, names, join=join)
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  # this service would catch SIGTERM, which the training loop handles itself (train/loop.py)
  jax.config.update("jax_enable_preemption_service", False)
  # after its own timeout, jax ends the process with nothing but a C++ stack trace
  timer = threading.Timer(join + 5, _give_up, [join])
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(**settings)
  except jax.errors.JaxRuntimeError as error:
    # an error of the service or the network; jax refuses arguments with plain errors
    raise errors.Transient(
      f"jax.distributed cannot start ({_line(error)}): the processes did not find each other"
    ) from error
  except (RuntimeError, ValueError) as error:
    raise errors.UserError(
      f"jax.distributed cannot start ({_line(error)}): set {COORDINATOR}, {PROCESSES} and "
      f"{INDEX}, or run on a cluster that jax knows"
    ) from error
  finally:
    timer.cancel()
  return True


def _explicit(env: Mapping[str, str], names: list[str], *, join: int) -> dict[str, Any]:
  """Waits until all processes are ready; returns arguments of `jax.distributed.initialize`."""
  for name in (COORDINATOR, PROCESSES, INDEX):
    if name not in names:
      raise errors.UserError(
        f"{names[0]} is set and {name} is not: several processes need {COORDINATOR}=HOST:PORT, "
        f"{PROCESSES}=N, {INDEX}=0..N-1"
      )
  count, index = _integer(env, PROCESSES, minimum=1), _integer(env, INDEX, minimum=0)
  if index >= count:
    raise errors.UserError(f"{INDEX}={index}, expected less than {PROCESSES}={count}")
  host, colon, port = env[COORDINATOR].rpartition(":")
  if not (host and colon and port.isdecimal()):
    raise errors.UserError(
      f"{COORDINATOR}={env[COORDINATOR]!r}, expected HOST:PORT, for example 10.0.0.1:9876"
    )
  rendezvous.meet(host, int(port), count=count, index=index, seconds=join)
  return dict(coordinator_address=env[COORDINATOR], num_processes=count, process_id=index)


def _integer(env: Mapping[str, str], name: str, *, minimum: int) -> int:
  """Value of an environment variable; 0 when it is not set."""
  text = env.get(name, "")
  if text and (not text.isdecimal() or int(text) < minimum):
    raise errors.UserError(f"{name}={text!r}, expected a whole number of at least {minimum}")
  return int(text or 0)


def _line(error: Exception) -> str:
  return (str(error).splitlines() or [""])[0][:300]


def _give_up(seconds: int) -> None:
  print(
    f"error: not every process of the run came within {seconds} s ({JOIN_SECONDS}): look for "
    "one that did not start",
    file=sys.stderr,
    flush=True,
  )
  os._exit(errors.Transient.code)


def is_primary() -> bool:
  """Whether this is process 0, which writes files and prints."""
  return jax.process_index() == 0


def run_on_all_processes(function: Callable[[], Any], *, first_alone: bool = False) -> Any:
  """Runs a function on every process; when it fails on one process, all raise the same error.

  Args:
    function: must not call collectives. If it failed before a collective, the other processes would
      wait forever.
    first_alone: whether process 0 runs first, and the others run after it has succeeded.

  Returns:
    The result of the function on this process.

  Raises:
    errors.Shared: the message of the failed process with the lowest index.
  """
  if jax.process_count() == 1:
    return function()
  result, message = None, ""
  for runs_now in (is_primary(), not is_primary()) if first_alone else (True,):
    if runs_now:
      try:
        result = function()
      except errors.UserError as error:
        message = str(error)
    _raise_everywhere(message)
  return result


def _raise_everywhere(message: str) -> None:
  """Exchanges error messages ("" = no error); all processes raise the first one."""
  local = np.frombuffer(message.encode()[:_MESSAGE].ljust(_MESSAGE, b"\0"), np.uint8)
  texts = [
    bytes(row).rstrip(b"\0").decode(errors="ignore")
    for row in np.asarray(multihost_utils.process_allgather(local))
  ]
  failed = [i for i, text in enumerate(texts) if text]
  if failed:
    where = "" if len(failed) == len(texts) else f" (process {failed[0]} of {len(texts)})"
    raise errors.Shared(texts[failed[0]] + where)


def assert_same_on_all(text: str, *, what: str) -> None:
  """Checks that a text, for example the settings of the run, is the same on all processes.

  Args:
    text: of this process.
    what: what the text describes, for the message.

  Raises:
    errors.Shared: shows the first different line and the process that has it.
  """
  if jax.process_count() == 1:
    return
  primary = broadcast_from_primary(text)

  def compare():
    if text != primary:
      expected, actual = next(
        ((a, b) for a, b in zip(primary.splitlines(), text.splitlines(), strict=False) if a != b),
        (primary, text),
      )
      raise errors.UserError(
        f"{what} differs between processes: {actual.strip()[:200]!r}, process 0 has "
        f"{expected.strip()[:200]!r}"
      )

  run_on_all_processes(compare)


@functools.cache
def count_colocated(text: str) -> int:
  """Counts the processes, including this one, that have the same text.

  The first call is a collective: all processes must make it together. Its result is cached.
  """
  if jax.process_count() == 1:
    return 1
  local = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
  return int(np.all(np.asarray(multihost_utils.process_allgather(local)) == local, axis=1).sum())


def broadcast_from_primary(text: str) -> str:
  """Returns process 0's text on every process."""
  if jax.process_count() == 1:
    return text
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text.encode()))))
  if not size:
    return ""
  local = np.frombuffer(text.encode()[:size].ljust(size, b"\0"), np.uint8)
  return bytes(np.asarray(multihost_utils.broadcast_one_to_all(local), np.uint8)).decode()


def broadcast_arrays_from_primary(tree):
  """Returns process 0's numpy arrays on every process; all trees must have the same shapes."""
  return (
    tree
    if jax.process_count() == 1
    else jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))
  )


def gather(tree, *, keep: bool = True):
  """Gathers the whole numpy arrays of a pytree; every process must call it.

  It gathers leaf by leaf. A device therefore holds its shards and one whole leaf at a time. The
  host of a process that keeps the result holds the whole tree (four bytes per float32 parameter).

  Args:
    tree: pytree whose arrays are sharded over the processes.
    keep: False on processes that only take part; their leaves become None.
  """

  def gather_leaf(leaf):
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
      return jax.device_get(leaf) if keep else None
    if leaf.is_fully_replicated:
      return np.asarray(leaf.addressable_data(0)) if keep else None
    whole = multihost_utils.process_allgather(leaf, tiled=True)
    return whole if keep else None

  return jax.tree.map(gather_leaf, tree)


class AsyncAllGather:
  """Sends a few numbers of every process to every process without blocking the host.

  `send` queues a small program behind the step that has just been started. `read` is called with
  that step's metrics, one step later. All processes read the same numbers at the same point of the
  loop, so they make the same decisions.
  """

  def __init__(self, mesh: jax.sharding.Mesh, *, count: int):
    """Compiles nothing yet.

    Args:
      mesh: of the run.
      count: numbers per process.
    """
    self.alone = len({device.process_index for device in mesh.devices.flat}) == 1
    if self.alone:
      return
    devices = mesh.devices.flatten()
    flat_mesh = jax.sharding.Mesh(devices, ("all",), axis_types=(jax.sharding.AxisType.Auto,))
    self._split = jax.sharding.NamedSharding(flat_mesh, jax.sharding.PartitionSpec("all"))
    self._gather = jax.jit(
      lambda x: x, out_shardings=jax.sharding.NamedSharding(flat_mesh, jax.sharding.PartitionSpec())
    )
    self._local = sum(device.process_index == jax.process_index() for device in devices)
    owners = [device.process_index for device in devices]
    self._rows = [owners.index(process) for process in sorted(set(owners))]
    self._shape = (len(devices), count)

  def send(self, *values: float) -> Any:
    """Starts the exchange of `count` values; pass the result to `read`."""
    if self.alone:
      return np.asarray([values], np.float32)
    local = np.tile(np.asarray(values, np.float32)[None], (self._local, 1))
    return self._gather(jax.make_array_from_process_local_data(self._split, local, self._shape))

  def read(self, sent: Any) -> np.ndarray:
    """Returns the values of all processes, float32 [processes, count]."""
    return sent if self.alone else np.asarray(sent)[self._rows]


def wait_for_all() -> None:
  """Waits at the end of the run until every process has arrived.

  A missing heartbeat reveals a process that died. jax has its own barrier at the end of the
  interpreter, but it kills a process after 300 s, and `initialize` can change this limit for the
  service only.
  """
  from orbax.checkpoint import multihost  # imported here because it takes a second

  with peers():
    multihost.get_barrier_sync_fn()(key="como_jax/end", timeout_ms=1000 * _PATIENCE)


# Parts of the messages of collectives (gloo, NCCL) and of jax's coordination service when another
# process is gone.
_LOST = (
  "Connection closed by peer",
  "Connection reset by peer",
  "Connection refused",
  "Broken pipe",
  "Gloo",
  "NCCL",
  "remote process",
  "heartbeat",
  "coordination service",
  "CoordinationService",
  "Socket closed",
  "failed to connect",
  "UNAVAILABLE",
  "DEADLINE_EXCEEDED",
  "Barrier",
  "preempted",
  "ABORTED",
  "CANCELLED",
  "task has failed",
  "tasks have failed",
)


def lost_process(error: BaseException) -> bool:
  """Whether an error means that another process of the run is gone.

  The usual cause is a preemption, not a fault of the program.
  """
  if not jax.distributed.is_initialized() or jax.process_count() == 1:
    return False
  while error is not None:
    if isinstance(error, RuntimeError | ValueError | OSError) and any(
      word.lower() in str(error).lower() for word in _LOST
    ):
      return True
    error = error.__cause__
  return False


@contextlib.contextmanager
def peers():
  """Context that converts the loss of another process to `errors.Transient`.

  The process then prints one line and exits with the code that requests a restart.
  """
  try:
    yield
  except Exception as error:
    if isinstance(error, (errors.UserError, errors.Transient, errors.Failed)) or not lost_process(
      error
    ):
      raise
    raise errors.Transient(
      f"another process of the run is gone ({_line(error)}): start all of them again, with --resume"
    ) from error


def exit_immediately(code: int) -> None:
  """Ends a failed process at once.

  A normal exit would wait for the other processes, which wait for this one.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
