"""Addresses from the environment, and processes that do not come.

Real processes: tests/end_to_end/test_processes.py.
"""

import socket
import threading

import jax
import numpy as np
import pytest

from como_jax import errors
from como_jax.parallel import distributed, mesh, rendezvous
from tests import limits


def test_processes_with_the_same_text_are_counted(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 3)
  asked = []

  def gather(mine):
    asked.append(mine)
    return np.stack([mine, mine ^ 1, mine])

  monkeypatch.setattr(distributed.multihost_utils, "process_allgather", gather)
  distributed.count_colocated.cache_clear()
  # later it asks nobody
  assert (
    distributed.count_colocated("host") == distributed.count_colocated("host") == 2
    and len(asked) == 1
  )
  distributed.count_colocated.cache_clear()


def free_port():
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return probe.getsockname()[1]


def meet(count, indices, *, seconds=limits.SAFETY_NET, counts=None, before=None):
  """Result of each process ("" or its error)."""
  port, outcomes = free_port(), {}

  def one(place, index):
    try:
      rendezvous.meet(
        "localhost", port, count=(counts or {}).get(place, count), index=index, seconds=seconds
      )
      outcomes[place] = ""
    except (errors.UserError, errors.Transient) as error:
      outcomes[place] = f"{type(error).__name__} {error}"

  threads = [
    threading.Thread(target=one, args=(place, index)) for place, index in enumerate(indices)
  ]
  for thread in threads:
    thread.start()
  if before:
    before(port)
  for thread in threads:
    thread.join(limits.SAFETY_NET)
  return outcomes


def test_all_come():
  assert meet(4, [0, 1, 2, 3]) == {0: "", 1: "", 2: "", 3: ""}


def test_missing_processes_are_named_everywhere():
  outcomes = meet(4, [0, 2], seconds=0.5)
  assert outcomes[0].startswith(
    "Transient 2 of 4 processes did not come to localhost"
  ) and outcomes[0].endswith("missing 1, 3")
  assert outcomes[1] == outcomes[0]


def test_a_missing_first_process_is_named():
  assert meet(2, [1], seconds=0.3)[0].startswith(
    "Transient process 1 of 2 found no process 0 at localhost"
  )


def test_two_with_one_number_and_two_counts_are_refused():
  assert set(meet(3, [0, 1, 1]).values()) == {
    "UserError two processes of the run call themselves 1"
  }
  assert set(meet(2, [0, 1], counts={1: 3}).values()) == {
    "UserError process 1 was told of 3 processes, process 0 of 2"
  }


def test_a_stranger_on_the_port_is_not_counted():
  def stranger(port):
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4000, b""):
      for _ in range(100):
        try:
          with socket.create_connection(
            ("localhost", port), timeout=limits.SAFETY_NET
          ) as connection:
            connection.sendall(words)
          break
        except OSError:
          pass

  assert meet(2, [0], seconds=1.0, before=stranger)[0].endswith("missing 1")


def test_a_taken_port_is_named():
  with (
    socket.create_server(("", 0)) as server,
    pytest.raises(errors.UserError, match="cannot listen on port"),
  ):
    rendezvous.meet("localhost", server.getsockname()[1], count=2, index=0, seconds=1)


def test_in_one_process_everything_is_plain():
  assert (
    distributed.run_on_all_processes(lambda: 3) == 3
    and distributed.is_primary()
    and distributed.broadcast_from_primary("ü") == "ü"
  )
  distributed.assert_same_on_all("a", what="x")
  with pytest.raises(errors.UserError, match="mine"):
    distributed.run_on_all_processes(lambda: (_ for _ in ()).throw(errors.UserError("mine")))
  exchange = distributed.AsyncAllGather(mesh.make(), count=2)
  assert exchange.alone
  np.testing.assert_array_equal(exchange.read(exchange.send(15, 0.5)), [[15, 0.5]])
  sharded = jax.device_put(np.arange(8.0), mesh.batch_sharding(mesh.make(data=8)))
  np.testing.assert_array_equal(distributed.gather({"x": sharded})["x"], np.arange(8.0))


@pytest.mark.parametrize(
  "text",
  [
    (
      "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error "
      "[127.0.0.1]:23696: Connection reset by peer"
    ),
    "UNAVAILABLE: Failed to send RPC to coordination service.",
    "DEADLINE_EXCEEDED: Barrier timed out. Id: como_jax/end",
  ],
)
def test_the_loss_of_another_process_asks_for_a_restart(monkeypatch, text):
  error = jax.errors.JaxRuntimeError(text + "\nmore")
  # A single process has nobody to lose.
  with pytest.raises(jax.errors.JaxRuntimeError), distributed.peers():
    raise error
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with (
    pytest.raises(
      errors.Transient, match="another process of the run is gone .*--resume"
    ) as caught,
    distributed.peers(),
  ):
    raise error
  assert "\n" not in str(caught.value) and caught.value.code == 75
  wrapped = ValueError("a save failed")
  wrapped.__cause__ = error
  assert distributed.lost_process(wrapped)
  for own in (
    ValueError("shapes differ"),
    jax.errors.JaxRuntimeError("INVALID_ARGUMENT: else"),
    errors.UserError("Connection refused"),
  ):
    with pytest.raises(type(own)) as caught, distributed.peers():
      raise own
    assert caught.value is own
