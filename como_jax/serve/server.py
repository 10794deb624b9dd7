"""A policy behind a websocket, in openpi's protocol: its clients (LIBERO, DROID, ALOHA scripts)
work unchanged.

1. At connect the server sends one binary frame: msgpack of the metadata (the policy's, protocol
  version, preset, keys it wants).
2. Then, over and over: the client sends an observation (binary msgpack, codec.py), the server
   replies {"actions": float32 [K, A], "server_timing": {"infer_ms", "prev_total_ms"},
   "policy_timing": {"infer_ms"}}.
3. An error is a short text frame without a traceback, to that client only, which may go on; after
   several bad messages in a row its connection is closed (1008), for a frame that is too large at
   once (1009).
4. GET /healthz answers 200 OK.

The history of a connection is the observations it has sent, as many as the policy looks at, so a
policy that looks at several wants one every policy step (`history` and `step_seconds` of the
metadata); `"reset": true` in an observation forgets those before it. There is no password and no
encryption: listen on the robot's own network, or tunnel.

Protocol: github.com/Physical-Intelligence/openpi, src/openpi/serving/websocket_policy_server.py
(Apache-2.0).
"""

import asyncio
import dataclasses
import http
import logging
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import websockets
from websockets.asyncio import server as websocket_server

from como_jax import errors
from como_jax.serve import batching, client_schemas, codec

PROTOCOL_VERSION = 1
MOST_ERROR = 300  # characters of an error frame
PING_SECONDS, PING_TIMEOUT = 20.0, 60.0
GRACE_SECONDS = 10.0  # for requests in flight at shutdown


@dataclasses.dataclass(frozen=True)
class Settings:
  """How to serve.

  Attributes:
    host: address to listen on; 0.0.0.0 is every interface.
    port: 0 takes any free one.
    preset: which keys clients send (client_schemas.py).
    cameras: the preset's image keys for the policy's
      cameras, in order; () = the first.
    prompt: instruction for clients that send none.
    batch_size: the most requests of one call of the policy. batch_wait_ms: how long the first of
      them waits for others.
    max_connections: clients at a time; more are answered 503.
    max_frame_bytes: of one message. max_bad_messages: in a row, before the connection is closed.
    seed: of every connection's first request; it counts up.
  """

  host: str = "127.0.0.1"
  port: int = 8000
  preset: str = "como"
  cameras: Sequence[str] = ()
  prompt: str = ""
  batch_size: int = 8
  batch_wait_ms: float = 5.0
  max_connections: int = 16
  max_frame_bytes: int = codec.Limits().size
  max_bad_messages: int = 10
  seed: int = 0

  def __post_init__(self):
    for name, least, most in (
      ("port", 0, 65_535),
      ("batch_size", 1, 1024),
      ("batch_wait_ms", 0, 10_000),
      ("max_connections", 1, 10_000),
      ("max_frame_bytes", 1024, 2**30),
      ("max_bad_messages", 1, 10_000),
      ("seed", 0, 2**31 - 1),
    ):
      if not least <= getattr(self, name) <= most:
        raise errors.UserError(f"config.{name}={getattr(self, name)}, expected {least} to {most}")
    if self.preset not in client_schemas.PRESETS:
      raise errors.UserError(
        f"config.preset={self.preset!r} is unknown: "
        f"{errors.nearest(self.preset, client_schemas.PRESETS)}"
      )


