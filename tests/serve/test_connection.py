"""What the server does with one connection, and how it begins and ends: connections by hand where
no network is needed.
"""

import asyncio
import logging
import os
import re
import signal
import socket
import threading
import types
import urllib.request

import pytest
import websockets
from websockets.sync import client as websocket_client

from como_jax.serve import batching, codec, listening, server
from tests import limits
from tests.serve import fake, test_server


class Connection:
  """A client that sends its frames and leaves."""

  def __init__(self, *frames, address=("10.0.0.7", 5000)):
    self.remote_address, self.sent, self.closed = address, [], []
    self._frames = [frame if isinstance(frame, bytes) else codec.pack(frame) for frame in frames]

  async def recv(self):
    if not self._frames:
      raise websockets.ConnectionClosedOK(None, None)
    return self._frames.pop(0)

  async def send(self, data):
    self.sent.append(data if isinstance(data, str) else codec.unpack(data))

  async def close(self, code, reason):
    self.closed.append((code, reason))


def converse(connection, *, policy=None, stopping=False, others=0, **settings):
  """(server, the lines it said) after a connection has ended."""
  lines = []

  async def main():
    one = server.Server(
      policy or fake.Policy(), server.Settings(**{"preset": "libero", **settings}), log=lines.append
    )
    one._stopping, one._batcher = (
      stopping,
      batching.Batcher(one._policy, batch_size=1, wait_seconds=0.0, clients=lambda: 1),
    )
    one._connections |= {object() for _ in range(others)}
    running = asyncio.create_task(one._batcher.run())
    await one._client(connection)
    running.cancel()
    one._batcher.close()
    return one

  return asyncio.run(main()), lines


GOOD, REFUSED = fake.observation(1.0), fake.observation(666.0)


def test_what_cannot_be_read_and_what_the_policy_refuses_count_until_an_answer():
  closed = Connection(b"\x92\x01", GOOD, REFUSED, b"\x92\x01", b"\x92\x01", GOOD)
  one, lines = converse(closed, max_bad_messages=3)
  incomplete, beast = (
    "error: message is not valid msgpack: Unpack failed: incomplete input",
    "error: the number of the beast",
  )
  assert closed.sent[:2] + closed.sent[3:] == [
    one.metadata,
    incomplete,
    beast,
    incomplete,
    incomplete,
  ]
  assert set(closed.sent[2]) == {"actions", "server_timing", "policy_timing"} and closed.closed == [
    (1008, "3 bad messages in a row")
  ]
  assert lines == [
    "client 10.0.0.7:5000 connected (1 of 16)",
    (
      "client 10.0.0.7:5000 left after 1 answers, last error: message is not valid msgpack: "
      "Unpack failed: incomplete input"
    ),
  ]
  assert not one._connections and not one._busy
  fine = Connection(b"\x92\x01", REFUSED, GOOD, REFUSED, b"\x92\x01", GOOD)
  _, lines = converse(fine, max_bad_messages=3, others=1, max_connections=2)
  assert [type(one) for one in fine.sent] == [
    dict,
    str,
    str,
    dict,
    str,
    str,
    dict,
  ] and fine.closed == []
  assert lines[0] == "client 10.0.0.7:5000 connected (2 of 2)" and lines[1].startswith(
    "client 10.0.0.7:5000 left after 2 answers, last"
  )


def test_a_failure_of_the_policy_is_not_the_clients(capsys):
  policy = fake.Policy()
  policy.fail = RuntimeError("out of order")
  connection = Connection(GOOD, GOOD, GOOD)
  one, lines = converse(connection, policy=policy, max_bad_messages=1)
  said = "inference failed (RuntimeError); the server's log says why"
  assert connection.sent[1:] == ["error: " + said] * 3 and connection.closed == []
  assert lines[-1] == f"client 10.0.0.7:5000 left after 0 answers, last error: {said}"
  assert capsys.readouterr().err.count("RuntimeError: out of order\n") == 3


