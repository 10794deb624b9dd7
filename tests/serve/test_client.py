"""The robot's side of the connection."""

import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import websockets
from websockets import frames

from como_jax import errors
from como_jax.serve import client, codec, player
from tests import limits
from tests.serve import fake, test_server


def test_it_needs_no_jax():
  code = (
    "import sys\nimport como_jax.serve.client, como_jax.serve.player, como_jax.chunks, "
    "como_jax.serve.codec\nheavy = {'jax', 'jaxlib', 'flax', 'grain', 'ml_collections', 'av', "
    "'PIL'} & set(sys.modules)\nassert not heavy, heavy"
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=test_server.ROOT)


def test_it_asks_and_resets():
  with fake.serving(fake.Policy(history=2)) as (port, _, _), client.Client(port=port) as one:
    assert one.metadata["robot"] == "fake"
    assert one.infer(fake.observation(1.0))["actions"][0, 0] == pytest.approx(
      test_server.expected(1.0)[0]
    )
    assert one.infer(fake.observation(2.0))["actions"][0, 0] == pytest.approx(
      test_server.expected(2.0, frames=2, oldest=1.0)[0]
    )
    one.reset()
    assert one.infer(fake.observation(3.0))["actions"][0, 0] == pytest.approx(
      test_server.expected(3.0)[0]
    )
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
  thread = threading.Thread(
    target=lambda: found.append(client.Client(port=port, connect_seconds=limits.SAFETY_NET))
  )
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
  with (
    fake.serving(fake.Policy(), max_frame_bytes=10_000) as (port, _, _),
    client.Client(port=port) as one,
    pytest.raises(ConnectionError, match="closed the connection"),
  ):
    one.infer(fake.observation(size=200))


def test_an_answer_that_does_not_come():
  policy = fake.Policy()
  with fake.serving(policy) as (port, _, _), client.Client(port=port, answer_seconds=0.3) as one:
    policy.delay = 1.0
    with pytest.raises(ConnectionError, match="no answer in 0.3 s"):
      one.infer(fake.observation())
    policy.delay = 0.0
    time.sleep(1.0)
    # not the late one
    assert one.infer(fake.observation(5.0))["actions"][0, 0] == pytest.approx(
      test_server.expected(5.0)[0]
    )


def test_what_is_no_server():
  with pytest.raises(errors.UserError, match="no address"):
    client.Client("ws://", None, connect_seconds=0.1)


def test_a_player_over_the_network():
  with fake.serving(fake.Policy(action_horizon=8)) as (port, _, _), client.Client(port=port) as one:
    play = player.Player(
      one, player.ChunkQueue(one.metadata["chunk"]), state_key="observation/state"
    )
    actions = np.stack([play(fake.observation(1.0)) for _ in range(20)])
    play.close()
  assert actions.shape == (20, 7) and np.isfinite(actions).all()


class Connection:
  """The library's side, by hand: gives the greeting and then its replies; an exception among them
  is raised.
  """

  def __init__(self, *replies, greeting=None):
    self.sent, self.timeouts, self.closed = [], [], 0
    self._replies = [{"robot": "scripted"} if greeting is None else greeting, *replies]

  def send(self, data):
    self.sent.append(codec.unpack(data))

  def recv(self, *, timeout):
    self.timeouts.append(timeout)
    reply = self._replies.pop(0)
    if isinstance(reply, Exception):
      raise reply
    return reply if isinstance(reply, str) else codec.pack(reply)

  def close(self):
    self.closed += 1


def closed(code=None, reason=""):
  return websockets.ConnectionClosedError(
    None if code is None else frames.Close(code, reason), None
  )


@pytest.fixture
def network(monkeypatch):
  """connect(...) gives what the test has put into `connections`, in order; `asked` lists its
  arguments, `slept` the pauses.
  """
  found = types.SimpleNamespace(connections=[], asked=[], slept=[])

  def connect(address, **more):
    found.asked.append((address, more))
    one = found.connections.pop(0)
    if isinstance(one, Exception):
      raise one
    return one

  monkeypatch.setattr(client, "websocket_client", types.SimpleNamespace(connect=connect))
  monkeypatch.setattr(
    client,
    "time",
    types.SimpleNamespace(monotonic=lambda: sum(found.slept), sleep=found.slept.append),
  )
  return found


