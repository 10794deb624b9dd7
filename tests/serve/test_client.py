"""The robot's side of the connection."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from como_jax import errors
from como_jax.serve import client, player
from tests import limits
from tests.serve import fake, test_server


def test_it_needs_no_jax():
  code = ("import sys\nimport como_jax.serve.client, como_jax.serve.player, como_jax.chunks, como_jax.serve.codec\n"
          "heavy = {'jax', 'jaxlib', 'flax', 'grain', 'ml_collections', 'av', 'PIL'} & set(sys.modules)\nassert not heavy, heavy")
  subprocess.run([sys.executable, "-c", code], check=True, cwd=test_server.ROOT)


def test_it_asks_and_resets():
  with fake.serving(fake.Policy(history=2)) as (port, _, _), client.Client(port=port) as one:
    assert one.metadata["robot"] == "fake"
    assert one.infer(fake.observation(1.0))["actions"][0, 0] == pytest.approx(test_server.expected(1.0)[0])
    assert one.infer(fake.observation(2.0))["actions"][0, 0] == pytest.approx(test_server.expected(2.0, frames=2, oldest=1.0)[0])
    one.reset()
    assert one.infer(fake.observation(3.0))["actions"][0, 0] == pytest.approx(test_server.expected(3.0)[0])
    with pytest.raises(client.ServerError, match="error: 'prompt' is a int"):
      one.infer({**fake.observation(), "prompt": 3})
    assert one.infer(fake.observation(4.0))["actions"].shape == (4, 7)
    with pytest.raises(errors.UserError, match="cannot be sent"):
      one.infer({**fake.observation(), "prompt": object()})


def test_it_waits_for_a_server_that_is_not_up():
  with fake.serving(fake.Policy()) as (port, _, _):
    pass  # a port that was free a moment ago
  with pytest.raises(ConnectionError, match=f"no policy server at ws://127.0.0.1:{port} in 0.3 s"):
    client.Client(port=port, connect_seconds=0.3)
  found = []
  thread = threading.Thread(target=lambda: found.append(client.Client(port=port, connect_seconds=limits.SAFETY_NET)))
  thread.start()
  time.sleep(0.3)
  with fake.serving(fake.Policy(), port=port):
    thread.join(limits.SAFETY_NET)
    found[0].close()


def test_it_finds_a_server_that_was_started_again():
  with fake.serving(fake.Policy()) as (port, _, _):
    one = client.Client(port=port)
    one.infer(fake.observation())
  with fake.serving(fake.Policy(), port=port):
    assert one.infer(fake.observation())["actions"].shape == (4, 7)
    one.close()


def test_it_does_not_repeat_what_closed_the_connection():
  with fake.serving(fake.Policy(), max_frame_bytes=10_000) as (port, _, _), client.Client(port=port) as one:
    with pytest.raises(ConnectionError, match="closed the connection"):
      one.infer(fake.observation(size=200))


def test_an_answer_that_does_not_come():
  policy = fake.Policy()
  with fake.serving(policy) as (port, _, _), client.Client(port=port, answer_seconds=0.3) as one:
    policy.delay = 1.0
    with pytest.raises(ConnectionError, match="no answer in 0.3 s"):
      one.infer(fake.observation())
    policy.delay = 0.0
    time.sleep(1.0)
    assert one.infer(fake.observation(5.0))["actions"][0, 0] == pytest.approx(test_server.expected(5.0)[0])  # not the late one


def test_what_is_no_server():
  with pytest.raises(errors.UserError, match="no address"):
    client.Client("ws://", None, connect_seconds=0.1)


def test_a_player_over_the_network():
  with fake.serving(fake.Policy(chunk=8)) as (port, _, _), client.Client(port=port) as one:
    play = player.Player(one, player.ChunkQueue(one.metadata["chunk"]), state_key="observation/state")
    actions = np.stack([play(fake.observation(1.0)) for _ in range(20)])
    play.close()
  assert actions.shape == (20, 7) and np.isfinite(actions).all()
