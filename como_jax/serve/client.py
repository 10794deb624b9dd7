"""The robot's side: numpy, msgpack and websockets, no jax.

Works with any server of openpi's protocol.

    with client.Client("gpu-box", 8000) as policy:
      play = player.Player(policy, player.ChunkQueue(policy.metadata["chunk"]))
      while running:
        # one action per policy step; the next chunk is requested while this one is played
        robot.act(play(observe()))
"""

from __future__ import annotations  # Python 3.8: this file is in client/ too

import time
from collections.abc import Mapping
from typing import Any

import websockets
from websockets.sync import client as websocket_client

from como_jax import errors
from como_jax.serve import codec

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts to connect


class ServerError(RuntimeError):
  """The server answered with an error, which is the message; the connection stays open."""


class Client:
  """A connection to a policy server, for one request at a time from one thread.

  Attributes:
    metadata: sent by the server at connect: chunk, action_names, keys, step_seconds, ...
  """

  def __init__(
    self,
    host: str = "127.0.0.1",
    port: int | None = 8000,
    *,
    connect_seconds: float = 60.0,
    answer_seconds: float = 60.0,
    api_key: str = "",
  ):
    """Connects; retries with growing pauses while the server is not up or is full.

    Args:
      host: name, address, or a whole ws:// or wss:// address.
      port: None = `host` contains the port.
      connect_seconds: time limit for connecting.
      answer_seconds: time limit for one answer.
      api_key: sent as openpi's clients do. Our server needs none; a proxy in front of it may.

    Raises:
      ConnectionError: no server within that time.
      errors.UserError: the peer is not a policy server.
    """
    self._address = (host if host.startswith(("ws://", "wss://")) else f"ws://{host}") + (
      f":{port}" if port is not None else ""
    )
    self._connect_seconds, self._answer_seconds = connect_seconds, answer_seconds
    self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
    self._reset = False
    self._connect()

  def __enter__(self) -> Client:
    return self

  def __exit__(self, *unused: Any) -> None:
    self.close()

  def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
    """Sends an observation and returns the server's reply.

    After a lost connection, the client connects again and sends the observation once more. The
    history on the server then contains only this observation.

    Args:
      observation: keys and values of the server's preset (`metadata["keys"]`).

    Returns:
      {"actions": [K, A], "server_timing": ..., "policy_timing": ...}.

    Raises:
      ServerError: the server refuses the observation.
      ConnectionError: no server, or no answer in time.
      errors.UserError: the observation cannot be encoded, or the answer cannot be decoded.
    """
    data = codec.pack({**observation, "reset": True} if self._reset else dict(observation))
    try:
      reply = self._request(data)
    except websockets.ConnectionClosed as error:
      # the server rejected the message, so sending it again cannot help
      if error.rcvd is not None and error.rcvd.code in (1008, 1009):
        raise ConnectionError(
          f"{self._address} closed the connection: {error.rcvd.reason or error.rcvd.code}"
        ) from error
      self._connect()
      try:
        reply = self._request(data)
      except websockets.ConnectionClosed as second_error:
        raise ConnectionError(
          f"{self._address} closed the connection twice on one observation"
        ) from second_error
    if isinstance(reply, str):
      raise ServerError(reply)
    self._reset = False
    return codec.unpack(reply)

  def reset(self) -> None:
    """Starts a new episode: the next observation begins a new history."""
    self._reset = True

  def close(self) -> None:
    """Closes the connection."""
    self._connection.close()

  def _request(self, data: bytes) -> bytes | str:
    try:
      self._connection.send(data)
      return self._connection.recv(timeout=self._answer_seconds)
    except TimeoutError as error:
      self._connection.close()  # a late answer must not be used for the next request
      raise ConnectionError(
        f"{self._address} gave no answer in {self._answer_seconds:g} s"
      ) from error

  def _connect(self) -> None:
    end, pause = time.monotonic() + self._connect_seconds, FIRST_PAUSE
    while True:
      try:
        self._connection = websocket_client.connect(
          self._address,
          compression=None,
          max_size=codec.Limits().size,
          additional_headers=self._headers,
          open_timeout=self._answer_seconds,
        )
        try:
          greeting = self._connection.recv(timeout=self._answer_seconds)
          break
        except BaseException:
          self._connection.close()
          raise
      except websockets.InvalidURI as error:
        raise errors.UserError(
          f"{self._address!r} is no address of a policy server: {error}"
        ) from error
      except (OSError, websockets.InvalidHandshake, websockets.ConnectionClosed) as error:
        # a timeout is an OSError
        if time.monotonic() + pause > end:
          raise ConnectionError(
            f"no policy server at {self._address} in {self._connect_seconds:g} s: {error}"
          ) from error
      time.sleep(pause)
      pause = min(LONGEST_PAUSE, 2 * pause)
    self.metadata = codec.unpack(greeting)
    if not isinstance(self.metadata, dict):
      self._connection.close()
      raise errors.UserError(
        f"{self._address} is no policy server: its first message is a "
        f"{type(self.metadata).__name__}"
      )
