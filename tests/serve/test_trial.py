"""One client's requests to a server of this machine, on paper."""

import contextlib
import itertools
import json
import queue
import threading
import types

import numpy as np
import pytest

from como_jax.observations import IMAGE, STATE, TASK
from como_jax.serve import trial as task
from tests import limits
from tests.data import makers


@pytest.fixture(name="served")
def _served(tmp_path, monkeypatch):
  """Serves on paper: (function, what was seen of it)."""
  seen = types.SimpleNamespace(settings=[], asked=[], clients=[], ended=[])
  policy = types.SimpleNamespace(cameras=("b", "a"), state_dim=2)
  clock, asked = itertools.count(100.0, 5.0), itertools.count()

  class Server:
    fails = False

    def __init__(self, given, settings):
      assert given is policy
      seen.settings.append(settings)

    async def serve(self, stop, *, started):
      if self.fails:
        raise OSError("no port")
      started(4321)
      await stop.wait()
      seen.ended.append(True)

  class Client:
    def __init__(self, host, port):
      seen.clients.append((host, port))

    def infer(self, observation):
      seen.asked.append(observation)
      return {"actions": [[1.0, 2.0, 3.0]] * 8}

  def perf_counter():  # the first request takes 4 ms, all others 1 ms
    request, end = divmod(next(asked), 2)
    return (10 * request + end * (1 if request else 4)) / 1e3

  monkeypatch.setattr(task.serving.Policy, "load", lambda path: policy)
  monkeypatch.setattr(task.server, "Server", Server)
  monkeypatch.setattr(task.client, "Client", lambda *place: contextlib.nullcontext(Client(*place)))
  monkeypatch.setattr(
    task, "time", types.SimpleNamespace(monotonic=lambda: next(clock), perf_counter=perf_counter)
  )
  data = makers.shards(tmp_path / "data", (5, 6), cameras=("a", "b"))
  seen.policy, seen.Server = policy, Server
  return (
    lambda: task.run(tmp_path / "policy", tmp_path / "data", tmp_path / "out" / "serve.json"),
    seen,
    data,
  )


def test_one_client_asks_a_server_of_this_machine(served, tmp_path, capsys):
  serve_one, seen, data = served
  serve_one()
  assert (seen.settings[0].port, seen.settings[0].batch_size, seen.settings[0].host) == (
    0,
    1,
    "127.0.0.1",
  )
  assert seen.clients == [("127.0.0.1", 4321)] and seen.ended == [True] and len(seen.asked) == 20
  observation, read = seen.asked[0], makers.segments(data)[1]
  assert set(observation) == {IMAGE + "a", IMAGE + "b", STATE, TASK}
  np.testing.assert_array_equal(observation[IMAGE + "b"], read.images(0, "b", [0])[0])
  np.testing.assert_array_equal(observation[STATE], read.read_array(0, "state", 0, 1)[0])
  assert observation[TASK] == "task 0"
  said = json.loads((tmp_path / "out" / "serve.json").read_text())
  assert said == {
    "requests": 20,
    "chunk": 8,
    "action_dim": 3,
    "first_ms": pytest.approx(4),
    "round_trip_ms": pytest.approx(1),
    "warm_up_s": 5.0,
  }
  assert (tmp_path / "out" / "serve.json").read_text().startswith('{\n  "requests": 20')
  assert (
    capsys.readouterr().out
    == "served: 20 requests over a websocket, chunks [8, 3], 1.0 ms a round trip\n"
  )
  seen.policy.state_dim = 0
  serve_one()
  state = seen.asked[-1][STATE]
  assert state.shape == (0,) and state.dtype == np.float32


def test_a_server_that_does_not_start_keeps_nobody_waiting(served, tmp_path, monkeypatch):
  serve_one, seen, _ = served
  seen.Server.fails, said = True, queue.Queue()
  monkeypatch.setattr(threading, "excepthook", said.put)
  with pytest.raises(RuntimeError, match="^the policy server did not start; its error is above$"):
    serve_one()
  assert (
    not (tmp_path / "out").exists()
    and str(said.get(timeout=limits.SAFETY_NET).exc_value) == "no port"
  )


def test_a_first_episode_without_states_is_asked_with_zeros(served, tmp_path, monkeypatch):
  serve_one, seen, _ = served
  monkeypatch.setattr(task.reader.SegmentReader, "read_array", lambda *given: None)
  serve_one()
  state = seen.asked[0][STATE]
  assert state.tolist() == [0, 0] and state.dtype == np.float32
