"""A policy without a model, and servers in a thread."""

import asyncio
import contextlib
import threading
import time

import numpy as np

from como_jax import errors
from como_jax.serve import server
from tests import limits


class Policy:
  """A `serve.interface.Policy`. Its actions tell what it has seen:
  actions[k, a] = state[0] + 10 * (frames in the history) + 100 * (oldest state[0]) + mean of the
  first image / 1000 + k.
  """

  def __init__(
    self,
    *,
    cameras=("front", "wrist"),
    history=1,
    state_dim=8,
    action_horizon=4,
    action_dim=7,
    delay=0.0,
  ):
    self.cameras, self.history, self.state_dim = cameras, history, state_dim
    self.action_horizon, self.action_dim, self.delay = action_horizon, action_dim, delay
    self.metadata = {
      "robot": "fake",
      "chunk": action_horizon,
      "action_dim": action_dim,
      "cameras": list(cameras),
      "history": history,
    }
    self.batches, self.seeds, self.warm, self.fail = [], [], False, None
    self.gate = threading.Event()  # inference waits for it
    self.gate.set()

  def warm_up(self):
    time.sleep(self.delay)
    self.warm = True

  def infer(self, histories, *, seed=0):
    self.batches.append(len(histories))
    self.seeds.append(seed)
    self.gate.wait(limits.SAFETY_NET)
    time.sleep(self.delay)
    if self.fail:
      raise self.fail
    out = np.zeros((len(histories), self.action_horizon, self.action_dim), np.float32)
    for i, history in enumerate(histories):
      states = [float(seen["observation.state"][0]) for seen in history]
      if states[-1] == 666.0:
        raise errors.UserError("the number of the beast")
      image = history[-1][f"observation.images.{self.cameras[0]}"]
      out[i] = (
        states[-1]
        + 10 * len(history)
        + 100 * states[0]
        + image.mean() / 1000
        + np.arange(self.action_horizon)[:, None]
      )
    return out


@contextlib.contextmanager
def serving(policy, **settings):
  """A server of the policy in a thread, on a free port; yields (port, server, lines it said)."""
  lines, ready, ports, failed = [], threading.Event(), [], []
  one = server.Server(
    policy, server.Settings(**{"port": 0, "preset": "libero", **settings}), log=lines.append
  )
  loop, stop = asyncio.new_event_loop(), None

  async def main():
    nonlocal stop
    stop = asyncio.Event()
    await one.serve(stop, started=lambda port: (ports.append(port), ready.set()))

  def target():
    try:
      loop.run_until_complete(main())
    except Exception as error:
      failed.append(error)
    finally:
      ready.set()
      loop.close()

  thread = threading.Thread(target=target, daemon=True)
  thread.start()
  assert ready.wait(limits.SAFETY_NET)
  if failed:
    raise failed[0]
  try:
    yield ports[0], one, lines
  finally:
    if not loop.is_closed():
      loop.call_soon_threadsafe(stop.set)
    thread.join(limits.SAFETY_NET)
    assert not thread.is_alive()


def observation(number=1.0, *, size=8, prompt="pick up the cup"):
  """What openpi's LIBERO client sends."""
  return {
    "observation/image": np.full((size, size, 3), 100, np.uint8),
    "observation/wrist_image": np.zeros((size, size, 3), np.uint8),
    "observation/state": np.full(8, number, np.float64),
    "prompt": prompt,
  }