def test_seeds_count_answers_and_history_holds_what_was_answered():
  policy = fake.Policy(history=2)
  reset = {**fake.observation(5.0), "reset": True}
  connection = Connection(GOOD, REFUSED, fake.observation(2.0), fake.observation(3.0), reset)
  _, lines = converse(connection, policy=policy, seed=7)
  assert policy.seeds == [7, 8, 8, 9, 10]
  found = [reply["actions"][0, 0] for reply in connection.sent[1:] if isinstance(reply, dict)]
  assert found == pytest.approx([111.1, 122.1, 223.1, 515.1])
  assert lines[-1].startswith("client 10.0.0.7:5000 left after 4 answers")


def test_times_are_milliseconds(monkeypatch):
  clock = iter(range(100))
  for module in (server, batching):
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
  connection = Connection(GOOD, GOOD, GOOD)
  converse(connection)
  # A message is read at 0, its request made at 1, the policy called at 2, it has answered at 3,
  # handed on at 4, sent at 5; then from 6.
  timing = [(reply["policy_timing"], reply["server_timing"]) for reply in connection.sent[1:]]
  policy, once = {"infer_ms": 1000.0}, {"infer_ms": 3000.0}
  assert timing == [
    (policy, once),
    (policy, {**once, "prev_total_ms": 5000.0}),
    (policy, {**once, "prev_total_ms": 5000.0}),
  ]


def test_cameras_that_are_not_looked_at_may_be_sent_under_our_own_names():
  policy = fake.Policy(cameras=("front",))
  policy.metadata["unused_cameras"] = ["side"]
  image = GOOD["observation/image"]
  connection = Connection(
    {
      "observation.images.front": image,
      "observation.images.side": image,
      "observation.state": [1.0] * 8,
    }
  )
  one, _ = converse(connection, policy=policy, preset="como")
  assert connection.sent[1]["actions"][0, 0] == pytest.approx(111.1) and one.metadata[
    "camera_keys"
  ] == {"observation.images.front": "front"}


@pytest.mark.parametrize("address, name", [(("::1", 5000, 0, 0), "::1:5000"), (None, "?:0")])
def test_clients_of_other_networks_have_names(address, name):
  _, lines = converse(Connection(GOOD, address=address))
  assert lines == [f"client {name} connected (1 of 16)", f"client {name} left after 1 answers"]


def test_one_too_many_is_told_so():
  connection = Connection(GOOD)
  _, lines = converse(connection, others=2, max_connections=2)
  assert connection.closed == [(1013, "too many clients")] and connection.sent == [] and lines == []


def test_a_client_that_comes_while_the_server_ends_is_told_so():
  connection = Connection(GOOD)
  one, _ = converse(connection, stopping=True)
  assert connection.closed == [(1001, "server is shutting down")] and connection.sent == [
    one.metadata
  ]


def test_what_is_unanswered_after_ten_seconds_is_dropped(monkeypatch):
  async def main():
    one = server.Server(fake.Policy(), server.Settings(preset="libero"), log=lines.append)
    idle, stuck, busy = Connection(), Connection(), Connection()

    async def broken(code, reason):
      raise OSError("gone")

    stuck.close, busy.transport = broken, types.SimpleNamespace(abort=lambda: aborted.append(busy))
    one._connections, one._busy = {idle, stuck, busy}, {busy}

    async def closing():
      pass

    async def wait_for(waiting, seconds):
      waiting.close()
      waits.append(seconds)
      if len(waits) == 2:
        one._connections = {busy}
        raise TimeoutError

    monkeypatch.setattr(
      server, "asyncio", types.SimpleNamespace(**{**vars(asyncio), "wait_for": wait_for})
    )
    sockets = types.SimpleNamespace(close=lambda **how: closes.append(how), wait_closed=closing)
    for _ in range(2):
      await one._shut_down(sockets)
    assert (
      one._stopping and idle.closed == [(1001, "server is shutting down")] * 2 and busy.closed == []
    )

  lines, waits, aborted, closes = [], [], [], []
  asyncio.run(main())
  assert (
    waits == [10.0, 10.0] and closes == [{"close_connections": False}] * 2 and len(aborted) == 1
  )
  assert lines == ["1 request(s) unanswered after 10 s are dropped"]


