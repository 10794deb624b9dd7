"""A raw client of the server, and what it should hear."""

import pathlib
import urllib.request

import numpy as np
from websockets.sync import client as websocket_client

from como_jax.serve import codec
from tests import limits

ROOT = pathlib.Path(__file__).parent.parent.parent


def connect(port, **settings):
  """A raw connection, past the greeting."""
  connection = websocket_client.connect(
    f"ws://127.0.0.1:{port}", compression=None, max_size=None, **settings
  )
  codec.unpack(connection.recv(timeout=limits.SAFETY_NET))
  return connection


def ask(connection, message):
  """The decoded reply, or the text of an error."""
  connection.send(codec.pack(message) if isinstance(message, dict) else message)
  reply = connection.recv(timeout=limits.SAFETY_NET)
  return reply if isinstance(reply, str) else codec.unpack(reply)


def expected(state, *, frames=1, oldest=None):
  return state + 10 * frames + 100 * (state if oldest is None else oldest) + 0.1 + np.arange(4)


def resident():
  """Bytes of memory this process holds."""
  return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


def healthy(port):
  with urllib.request.urlopen(
    f"http://127.0.0.1:{port}/healthz", timeout=limits.SAFETY_NET
  ) as answer:
    return answer.status == 200 and answer.read() == b"OK\n"
