"""The server against bad messages and rude connections: the network is real."""

import pathlib
import socket
import time

import numpy as np
import pytest
import websockets

from como_jax.serve import codec
from tests import limits
from tests.serve import fake, payloads
from tests.serve.conversation import ask, connect, expected, healthy, resident

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_bad_messages_concern_only_their_sender_and_take_no_memory():
  with (
    fake.serving(fake.Policy(), max_bad_messages=1000) as (port, _, _),
    connect(port) as bad,
    connect(port) as good,
  ):
    ask(bad, fake.observation())
    for name, (frame, part) in payloads.BAD.items():
      reply = ask(bad, frame)
      assert isinstance(reply, str) and reply.startswith("error: ") and len(reply) < 320, name
      assert part in reply and "Traceback" not in reply and "\n" not in reply, (name, reply)
    large = payloads.image(payloads.array(data=bytes(8 * 2**20)))
    ask(bad, large)
    held = resident()
    for _ in range(40):
      assert "8388608 bytes of data" in ask(bad, large)
      assert "elements" in ask(bad, payloads.BAD["many elements"][0])
    assert resident() - held < 100 * 2**20
    for connection in (bad, good):
      np.testing.assert_allclose(
        ask(connection, fake.observation(3.0))["actions"][:, 0], expected(3.0), rtol=1e-6
      )


def test_many_bad_messages_in_a_row_close_the_connection():
  with fake.serving(fake.Policy(), max_bad_messages=3) as (port, _, lines):
    with connect(port) as connection:
      for _ in range(2):
        for _ in range(2):
          assert "error" in ask(connection, b"junk")
        assert "actions" in ask(connection, fake.observation())  # begins to count anew
      for _ in range(3):
        ask(connection, b"junk")
      with pytest.raises(websockets.ConnectionClosed) as closed:
        connection.recv(timeout=limits.SAFETY_NET)
      assert closed.value.rcvd.code == 1008
    assert limits.wait_until(lambda: "last error: message is not valid msgpack" in lines[-1])
    with connect(port) as connection:
      assert "actions" in ask(connection, fake.observation())


def test_a_frame_that_is_too_large_closes_the_connection():
  with fake.serving(fake.Policy(), max_frame_bytes=100_000) as (port, _, _), connect(port) as good:
    with connect(port) as bad, pytest.raises(websockets.ConnectionClosed) as closed:
      bad.send(bytes(100_001))
      bad.recv(timeout=limits.SAFETY_NET)
    assert closed.value.rcvd.code == 1009
    with connect(port) as bad, pytest.raises(websockets.ConnectionClosed) as closed:  # in pieces
      bad.send(bytes(1000) for _ in range(101))
      bad.recv(timeout=limits.SAFETY_NET)
    assert closed.value.rcvd.code == 1009
    assert "actions" in ask(good, fake.observation())


def test_a_header_that_claims_a_gigabyte_takes_no_memory():
  with fake.serving(fake.Policy()) as (port, _, _):
    before = resident()
    rude = [connect(port) for _ in range(5)]
    for one in rude:
      one.socket.sendall(b"\x82\xff" + (2**30).to_bytes(8, "big") + b"mask" + bytes(100))
    time.sleep(0.2)
    assert resident() - before < 50 * 2**20
    with connect(port) as good:
      assert "actions" in ask(good, fake.observation())
    for one in rude:
      one.socket.close()


def test_a_failing_policy_tells_no_more_than_its_kind(capsys):
  policy = fake.Policy()
  with fake.serving(policy) as (port, _, _), connect(port) as connection:
    for failure in (RuntimeError("/secret/path"), KeyError("secret"), MemoryError()):
      policy.fail = failure
      assert (
        ask(connection, fake.observation())
        == f"error: inference failed ({type(failure).__name__}); the server's log says why"
      )
    policy.fail = None
    for number in (np.nan, np.inf):
      policy.infer = lambda histories, *, seed, number=number: np.full((1, 4, 7), number)
      assert "NonFinite" in ask(connection, fake.observation())
    policy.infer = lambda histories, *, seed: np.zeros((1, 3, 7))
    assert "inference failed" in ask(connection, fake.observation())
    del policy.infer
    assert "actions" in ask(connection, fake.observation())
  assert "/secret/path" in capsys.readouterr().err


def test_clients_that_leave_in_the_middle():
  policy = fake.Policy(delay=0.2)
  with fake.serving(policy) as (port, one, _):
    for _ in range(5):
      connection = connect(port)
      connection.send(codec.pack(fake.observation()))
      connection.socket.close()
    with connect(port) as connection:
      assert "actions" in ask(connection, fake.observation())
    assert limits.wait_until(lambda: not one._connections and not one._busy)


def test_a_hundred_connections_and_the_limit():
  with fake.serving(fake.Policy(), max_connections=100, batch_size=50) as (port, one, _):
    connections = [connect(port) for _ in range(100)]
    with pytest.raises(websockets.InvalidStatus) as refused:
      connect(port)
    assert refused.value.response.status_code == 503 and healthy(port)
    for connection in connections:
      connection.send(codec.pack(fake.observation()))
    assert all(
      not isinstance(connection.recv(timeout=limits.SAFETY_NET), str) for connection in connections
    )
    connections.pop().close()
    assert limits.wait_until(lambda: len(one._connections) == 99)
    connections.append(connect(port))
    for connection in connections:
      connection.close()


def test_half_messages_and_half_handshakes_keep_nobody_waiting():
  with fake.serving(fake.Policy()) as (port, _, _):
    loris = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for one in loris:
      one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
    half = [connect(port) for _ in range(5)]
    for one in half:
      one.socket.sendall(b"\x82\xfe\x10\x00mask" + bytes(10))  # 10 of 4096 bytes
    with connect(port) as good:
      assert "actions" in ask(good, fake.observation())
    assert healthy(port)
    for one in loris + [connection.socket for connection in half]:
      one.close()


def test_web_pages_may_not_connect():
  with (
    fake.serving(fake.Policy()) as (port, _, _),
    pytest.raises(websockets.InvalidStatus) as refused,
  ):
    connect(port, origin="https://example.org")
  assert refused.value.response.status_code == 403
