"""The server against good clients: the policy is a fake, the network is real."""

import asyncio
import concurrent.futures
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import websockets
from websockets.sync import client as websocket_client

from como_jax import errors
from como_jax.serve import batching, client, codec
from tests import limits
from tests.serve import fake
from tests.serve.conversation import ask, connect, expected, healthy

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_a_conversation():
  policy = fake.Policy()
  with fake.serving(policy) as (port, one, lines):
    with websocket_client.connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
      metadata = codec.unpack(connection.recv(timeout=limits.SAFETY_NET))
      assert metadata == one.metadata
      assert (
        metadata["protocol_version"] == 1
        and metadata["preset"] == "libero"
        and metadata["chunk"] == 4
      )
      assert metadata["keys"] == [
        "observation/image",
        "observation/wrist_image",
        "observation/state",
      ]
      assert metadata["instruction_key"] == "prompt"
      first, second = ask(connection, fake.observation(1.0)), ask(connection, fake.observation(2.0))
    np.testing.assert_allclose(first["actions"][:, 0], expected(1.0), rtol=1e-6)
    assert first["actions"].shape == (4, 7) and first["actions"].dtype == np.float32
    assert set(first["server_timing"]) == {"infer_ms"} and set(second["server_timing"]) == {
      "infer_ms",
      "prev_total_ms",
    }
    assert 0 <= second["policy_timing"]["infer_ms"] <= second["server_timing"]["infer_ms"]
    assert healthy(port) and policy.seeds == [0, 1]
  assert "preset libero" in lines[0]


def test_clients_without_a_prompt_get_the_servers():
  policy, tasks = fake.Policy(), []
  infer = policy.infer
  policy.infer = lambda histories, **more: (
    tasks.extend(history[-1]["task"] for history in histories),
    infer(histories, **more),
  )[1]
  silent = fake.observation()
  del silent["prompt"]
  with fake.serving(policy, prompt="lift it") as (port, one, _), client.Client(port=port) as robot:
    assert robot.metadata["prompt"] == "lift it"
    robot.infer(silent)
    robot.infer(fake.observation(prompt="put it down"))
  assert tasks == ["lift it", "put it down"]


def test_a_policy_of_several_instructions_says_so_and_asks_for_one():
  policy = fake.Policy()
  policy.metadata |= {
    "instructions": {"count": 2, "empty": False, "examples": ["wave", "stack"]},
    "unused_cameras": ["side"],
  }
  with fake.serving(policy) as (port, one, lines), connect(port) as connection:
    assert one.metadata["keys"][-1] == one.metadata["instruction_key"] == "prompt" and one.metadata[
      "unused_cameras"
    ] == ["side"]
    assert "observation/state, prompt ->" in lines[0] and "does not look at: side" in lines[1]
    assert "no 'prompt'" in ask(connection, fake.observation(prompt=""))
    assert "actions" in ask(connection, fake.observation())


