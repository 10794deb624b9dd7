"""Several processes, one run: how they find each other, agree, and gather whole arrays.

A run is started by the same command on every host. Where the others are comes from the environment:

  COMO_JAX_COORDINATOR=HOST:PORT, COMO_JAX_PROCESSES=N, COMO_JAX_PROCESS_INDEX=I
      given by hand or by launch/local_processes.py
  COMO_JAX_DISTRIBUTED=1, or the flag --distributed
      found by jax itself: TPU pods, Slurm, GKE, MPI
  COMO_JAX_CPU_DEVICES=K
      CPU devices of each process (also of a single one)
  COMO_JAX_JOIN_SECONDS=300
      how long to wait for the others at the start
  COMO_JAX_HEARTBEAT_SECONDS=100
      after so long a silent process counts as dead

None of them: one process, and nothing here costs anything. Only process 0 writes files and prints;
the others print errors. Everything that may fail before the first step runs under
`run_on_all_processes`, so all processes end alike instead of waiting for one that has left.
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
_MESSAGE = 2048  # bytes of an error that travels to the other processes
_PATIENCE = 30 * 24 * 3600  # seconds from the end of the first process to that of the last


def initialize(*, detect: bool = False, environment: Mapping[str, str] | None = None) -> bool:
  """Joins the other processes, when there are any. Must come before anything asks jax for devices.

  Args:
    detect: let jax find the cluster (TPU pod, Slurm, ...), as COMO_JAX_DISTRIBUTED=1 does.
    environment: instead of os.environ.

  Returns:
    Whether this run has been told to be of several processes.

  Raises:
    errors.UserError: half an address, a number that is none, or no cluster that jax knows.
    errors.Transient: processes that did not come (naming them).
  """
  env = os.environ if environment is None else environment
  devices = _number(env, CPU_DEVICES, least=1)
  if devices:
    jax.config.update("jax_num_cpu_devices", devices)
  given = [name for name in (COORDINATOR, PROCESSES, INDEX) if env.get(name)]
  detect = detect or env.get(DETECT, "") not in ("", "0")
  if not given and not detect:
    return False
  join = _number(env, JOIN_SECONDS, least=1) or 300
  settings: dict[str, Any] = {
    "initialization_timeout": join,
    "heartbeat_timeout_seconds": _number(env, HEARTBEAT_SECONDS, least=1) or 100,
  }
  if given:
    settings |= _explicit(env, given, join=join)
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  # it would swallow SIGTERM; the loop has its own way (train/loop.py)
  jax.config.update("jax_enable_preemption_service", False)
  # jax ends a process that waits in vain with a stack trace of C++ only
  late = threading.Timer(join + 5, _give_up, [join])
  late.daemon = True
  late.start()
  try:
    jax.distributed.initialize(**settings)
  except jax.errors.JaxRuntimeError as error:
    # of the service or the network; what jax itself refuses is a plain error
    raise errors.Transient(
      f"jax.distributed cannot start ({_line(error)}): the processes did not find each other"
    ) from error
  except (RuntimeError, ValueError) as error:
    raise errors.UserError(
      f"jax.distributed cannot start ({_line(error)}): set {COORDINATOR}, {PROCESSES} and "
      f"{INDEX}, or run on a cluster that jax knows"
    ) from error
  finally:
    late.cancel()
  return True


def _explicit(env: Mapping[str, str], given: list[str], *, join: int) -> dict[str, Any]:
  """Arguments of `jax.distributed.initialize`, once every process has said that it is there."""
  for name in (COORDINATOR, PROCESSES, INDEX):
    if name not in given:
      raise errors.UserError(
        f"{given[0]} is set and {name} is not: several processes need {COORDINATOR}=HOST:PORT, "
        f"{PROCESSES}=N, {INDEX}=0..N-1"
      )
  count, index = _number(env, PROCESSES, least=1), _number(env, INDEX, least=0)
  if index >= count:
    raise errors.UserError(f"{INDEX}={index}, expected less than {PROCESSES}={count}")
  host, colon, port = env[COORDINATOR].rpartition(":")
  if not (host and colon and port.isdecimal()):
    raise errors.UserError(
      f"{COORDINATOR}={env[COORDINATOR]!r}, expected HOST:PORT, for example 10.0.0.1:9876"
    )
  rendezvous.meet(host, int(port), count=count, index=index, seconds=join)
  return dict(coordinator_address=env[COORDINATOR], num_processes=count, process_id=index)


def _number(env: Mapping[str, str], name: str, *, least: int) -> int:
  """The value of a variable, 0 where it is not set."""
  text = env.get(name, "")
  if text and (not text.isdecimal() or int(text) < least):
    raise errors.UserError(f"{name}={text!r}, expected a whole number of at least {least}")
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
  """Whether this is the process that writes and prints."""
  return jax.process_index() == 0


def run_on_all_processes(function: Callable[[], Any], *, first_alone: bool = False) -> Any:
  """Runs a function on every process; when it fails on one, all of them raise the same error.

  Args:
    function: must not call collectives (one that fails before them would leave the others waiting).
    first_alone: process 0 goes first and the others follow when it has succeeded.

  Raises:
    errors.Shared: the message of the lowest process that failed.
  """
  if jax.process_count() == 1:
    return function()
  result, problem = None, ""
  for mine in (is_primary(), not is_primary()) if first_alone else (True,):
    if mine:
      try:
        result = function()
      except errors.UserError as error:
        problem = str(error)
    _share(problem)
  return result


def _share(problem: str) -> None:
  mine = np.frombuffer(problem.encode()[:_MESSAGE].ljust(_MESSAGE, b"\0"), np.uint8)
  texts = [
    bytes(row).rstrip(b"\0").decode(errors="ignore")
    for row in np.asarray(multihost_utils.process_allgather(mine))
  ]
  failed = [i for i, text in enumerate(texts) if text]
  if failed:
    where = "" if len(failed) == len(texts) else f" (process {failed[0]} of {len(texts)})"
    raise errors.Shared(texts[failed[0]] + where)


def assert_same_on_all(text: str, *, what: str) -> None:
  """Refuses processes that were started differently.

  Raises:
    errors.Shared: naming the process whose text is not that of process 0.
  """
  if jax.process_count() == 1:
    return
  lines = broadcast_from_primary(text)

  def compare():
    if text != lines:
      was, now = next(
        ((a, b) for a, b in zip(lines.splitlines(), text.splitlines(), strict=False) if a != b),
        (lines, text),
      )
      raise errors.UserError(
        f"{what} differs between processes: {now.strip()[:200]!r}, process 0 has "
        f"{was.strip()[:200]!r}"
      )

  run_on_all_processes(compare)


@functools.cache
def count_colocated(text: str) -> int:
  """How many processes, this one among them, give the same text.

  All must ask for the first time together; then it is known.
  """
  if jax.process_count() == 1:
    return 1
  mine = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
  return int(np.all(np.asarray(multihost_utils.process_allgather(mine)) == mine, axis=1).sum())


def broadcast_from_primary(text: str) -> str:
  """Process 0's text, on every process."""
  if jax.process_count() == 1:
    return text
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text.encode()))))
  mine = (
    np.frombuffer(text.encode()[:size].ljust(size, b"\0"), np.uint8)
    if size
    else np.zeros(0, np.uint8)
  )
  return (
    bytes(np.asarray(multihost_utils.broadcast_one_to_all(mine), np.uint8)).decode() if size else ""
  )


