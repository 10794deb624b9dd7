"""Tries a policy server on this machine: one client's requests over a websocket, with their times.

Legend: K actions of a chunk, A dimensions of an action.
"""

import asyncio
import contextlib
import json
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from como_jax.data import reader, shards
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.serve import client, server
from como_jax.serve import policy as serving
from como_jax.train import atomic

REQUESTS = 20


def run(checkpoint: pathlib.Path, data: pathlib.Path, product: pathlib.Path) -> None:
  """Starts a server on a free local port, sends requests and writes their latencies.

  Args:
    checkpoint: checkpoint of the policy.
    data: folder of the shards; a request has their first frame.
    product: file for {"requests", "chunk", "action_dim", "first_ms", "round_trip_ms" (median),
      "warm_up_s"}.

  Raises:
    RuntimeError: the server did not start.
  """
  policy = serving.Policy.load(str(checkpoint))
  observation = first_observation(policy, data)
  with _running(policy) as (port, warm_up):
    (chunk, action_dim), times = _ask(port, observation)
  product.parent.mkdir(parents=True, exist_ok=True)
  result = {
    "requests": REQUESTS,
    "chunk": chunk,
    "action_dim": action_dim,
    "first_ms": times[0],
    "round_trip_ms": float(np.median(times)),
    "warm_up_s": warm_up,
  }
  atomic.write(product, json.dumps(result, indent=2))
  print(
    f"served: {REQUESTS} requests over a websocket, chunks {[chunk, action_dim]}, "
    f"{np.median(times):.1f} ms a round trip"
  )


def first_observation(policy: serving.Policy, data: pathlib.Path) -> dict[str, Any]:
  """The first frame of a folder of shards, as an observation of a policy.

  The state is zeros where the policy or the first episode has none.
  """
  table = shards.read_table(str(data))
  frames = reader.SegmentReader(str(data), shards.segments(table))
  state = frames.read_array(0, "state", 0, 1) if policy.state_dim else None
  return {
    **{IMAGE + camera: frames.images(0, camera, [0])[0] for camera in policy.cameras},
    STATE: np.zeros(policy.state_dim, np.float32) if state is None else state[0],
    TASK: table.tasks[table.task[0]],
  }


@contextlib.contextmanager
def _running(policy: serving.Policy) -> Iterator[tuple[int, float]]:
  """Serves a policy in a thread; yields (port, seconds until it was ready).

  Raises:
    RuntimeError: the server did not start.
  """
  ready, ports, start = threading.Event(), [], time.monotonic()
  loop, stop = asyncio.new_event_loop(), asyncio.Event()

  def started(port: int) -> None:
    ports.append(port)
    ready.set()

  def serve() -> None:
    try:
      loop.run_until_complete(
        server.Server(policy, server.Settings(port=0, batch_size=1)).serve(stop, started=started)
      )
    finally:
      ready.set()  # also after a failure, so that the main thread does not wait forever

  thread = threading.Thread(target=serve, daemon=True)
  thread.start()
  ready.wait()
  if not ports:
    raise RuntimeError("the policy server did not start; its error is above")
  yield ports[0], time.monotonic() - start
  loop.call_soon_threadsafe(stop.set)
  thread.join()


def _ask(port: int, observation: dict[str, Any]) -> tuple[tuple[int, ...], list[float]]:
  """Sends the requests; returns (shape of a chunk [K, A], milliseconds of each request)."""
  shape, times = (), []
  with client.Client("127.0.0.1", port) as robot:
    for _ in range(REQUESTS):
      start = time.perf_counter()
      shape = np.asarray(robot.infer(observation)["actions"]).shape
      times.append(1e3 * (time.perf_counter() - start))
  return shape, times