def test_concurrent_clients_share_batches_and_get_what_they_would_get_alone():
  policy = fake.Policy()
  with fake.serving(policy, batch_size=4, batch_wait_ms=5_000.0) as (port, _, _):
    connections = [connect(port) for _ in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
      for step in range(3):
        found = list(
          pool.map(
            lambda i, at=10.0 * step: ask(connections[i], fake.observation(i + at)), range(4)
          )
        )
        for i, reply in enumerate(found):
          np.testing.assert_allclose(reply["actions"][:, 0], expected(i + 10.0 * step), rtol=1e-6)
    assert policy.batches == [4, 4, 4]
    for one in connections:
      one.close()


def test_more_clients_than_a_batch_holds():
  policy = fake.Policy(delay=0.02)
  with (
    fake.serving(policy, batch_size=2, batch_wait_ms=20.0) as (port, _, _),
    concurrent.futures.ThreadPoolExecutor(5) as pool,
  ):

    def converse(i):
      with connect(port) as connection:
        return [ask(connection, fake.observation(float(i)))["actions"][0, 0] for _ in range(4)]

    for i, found in enumerate(pool.map(converse, range(5))):
      np.testing.assert_allclose(found, expected(float(i))[0], rtol=1e-6)
    assert max(policy.batches) == 2 and sum(policy.batches) == 20


def test_a_lone_client_does_not_wait_for_others(monkeypatch):
  async def converse(clients):
    one = batching.Batcher(fake.Policy(), batch_size=4, wait_seconds=5.0, clients=lambda: clients)
    running = asyncio.create_task(one.run())
    answer = await one.submit(
      [
        {
          "observation.state": np.ones(8),
          "observation.images.front": np.full((8, 8, 3), 100, np.uint8),
        }
      ],
      seed=0,
    )
    running.cancel()
    one.close()
    return answer.actions

  waits = []

  async def gave_up(waiting, seconds):
    waiting.close()
    waits.append(seconds)
    raise TimeoutError

  monkeypatch.setattr(batching.asyncio, "wait_for", gave_up)
  assert asyncio.run(converse(1))[0, 0] == pytest.approx(expected(1.0)[0]) and not waits
  assert asyncio.run(converse(2)).shape == (4, 7) and waits == [5.0]


def test_one_refused_observation_does_not_fail_the_batch():
  policy = fake.Policy()
  with (
    fake.serving(policy, batch_size=3, batch_wait_ms=5_000.0) as (port, _, _),
    concurrent.futures.ThreadPoolExecutor(3) as pool,
  ):
    connections = [connect(port) for _ in range(3)]
    found = list(
      pool.map(lambda i: ask(connections[i], fake.observation((1.0, 666.0, 3.0)[i])), range(3))
    )
    assert found[1] == "error: the number of the beast"
    for i, state in ((0, 1.0), (2, 3.0)):
      np.testing.assert_allclose(found[i]["actions"][:, 0], expected(state), rtol=1e-6)
    assert policy.batches == [3, 1, 1, 1]
    for one in connections:
      one.close()


def test_history_is_the_connections_own():
  with fake.serving(fake.Policy(history=2)) as (port, _, _), connect(port) as a, connect(port) as b:

    def first(connection, state, **more):
      return float(ask(connection, {**fake.observation(state), **more})["actions"][0, 0])

    assert first(a, 1.0) == pytest.approx(expected(1.0)[0])
    assert first(b, 7.0) == pytest.approx(expected(7.0)[0])
    assert first(a, 2.0) == pytest.approx(expected(2.0, frames=2, oldest=1.0)[0])
    assert first(a, 3.0) == pytest.approx(expected(3.0, frames=2, oldest=2.0)[0])
    assert "beast" in ask(a, fake.observation(666.0))  # refused: it does not stay
    assert first(a, 4.0) == pytest.approx(expected(4.0, frames=2, oldest=3.0)[0])
    assert first(a, 5.0, reset=True) == pytest.approx(expected(5.0)[0])
    assert first(a, 6.0, reset=False) == pytest.approx(expected(6.0, frames=2, oldest=5.0)[0])
    assert first(b, 8.0) == pytest.approx(expected(8.0, frames=2, oldest=7.0)[0])


def test_slow_inference_blocks_neither_pings_nor_health():
  policy = fake.Policy()
  with fake.serving(policy) as (port, _, _), connect(port) as busy, connect(port) as other:
    policy.gate.clear()  # inference goes on until it is opened
    try:
      busy.send(codec.pack(fake.observation()))
      assert limits.wait_until(lambda: policy.batches)
      for connection in (busy, other):
        assert connection.ping().wait(limits.SAFETY_NET)
      assert healthy(port)
      with pytest.raises(TimeoutError):
        busy.recv(timeout=0)
    finally:
      policy.gate.set()
    assert not isinstance(busy.recv(timeout=limits.SAFETY_NET), str)


def test_it_listens_only_when_warm():
  policy = fake.Policy(delay=0.5)
  with fake.serving(policy) as (port, _, _):
    assert policy.warm
    # Found before the warm-up.
    with (
      pytest.raises(errors.UserError, match=f"config.port={port}: Address already in use"),
      fake.serving(fake.Policy(delay=limits.SAFETY_NET), port=port),
    ):
      pass


def test_shutdown_answers_what_is_in_flight():
  policy = fake.Policy()
  with fake.serving(policy) as (port, _, _):
    policy.delay = 0.5
    busy, idle = connect(port), connect(port)
    ask(idle, fake.observation())
    policy.batches.clear()
    busy.send(codec.pack(fake.observation()))
    assert limits.wait_until(lambda: policy.batches)
  assert not isinstance(busy.recv(timeout=limits.SAFETY_NET), str)
  for connection in (busy, idle):
    with pytest.raises(websockets.ConnectionClosed) as closed:
      connection.recv(timeout=limits.SAFETY_NET)
    assert closed.value.rcvd.code == 1001


def test_sigterm_ends_the_process_with_code_0():
  code = (
    "from tests.serve import fake\nfrom como_jax.serve import server\n"
    "server.Server(fake.Policy(), server.Settings(port=0, preset='libero')).run()\nprint('done')"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  try:
    line = process.stdout.readline()
    with client.Client("127.0.0.1", int(line.split("ws://127.0.0.1:")[1].split()[0])) as one:
      assert one.infer(fake.observation())["actions"].shape == (4, 7)
      process.send_signal(signal.SIGTERM)
      assert process.wait(limits.SAFETY_NET) == 0
    assert process.stdout.read().splitlines()[-1] == "done"
  finally:
    process.kill()
    process.stdout.close()
