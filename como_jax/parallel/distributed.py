"""Runs with several processes: agreement between processes, and gathering of arrays.

startup.py says how a run gets several processes. With one process the functions here have no cost.
Only process 0 writes files and prints; the others print errors. Code that may fail before the first
step runs under `run_on_all_processes`. All processes then end in the same way, and none waits for a
process that has ended.
"""

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from como_jax import errors

_MESSAGE = 2048  # bytes of an error that is sent to the other processes
_PATIENCE = 30 * 24 * 3600  # maximum seconds from the end of the first process to that of the last


def first_line(error: Exception) -> str:
  """The first line of an error's text; "" where it has none."""
  return (str(error).splitlines() or [""])[0][:300]


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
    errors.SharedUserError: the message of the failed process with the lowest index.
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
    raise errors.SharedUserError(texts[failed[0]] + where)


def assert_same_on_all(text: str, *, what: str) -> None:
  """Checks that a text, for example the settings of the run, is the same on all processes.

  Args:
    text: of this process.
    what: what the text describes, for the message.

  Raises:
    errors.SharedUserError: shows the first different line and the process that has it.
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
  interpreter, but it kills a process after 300 s, and `startup.initialize` can change this limit
  for the service only.
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
  link: BaseException | None = error
  while link is not None:
    if isinstance(link, RuntimeError | ValueError | OSError) and any(
      word.lower() in str(link).lower() for word in _LOST
    ):
      return True
    link = link.__cause__
  return False


@contextlib.contextmanager
def peers():
  """Context that converts the loss of another process to `errors.TransientError`.

  The process then prints one line and exits with the code that requests a restart.
  """
  try:
    yield
  except Exception as error:
    if isinstance(
      error, (errors.UserError, errors.TransientError, errors.RunError)
    ) or not lost_process(error):
      raise
    raise errors.TransientError(
      f"another process of the run is gone ({first_line(error)}): start all of them again, with "
      "--resume"
    ) from error


def exit_immediately(code: int) -> NoReturn:
  """Ends a failed process at once.

  A normal exit would wait for the other processes, which wait for this one.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