def test_what_is_asked_of_the_library(network):
  network.connections = [one, _, _] = [Connection(), Connection(), Connection()]
  with client.Client() as robot:
    assert robot.metadata == {"robot": "scripted"} and not one.closed
  assert one.closed == 1 and one.timeouts == [60.0]
  client.Client("wss://cloud/policy", None, answer_seconds=3.0, api_key="secret")
  client.Client("ws://box", 9)
  plain = {"compression": None, "max_size": 2**25, "additional_headers": None, "open_timeout": 60.0}
  assert network.asked == [
    ("ws://127.0.0.1:8000", plain),
    (
      "wss://cloud/policy",
      {**plain, "additional_headers": {"Authorization": "Api-Key secret"}, "open_timeout": 3.0},
    ),
    ("ws://box:9", plain),
  ]


def test_pauses_grow_until_the_time_is_up(network):
  network.connections = [OSError("refused")] * 100
  with pytest.raises(ConnectionError, match="^no policy server at ws://box:1 in 9 s: refused$"):
    client.Client("box", 1, connect_seconds=9.0)
  assert network.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0], "another 2 s would be too long"
  network.slept.clear()
  with pytest.raises(
    ConnectionError, match="^no policy server at ws://127.0.0.1:8000 in 60 s: refused$"
  ):
    client.Client()
  assert len(network.slept) == 33 and sum(network.slept) == pytest.approx(59.1)
  network.slept.clear()
  with pytest.raises(ConnectionError):
    client.Client(connect_seconds=0.1)
  assert network.slept == [0.1], "the whole time is used"


def test_a_connection_without_a_greeting_is_closed_and_another_one_made(network):
  network.connections = [silent, refusing, good] = [
    Connection(greeting=TimeoutError()),
    Connection(greeting=closed(1013)),
    Connection(),
  ]
  client.Client()
  assert (silent.closed, refusing.closed, good.closed) == (1, 1, 0) and network.slept == [0.1, 0.2]
  network.slept.clear()
  network.connections = [Connection(greeting=TimeoutError("silent")) for _ in range(2)]
  with pytest.raises(
    ConnectionError, match="^no policy server at ws://127.0.0.1:8000 in 0.1 s: silent$"
  ):
    client.Client(connect_seconds=0.1)


def test_what_greets_otherwise_is_no_policy_server(network):
  network.connections = [other] = [Connection(greeting=[1])]
  with pytest.raises(
    errors.UserError, match="^ws://127.0.0.1:8000 is no policy server: its first message is a list$"
  ):
    client.Client()
  assert other.closed == 1
  network.connections = [websockets.InvalidURI("ws://", "no host")]
  with pytest.raises(
    errors.UserError,
    match="^'ws://' is no address of a policy server: ws:// isn't a valid URI: no host$",
  ):
    client.Client("ws://", None)


def test_a_reset_is_repeated_until_it_is_answered(network):
  network.connections = [one] = [Connection({}, "error: no", {}, {})]
  robot = client.Client()
  robot.infer({"number": 1})
  robot.reset()
  with pytest.raises(client.ServerError, match="^error: no$"):
    robot.infer({"number": 2})
  robot.infer({"number": 3})
  assert robot.infer({"number": 4}) == {}
  assert one.sent == [
    {"number": 1},
    {"number": 2, "reset": True},
    {"number": 3, "reset": True},
    {"number": 4},
  ]


def test_an_observation_is_sent_once_more_over_a_new_connection(network):
  network.connections = [lost, new, dead] = [
    Connection(closed()),
    Connection({"answer": 1}, closed(1001)),
    Connection(closed(1011)),
  ]
  robot = client.Client()
  assert robot.infer({"number": 1}) == {"answer": 1} and lost.sent == new.sent == [{"number": 1}]
  with pytest.raises(
    ConnectionError, match="^ws://127.0.0.1:8000 closed the connection twice on one observation$"
  ):
    robot.infer({"number": 2})
  assert dead.sent == [{"number": 2}] and len(network.asked) == 3


@pytest.mark.parametrize(
  "code, reason, said", [(1008, "3 bad messages", "3 bad messages"), (1009, "", "1009")]
)
def test_what_the_server_did_not_like_is_not_sent_again(network, code, reason, said):
  network.connections = [Connection(closed(code, reason))]
  with pytest.raises(ConnectionError, match=f"^ws://127.0.0.1:8000 closed the connection: {said}$"):
    client.Client().infer({})


def test_a_connection_with_an_answer_to_come_is_closed(network):
  network.connections = [one] = [Connection(TimeoutError())]
  robot = client.Client(answer_seconds=7.0)
  with pytest.raises(ConnectionError, match="^ws://127.0.0.1:8000 gave no answer in 7 s$"):
    robot.infer({})
  assert one.closed == 1 and one.timeouts == [7.0, 7.0]
