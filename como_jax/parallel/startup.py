"""The start of a run with several processes.

The same command starts a run on every host. Environment variables describe the other processes:

  COMO_JAX_COORDINATOR=HOST:PORT, COMO_JAX_PROCESSES=N, COMO_JAX_PROCESS_INDEX=I
      set by hand or by launch/local_processes.py
  COMO_JAX_DISTRIBUTED=1, or the flag --distributed
      jax finds the processes itself: TPU pods, Slurm, GKE, MPI
  COMO_JAX_CPU_DEVICES=K
      CPU devices of each process (also of a single process)
  COMO_JAX_JOIN_SECONDS=300
      time limit of the start, in which all processes must join
  COMO_JAX_HEARTBEAT_SECONDS=45
      time without a heartbeat after which a process counts as dead

Without these variables there is one process.
"""

import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

import jax

from como_jax import errors
from como_jax.parallel import distributed, rendezvous

COORDINATOR, PROCESSES, INDEX = (
  "COMO_JAX_COORDINATOR",
  "COMO_JAX_PROCESSES",
  "COMO_JAX_PROCESS_INDEX",
)
DETECT, CPU_DEVICES = "COMO_JAX_DISTRIBUTED", "COMO_JAX_CPU_DEVICES"
JOIN_SECONDS, HEARTBEAT_SECONDS = "COMO_JAX_JOIN_SECONDS", "COMO_JAX_HEARTBEAT_SECONDS"


def initialize(*, detect: bool = False, environment: Mapping[str, str] | None = None) -> bool:
  """Joins the other processes, if there are any; must run before jax creates its devices.

  Args:
    detect: whether jax finds the cluster (TPU pod, Slurm, ...), as with COMO_JAX_DISTRIBUTED=1.
    environment: used instead of os.environ.

  Returns:
    Whether the run is configured for several processes.

  Raises:
    errors.UserError: an incomplete address, an invalid number, or no cluster that jax knows.
    errors.TransientError: processes that did not join (the message names them), a host name that
      is not known yet, a metadata service that does not answer.
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
    "heartbeat_timeout_seconds": _integer(env, HEARTBEAT_SECONDS, minimum=1) or 45,
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
    raise errors.TransientError(
      f"jax.distributed cannot start ({distributed.first_line(error)}): the processes did not find "
      "each other"
    ) from error
  except Exception as error:  # jax lets through what requests and Kubernetes raise
    if _is_network_failure(error):
      raise errors.TransientError(
        f"jax.distributed cannot start ({distributed.first_line(error)}): another process is not "
        "there yet, or a service of the cluster does not answer"
      ) from error
    if not isinstance(error, RuntimeError | ValueError | KeyError | TypeError):
      raise
    raise errors.UserError(
      f"jax.distributed cannot start ({distributed.first_line(error)}): set {COORDINATOR}, "
      f"{PROCESSES} and {INDEX}, or run on a cluster that jax knows"
    ) from error
  finally:
    timer.cancel()
  return True


# Parts of the messages with which jax gives up on the host name of a pod that is not there yet, on
# the metadata service of TPU VMs (its error page is an "unsupported format") and on Kubernetes.
_UNREACHABLE = (
  "failed to recognize coordinator address",
  "getting metadata[",
  "unsupported worker-network-endpoints format",
  "retry failed with all attempts exhausted",
  "kubernetes api error: 429",
  "kubernetes api error: 5",
  "max retries exceeded",
)


def _is_network_failure(error: BaseException | None) -> bool:
  """Whether an error, or one that caused it, is of the network and not of the settings."""
  while error is not None:
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError):
      return True
    if any(text in str(error).lower() for text in _UNREACHABLE):
      return True
    error = error.__cause__
  return False


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


def _give_up(seconds: int) -> None:
  """Ends the process, which waits in jax for processes that do not come."""
  print(
    f"error: not every process of the run came within {seconds} s ({JOIN_SECONDS}): look for "
    "one that did not start",
    file=sys.stderr,
    flush=True,
  )
  os._exit(errors.TransientError.code)