class Server:
  """One policy for many clients.

  `run()` blocks until SIGTERM or SIGINT; `serve` does so inside an event loop of one's own.
  """

  def __init__(
    self,
    policy: Any,
    settings: Settings = Settings(),
    *,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
  ):
    """Args:
      policy: a serve.policy.Policy, or anything with its `infer`, `warm_up`, `cameras`, `history`,
        `chunk`, `state_dim`, `action_dim` and `metadata`.
      settings: see there.
      say: prints one line.

    Raises:
      errors.UserError: the preset's cameras do not fill the policy's.
    """
    self._policy, self._settings, self._say = policy, settings, say
    self._mapper = client_schemas.Mapper(
      settings.preset,
      policy.cameras,
      cameras=settings.cameras,
      state_dim=policy.state_dim,
      prompt=settings.prompt,
      instructions=policy.metadata.get("instructions"),
      unused=policy.metadata.get("unused_cameras", ()),
    )
    self.metadata = {
      **policy.metadata,
      "protocol_version": PROTOCOL_VERSION,
      "preset": settings.preset,
      "keys": list(self._mapper.keys),
      "instruction_key": self._mapper.task,
      "prompt": settings.prompt,
      "camera_keys": dict(self._mapper.cameras),
    }
    self._greeting = codec.pack(self.metadata)
    self._limits = codec.Limits(size=settings.max_frame_bytes)
    self._connections: set[websocket_server.ServerConnection] = set()
    self._busy: set[websocket_server.ServerConnection] = set()
    self._stopping = False
    self._batcher: batching.Batcher

  def run(self) -> None:
    """Serves until SIGTERM or SIGINT; requests in flight are answered.

    A second signal ends the process at once.
    """

    async def main():
      stop, loop = asyncio.Event(), asyncio.get_running_loop()

      def ask(number):
        self._say(
          f"{signal.Signals(number).name}: finishing the requests in flight; once more ends at once"
        )
        for one in (signal.SIGTERM, signal.SIGINT):
          loop.remove_signal_handler(one)
          signal.signal(one, signal.SIG_DFL)
        stop.set()

      for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
      await self.serve(stop)

    asyncio.run(main())

  async def serve(
    self, stop: asyncio.Event, *, started: Callable[[int], None] | None = None
  ) -> None:
    """Warms up, listens, calls `started(port)`, and serves until `stop` is set.

    Raises:
      errors.UserError: the address cannot be used; found before the warm-up.
    """
    settings, self._stopping = self._settings, False
    address = _bind(settings.host, settings.port)  # clients are refused until it listens
    self._batcher = batching.Batcher(
      self._policy,
      batch_size=settings.batch_size,
      wait_seconds=settings.batch_wait_ms / 1e3,
      clients=lambda: len(self._connections),
    )
    answering = None
    try:
      begin = time.monotonic()
      await self._batcher.warm_up()
      answering = asyncio.create_task(self._batcher.run())
      # No Origin: web pages may not connect. One message may wait per connection, then its socket
      # is not read.
      listening = await websocket_server.serve(
        self._client,
        sock=address,
        process_request=self._http,
        compression=None,
        max_size=settings.max_frame_bytes,
        max_queue=1,
        origins=[None],
        ping_interval=PING_SECONDS,
        ping_timeout=PING_TIMEOUT,
        logger=_silent(),
      )
      host, port = address.getsockname()[:2]
      self._say(
        f"serving on ws://{host}:{port} after {time.monotonic() - begin:.1f} s of warm-up: preset "
        f"{settings.preset}, keys {', '.join(self._mapper.keys)} -> actions "
        f"[{self._policy.chunk}, {self._policy.action_dim}]"
      )
      unused = self.metadata.get("unused_cameras")
      if unused:
        self._say(
          f"cameras of the training data that the policy does not look at: {', '.join(unused)}"
        )
      if started:
        started(port)
      await stop.wait()
      await self._shut(listening)
    finally:
      if answering:
        answering.cancel()
      self._batcher.close()
      address.close()

  async def _shut(self, listening: websocket_server.Server) -> None:
    """No new clients; idle ones are told to go (1001), busy ones get their answer first."""
    self._stopping = True
    listening.close(close_connections=False)
    await asyncio.gather(
      *(one.close(1001, "server is shutting down") for one in self._connections - self._busy),
      return_exceptions=True,
    )
    try:
      await asyncio.wait_for(listening.wait_closed(), GRACE_SECONDS)
    except TimeoutError:
      self._say(f"{len(self._busy)} request(s) unanswered after {GRACE_SECONDS:.0f} s are dropped")
      for one in list(self._connections):
        one.transport.abort()

  def _http(self, connection: websocket_server.ServerConnection, request: Any) -> Any:
    """Answers plain HTTP, and a client too many; None goes on with the websocket handshake."""
    if request.path.partition("?")[0] == "/healthz":
      return connection.respond(http.HTTPStatus.OK, "OK\n")
    if len(self._connections) >= self._settings.max_connections:
      return connection.respond(
        http.HTTPStatus.SERVICE_UNAVAILABLE,
        f"{len(self._connections)} clients, no more are served\n",
      )
    return None

  async def _client(self, connection: websocket_server.ServerConnection) -> None:
    """One connection from the handshake to its end.

    It reads its next message only after it has answered the last one.
    """
    # several may pass `_http` at the same time
    if len(self._connections) >= self._settings.max_connections:
      await connection.close(1013, "too many clients")
      return
    self._connections.add(connection)
    client = _Client(
      "{}:{}".format(*(connection.remote_address or ("?", 0))[:2]), self._settings.seed
    )
    self._say(
      f"client {client.name} connected ({len(self._connections)} of "
      f"{self._settings.max_connections})"
    )
    try:
      await connection.send(self._greeting)
      while not self._stopping:
        frame = await connection.recv()
        self._busy.add(connection)
        begin = time.perf_counter()
        question = self._read(frame, client)
        del frame  # up to 32 MB that inference does not need
        await connection.send(
          question if isinstance(question, str) else await self._answer(*question, client)
        )
        client.previous_ms = 1e3 * (time.perf_counter() - begin)
        self._busy.discard(connection)
        if client.bad >= self._settings.max_bad_messages:
          await connection.close(1008, f"{client.bad} bad messages in a row")
          return
      await connection.close(1001, "server is shutting down")
    except websockets.ConnectionClosed:
      # also where a frame was too large (1009) or a text no UTF-8 (1007): the library has closed it
      pass
    finally:
      self._connections.discard(connection)
      self._busy.discard(connection)
      self._say(
        f"client {client.name} left after {client.answered} answers"
        + (f", last error: {client.error}" if client.error else "")
      )

  def _read(self, frame: bytes | str, client: "_Client") -> tuple[dict[str, Any], bool] | str:
    """(observation, reset) of a message, or the text of an error."""
    try:
      return self._mapper(codec.unpack(frame, self._limits))
    except errors.UserError as error:
      client.bad += 1
      return client.fails(str(error))

  async def _answer(
    self, observation: dict[str, Any], reset: bool, client: "_Client"
  ) -> bytes | str:
    """The reply to an observation, or the text of an error."""
    history = [*([] if reset else client.history), observation][-self._policy.history :]
    try:
      answer = await self._batcher.submit(history, client.seed)
    except errors.UserError as error:
      client.bad += 1
      return client.fails(str(error))
    except Exception as error:  # the policy's own failure: details are for this side only
      traceback.print_exception(error, file=sys.stderr)
      return client.fails(f"inference failed ({type(error).__name__}); the server's log says why")
    # Only now: an observation that the policy refuses must not stay in the history and spoil the
    # next ones.
    client.history, client.seed, client.answered, client.bad = (
      history,
      client.seed + 1,
      client.answered + 1,
      0,
    )
    timing = {"infer_ms": answer.infer_ms}
    if client.previous_ms is not None:
      timing["prev_total_ms"] = client.previous_ms
    return codec.pack(
      {
        "actions": answer.actions,
        "server_timing": timing,
        "policy_timing": {"infer_ms": answer.policy_ms},
      }
    )


@dataclasses.dataclass
class _Client:
  """What the server remembers of one connection."""

  name: str
  seed: int
  history: list = dataclasses.field(default_factory=list)
  answered: int = 0
  bad: int = 0  # messages in a row
  error: str = ""  # the last one
  previous_ms: float | None = None

  def fails(self, text: str) -> str:
    """Notes an error; returns its frame: one short line."""
    line = " ".join(text.split())
    self.error = line if len(line) <= MOST_ERROR else line[: MOST_ERROR - 3] + "..."
    return f"error: {self.error}"


def _silent() -> logging.Logger:
  """The websockets library logs a traceback for every scanner that knocks; what matters is printed
  by the server itself.
  """
  logger = logging.getLogger("como_jax.serve.websockets")
  logger.setLevel(logging.CRITICAL)
  return logger


def _bind(host: str, port: int) -> socket.socket:
  """A bound socket that does not listen yet."""
  try:
    family, kind, number, _, address = socket.getaddrinfo(
      host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, number)
  except OSError as error:
    raise errors.UserError(f"config.host={host!r}: {error.strerror}") from error
  try:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
  except OSError as error:
    bound.close()
    raise errors.UserError(f"config.host={host!r}, config.port={port}: {error.strerror}") from error
  return bound
