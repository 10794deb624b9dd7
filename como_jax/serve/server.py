"""Websocket server of a policy, in openpi's protocol.

openpi's clients (LIBERO, DROID and ALOHA scripts) work unchanged.

1. At connect the server sends one binary frame: msgpack of the metadata (that of the policy, the
   protocol version, the preset and the keys to send).
2. Then repeatedly: the client sends an observation (binary msgpack, codec.py), and the server
   replies {"actions": float32 [K, A], "server_timing": {"infer_ms", "prev_total_ms"},
   "policy_timing": {"infer_ms"}}.
3. An error is a short text frame without a traceback, to the affected client only. The client may
   continue. The server closes the connection after several bad messages in a row (1008), or at once
   after a frame that is too large (1009).
4. GET /healthz answers 200 OK.

The history of a connection consists of the last observations it has sent, as many as the policy
uses. A policy with a history above 1 therefore needs one observation every policy step (`history`
and `step_seconds` of the metadata). `"reset": true` in an observation clears the history before it.
There is no password and no encryption: listen on the robot's own network, or use a tunnel.

Protocol: github.com/Physical-Intelligence/openpi, src/openpi/serving/websocket_policy_server.py
(Apache-2.0).
"""

import asyncio
import http
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import websockets
from websockets.asyncio import server as websocket_server

from como_jax import errors
from como_jax.serve import batching, client_schemas, codec, interface, listening
from como_jax.serve.client_state import ClientState
from como_jax.serve.server_settings import Settings

PROTOCOL_VERSION = 1
PING_SECONDS, PING_TIMEOUT = 20.0, 60.0
DEFAULT = Settings()
GRACE_SECONDS = 10.0  # for requests in flight at shutdown