def test_health_is_answered_with_a_query_too_and_one_too_many_hears_the_number():
  with fake.serving(fake.Policy(), max_connections=1) as (port, one, lines):
    with urllib.request.urlopen(
      f"http://127.0.0.1:{port}/healthz?probe=1", timeout=limits.SAFETY_NET
    ) as answer:
      assert answer.read() == b"OK\n"
    with test_server.connect(port), pytest.raises(websockets.InvalidStatus) as refused:
      test_server.connect(port)
    assert refused.value.response.body == b"1 clients, no more are served\n"
  assert re.fullmatch(
    rf"serving on ws://127\.0\.0\.1:{port} after \d+\.\d s of warm-up: preset libero, keys "
    r"observation/image, observation/wrist_image, observation/state -> actions \[4, 7\]",
    lines[0],
  )


def test_the_library_is_told_to_be_silent_patient_and_plain(caplog):
  with fake.serving(fake.Policy()) as (port, one, _):
    with websocket_client.connect(f"ws://127.0.0.1:{port}") as connection:
      assert connection.response.headers.get("Sec-WebSocket-Extensions") is None, (
        "pictures are not compressed"
      )
      assert limits.wait_until(lambda: one._connections)
      (theirs,) = one._connections
      assert (theirs.ping_interval, theirs.ping_timeout) == (20.0, 60.0)
    with socket.create_connection(("127.0.0.1", port), timeout=limits.SAFETY_NET) as scanner:
      scanner.sendall(b"\x16\x03\x01 what is here?\r\n\r\n")
      while scanner.recv(4096):
        pass
  assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_signal_ends_it_in_order_and_the_next_one_at_once():
  handlers, lines = (
    {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)},
    [],
  )

  def say(line):
    lines.append(line)
    if line.startswith("serving"):
      os.kill(os.getpid(), signal.SIGTERM)

  try:
    server.Server(fake.Policy(), server.Settings(port=0, preset="libero"), log=say).run()
    assert lines[1:] == ["SIGTERM: finishing the requests in flight; once more ends at once"]
    assert [signal.getsignal(number) for number in handlers] == [signal.SIG_DFL] * 2
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)


def test_nothing_is_left_when_it_has_ended(monkeypatch):
  """Neither after an orderly end nor when the warm-up fails; the settings are those of the
  batches.
  """
  sockets, made, bind = [], [], listening.bind
  monkeypatch.setattr(
    listening, "bind", lambda host, port: sockets.append(bind(host, port)) or sockets[-1]
  )

  class Batcher(batching.Batcher):
    def __init__(self, policy, *, clients, **settings):
      made.append({**settings, "clients": clients()})
      super().__init__(policy, clients=clients, **settings)

  monkeypatch.setattr(server.batching, "Batcher", Batcher)

  async def main(policy):
    one, stop = (
      server.Server(policy, server.Settings(port=0, preset="libero"), log=lambda line: None),
      asyncio.Event(),
    )
    try:
      await one.serve(stop, started=lambda port: stop.set())
    finally:
      for _ in range(10):
        await asyncio.sleep(0)
      assert asyncio.all_tasks() == {asyncio.current_task()}

  threads = set(threading.enumerate())
  asyncio.run(main(fake.Policy()))
  broken = fake.Policy()
  broken.warm_up = lambda: 1 / 0
  with pytest.raises(ZeroDivisionError):
    asyncio.run(main(broken))
  assert [one.fileno() for one in sockets] == [-1, -1]
  assert made == [{"batch_size": 8, "wait_seconds": 0.005, "clients": 0}] * 2
  assert limits.wait_until(lambda: set(threading.enumerate()) <= threads)
