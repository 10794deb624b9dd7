"""The socket and the log of the policy server."""

import logging
import socket

import pytest

from como_jax import errors
from como_jax.serve import listening


def test_addresses(monkeypatch):
  found = []

  class Socket(socket.socket):
    def __init__(self, *arguments):
      super().__init__(*arguments)
      found.append(self)

  monkeypatch.setattr(listening.socket, "socket", Socket)
  with listening.bind("127.0.0.1", 0) as bound, listening.bind("", 0) as everywhere:
    assert bound.getsockname()[0] == "127.0.0.1" and bound.type == socket.SOCK_STREAM
    assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert everywhere.getsockname()[0] in ("0.0.0.0", "::")
    port = bound.getsockname()[1]
    bound.listen()
    with pytest.raises(
      errors.UserError,
      match=f"^config.host='127.0.0.1', config.port={port}: Address already in use$",
    ):
      listening.bind("127.0.0.1", port)
    assert [one.fileno() == -1 for one in found] == [False, False, True]

  def no_name(*unused, **more):
    raise socket.gaierror(-2, "Name or service not known")

  monkeypatch.setattr(listening.socket, "getaddrinfo", no_name)
  with pytest.raises(errors.UserError, match="^config.host='robot': Name or service not known$"):
    listening.bind("robot", 0)


def test_the_first_address_of_a_name_is_taken(monkeypatch):
  asked = []

  def resolve(host, port, **more):
    asked.append((host, port, more))
    return [
      (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
      for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    ]

  monkeypatch.setattr(listening.socket, "getaddrinfo", resolve)
  with listening.bind("robot", 0) as bound:
    assert bound.getsockname()[0] == "127.0.0.2"
  assert asked == [("robot", 0, {"type": socket.SOCK_STREAM, "flags": socket.AI_PASSIVE})]


def test_the_librarys_own_log_is_silent():
  """It would write a traceback for every scanner that knocks."""
  logger = listening.silent()
  assert (
    isinstance(logger, logging.Logger)
    and not logger.isEnabledFor(logging.ERROR)
    and logger is not logging.getLogger()
  )