def broadcast_arrays_from_primary(tree):
  """Process 0's numpy arrays, on every process; all must give a tree of the same shapes."""
  return (
    tree
    if jax.process_count() == 1
    else jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))
  )


def gather(tree, *, keep: bool = True):
  """Whole numpy arrays of a pytree that is spread over processes; every process must call it.

  It goes leaf by leaf: a device holds one whole leaf at a time beside its shards, and the host of a
  process that keeps the result holds the whole tree (four bytes a float32 parameter).

  Args:
    keep: False on processes that only take part; their leaves come out as None.
  """

  def one(leaf):
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
      return jax.device_get(leaf) if keep else None
    if leaf.is_fully_replicated:
      return np.asarray(leaf.addressable_data(0)) if keep else None
    whole = multihost_utils.process_allgather(leaf, tiled=True)
    return whole if keep else None

  return jax.tree.map(one, tree)


class AsyncAllGather:
  """A few numbers of every process to every process, without making the host wait.

  `send` queues a tiny program behind the step that has just been started; its result is read with
  that step's metrics, one step later. All processes read the same numbers at the same place of the
  loop, so they decide alike.
  """

  def __init__(self, mesh: jax.sharding.Mesh, *, count: int):
    """`count` numbers a process."""
    self.alone = len({device.process_index for device in mesh.devices.flat}) == 1
    if self.alone:
      return
    devices = mesh.devices.flatten()
    line = jax.sharding.Mesh(devices, ("all",), axis_types=(jax.sharding.AxisType.Auto,))
    self._split = jax.sharding.NamedSharding(line, jax.sharding.PartitionSpec("all"))
    self._whole = jax.jit(
      lambda x: x, out_shardings=jax.sharding.NamedSharding(line, jax.sharding.PartitionSpec())
    )
    self._local = sum(device.process_index == jax.process_index() for device in devices)
    owners = [device.process_index for device in devices]
    self._rows = [owners.index(process) for process in sorted(set(owners))]
    self._shape = (len(devices), count)

  def send(self, *values: float) -> Any:
    """Starts the exchange; give the result to `read`."""
    if self.alone:
      return np.asarray([values], np.float32)
    mine = np.tile(np.asarray(values, np.float32)[None], (self._local, 1))
    return self._whole(jax.make_array_from_process_local_data(self._split, mine, self._shape))

  def read(self, sent: Any) -> np.ndarray:
    """float32 [processes, count]."""
    return sent if self.alone else np.asarray(sent)[self._rows]


def wait_for_all() -> None:
  """Returns when every process has come here, at the end of the run; one that dies instead is
  noticed by its missing heartbeat.

  jax's own wait, when the interpreter ends, kills a process after 300 s, and `initialize` can
  change that for the service only.
  """
  from orbax.checkpoint import multihost  # here: it takes a second to import

  with peers():
    multihost.get_barrier_sync_fn()(key="como_jax/end", timeout_ms=1000 * _PATIENCE)


# What collectives (gloo, NCCL) and jax's coordination service say when another process is gone.
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
  """Whether an error says that another process of the run is gone: a preemption, most often, and no
  fault of the program.
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
  """Turns the loss of another process, in here, into `errors.Transient`: one line, and the exit
  code that asks for a restart.
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
  """Ends a process that has failed alone, at once: an orderly end would wait for the others, who
  wait for this one.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
