"""Processes that meet, do not come, or do not belong to the run."""

import socket
import threading

import pytest

from como_jax import errors
from como_jax.parallel import rendezvous
from tests import limits


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
    except (errors.UserError, errors.TransientError) as error:
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
    "TransientError 2 of 4 processes did not come to localhost"
  ) and outcomes[0].endswith("missing 1, 3")
  assert outcomes[1] == outcomes[0]


def test_a_missing_first_process_is_named():
  assert meet(2, [1], seconds=0.3)[0].startswith(
    "TransientError process 1 of 2 found no process 0 at localhost"
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