class Server:
  """Serves one policy to many clients.

  `run()` blocks until SIGTERM or SIGINT. `serve` is for callers with their own event loop.
  """

  def __init__(
    self,
    policy: interface.Policy,
    settings: Settings = DEFAULT,
    *,
    log: Callable[[str], None] = lambda text: print(text, flush=True),
  ):
    """Checks the preset against the policy.

    Args:
      policy: the policy to serve.
      settings: of the server.
      log: prints one line.

    Raises:
      errors.UserError: the preset's cameras do not match the policy's.
    """
    self._policy, self._settings, self._log = policy, settings, log
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
    """Serves until SIGTERM or SIGINT, then answers the requests in flight.

    A second signal ends the process at once.
    """

    async def main():
      stop, loop = asyncio.Event(), asyncio.get_running_loop()

      def request_stop(received):
        name = signal.Signals(received).name
        self._log(f"{name}: finishing the requests in flight; once more ends at once")
        for number in (signal.SIGTERM, signal.SIGINT):
          loop.remove_signal_handler(number)
          signal.signal(number, signal.SIG_DFL)
        stop.set()

      for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, request_stop, number)
      await self.serve(stop)

    asyncio.run(main())

  async def serve(
    self, stop: asyncio.Event, *, started: Callable[[int], None] | None = None
  ) -> None:
    """Warms up, listens, calls `started(port)`, and serves until `stop` is set.

    Args:
      stop: ends the server.
      started: receives the port once the server listens.

    Raises:
      errors.UserError: the address cannot be used; raised before the warm-up.
    """
    settings, self._stopping = self._settings, False
    address = listening.bind(settings.host, settings.port)  # refuses clients until it listens
    self._batcher = batching.Batcher(
      self._policy,
      batch_size=settings.batch_size,
      wait_seconds=settings.batch_wait_ms / 1e3,
      clients=lambda: len(self._connections),
    )
    answering = None
    try:
      start = time.monotonic()
      await self._batcher.warm_up()
      answering = asyncio.create_task(self._batcher.run())
      # origins=[None] refuses web pages, which send an Origin. max_queue=1: at most one message per
      # connection is read ahead.
      sockets = await websocket_server.serve(
        self._client,
        sock=address,
        process_request=self._http,
        compression=None,
        max_size=settings.max_frame_bytes,
        max_queue=1,
        origins=[None],
        ping_interval=PING_SECONDS,
        ping_timeout=PING_TIMEOUT,
        logger=listening.silent(),
      )
      host, port = address.getsockname()[:2]
      self._log(
        f"serving on ws://{host}:{port} after {time.monotonic() - start:.1f} s of warm-up: preset "
        f"{settings.preset}, keys {', '.join(self._mapper.keys)} -> actions "
        f"[{self._policy.action_horizon}, {self._policy.action_dim}]"
      )
      unused = self.metadata.get("unused_cameras")
      if unused:
        self._log(
          f"cameras of the training data that the policy does not look at: {', '.join(unused)}"
        )
      if started:
        started(port)
      await stop.wait()
      await self._shut_down(sockets)
    finally:
      if answering:
        answering.cancel()
      self._batcher.close()
      address.close()

  async def _shut_down(self, sockets: websocket_server.Server) -> None:
    """Closes the idle connections (1001), and the busy ones after their answer."""
    self._stopping = True
    sockets.close(close_connections=False)
    idle = self._connections - self._busy
    await asyncio.gather(
      *(connection.close(1001, "server is shutting down") for connection in idle),
      return_exceptions=True,
    )
    try:
      await asyncio.wait_for(sockets.wait_closed(), GRACE_SECONDS)
    except TimeoutError:
      self._log(f"{len(self._busy)} request(s) unanswered after {GRACE_SECONDS:.0f} s are dropped")
      for connection in list(self._connections):
        connection.transport.abort()

  def _http(self, connection: websocket_server.ServerConnection, request: Any) -> Any:
    """Answers plain HTTP, or 503 when the server is full; None = do the websocket handshake."""
    if request.path.partition("?")[0] == "/healthz":
      return connection.respond(http.HTTPStatus.OK, "OK\n")
    if len(self._connections) >= self._settings.max_connections:
      return connection.respond(
        http.HTTPStatus.SERVICE_UNAVAILABLE,
        f"{len(self._connections)} clients, no more are served\n",
      )
    return None

  async def _client(self, connection: websocket_server.ServerConnection) -> None:
    """Serves one connection from the handshake to its end.

    It reads the next message only after it has answered the last one.
    """
    # several clients may pass the check in `_http` at the same time
    if len(self._connections) >= self._settings.max_connections:
      await connection.close(1013, "too many clients")
      return
    self._connections.add(connection)
    client = ClientState(
      "{}:{}".format(*(connection.remote_address or ("?", 0))[:2]), self._settings.seed
    )
    self._log(
      f"client {client.name} connected ({len(self._connections)} of "
      f"{self._settings.max_connections})"
    )
    try:
      await connection.send(self._greeting)
      while not self._stopping:
        frame = await connection.recv()
        self._busy.add(connection)
        start = time.perf_counter()
        message = self._read(frame, client)
        del frame  # frees up to 32 MB before inference
        await connection.send(
          message if isinstance(message, str) else await self._answer(*message, client)
        )
        client.previous_ms = 1e3 * (time.perf_counter() - start)
        self._busy.discard(connection)
        if client.num_bad_messages >= self._settings.max_bad_messages:
          await connection.close(1008, f"{client.num_bad_messages} bad messages in a row")
          return
      await connection.close(1001, "server is shutting down")
    except websockets.ConnectionClosed:
      # also after a frame that is too large (1009) or a text that is not UTF-8 (1007)
      pass
    finally:
      self._connections.discard(connection)
      self._busy.discard(connection)
      self._log(
        f"client {client.name} left after {client.answered} answers"
        + (f", last error: {client.error}" if client.error else "")
      )

  def _read(self, frame: bytes | str, client: ClientState) -> tuple[dict[str, Any], bool] | str:
    """Decodes a message to (observation, reset), or returns the text of an error."""
    try:
      return self._mapper(codec.unpack(frame, self._limits))
    except errors.UserError as error:
      client.num_bad_messages += 1
      return client.fail(str(error))

  async def _answer(
    self, observation: dict[str, Any], reset: bool, client: ClientState
  ) -> bytes | str:
    """Returns the reply to an observation, or the text of an error."""
    history = [*([] if reset else client.history), observation][-self._policy.history :]
    try:
      answer = await self._batcher.submit(history, client.seed)
    except errors.UserError as error:
      client.num_bad_messages += 1
      return client.fail(str(error))
    except Exception as error:  # a failure of the policy: the details stay on the server
      traceback.print_exception(error, file=sys.stderr)
      return client.fail(f"inference failed ({type(error).__name__}); the server's log says why")
    # Updated after inference: an observation that the policy refuses must not enter the history.
    client.history, client.seed = history, client.seed + 1
    client.answered, client.num_bad_messages = client.answered + 1, 0
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
