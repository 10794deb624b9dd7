"""Rendezvous of the processes before jax starts, so that an error can name a missing process.

Process 0 listens on the coordinator's address and receives the index of every other process. Then
it answers all of them at once: "go" or an error. After that, the port is free for jax's own
coordination service. The messages are single lines of text; nothing in them is executed.
"""

import contextlib
import socket
import time

from como_jax import errors

_LINE = 1024  # maximum bytes of a message; longer ones come from other programs
_HELLO = "como_jax"


def meet(host: str, port: int, *, count: int, index: int, seconds: float) -> None:
  """Waits until all processes have started.

  Args:
    host: of process 0.
    port: of process 0.
    count: number of processes.
    index: of this process.
    seconds: time limit.

  Raises:
    errors.TransientError: names the processes that did not connect within `seconds`.
    errors.UserError: processes that were started differently, or an address that cannot be used.
  """
  if count == 1:
    return
  if index == 0:
    _wait(host, port, count=count, seconds=seconds)
  else:
    _greet(host, port, count=count, index=index, seconds=seconds)


def _wait(host: str, port: int, *, count: int, seconds: float) -> None:
  """Process 0: waits for the others and sends them the result."""
  deadline = time.monotonic() + seconds
  joined: set[int] = set()
  accepted: list[socket.socket] = []
  problem: Exception | None = None
  try:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server(("", port), family=family, backlog=count)
  except OSError as error:
    raise errors.UserError(
      f"process 0 cannot listen on port {port} of {host}: {error.strerror or error}"
    ) from error
  with server, contextlib.ExitStack() as connections:
    while len(joined) < count - 1 and not problem:
      server.settimeout(max(0.01, deadline - time.monotonic()))
      try:
        connection, _ = server.accept()
      except TimeoutError:
        missing = ", ".join(str(i) for i in range(1, count) if i not in joined)
        problem = errors.TransientError(
          f"{count - 1 - len(joined)} of {count} processes did not come to {host}:{port} within "
          f"{seconds:g} s: missing {missing}"
        )
        break
      connections.enter_context(connection)
      connection.settimeout(5)
      # a connection of another program is ignored
      with contextlib.suppress(OSError, ValueError):
        hello, peer, peer_count = _receive(connection).split()
        if hello != _HELLO:
          continue
        if int(peer_count) != count:
          problem = errors.UserError(
            f"process {peer} was told of {peer_count} processes, process 0 of {count}"
          )
        elif int(peer) in joined or not 0 < int(peer) < count:
          problem = errors.UserError(f"two processes of the run call themselves {peer}")
        joined.add(int(peer))
        accepted.append(connection)
    for connection in accepted:
      with contextlib.suppress(OSError):
        connection.sendall(
          (f"{type(problem).__name__} {problem}\n" if problem else "go\n").encode()
        )
    for connection in accepted:
      with contextlib.suppress(OSError):
        connection.recv(1)  # the peer closes first, so that the port is free at once
  if problem:
    raise problem


def _greet(host: str, port: int, *, count: int, index: int, seconds: float) -> None:
  """Other processes: send their index and wait for the answer."""
  deadline = time.monotonic() + seconds
  while True:
    try:
      with socket.create_connection((host.strip("[]"), port), timeout=5) as connection:
        connection.sendall(f"{_HELLO} {index} {count}\n".encode())
        # 5 s more, because process 0 may have started to wait later
        connection.settimeout(max(0.01, deadline + 5 - time.monotonic()))
        answer = _receive(connection)
      if answer:
        break
    except OSError:
      pass
    if time.monotonic() > deadline:
      raise errors.TransientError(
        f"process {index} of {count} found no process 0 at {host}:{port} within {seconds:g} s"
      )
    time.sleep(0.1)
  if answer != "go":
    kind, _, text = answer.partition(" ")
    raise (errors.TransientError if kind == errors.TransientError.__name__ else errors.UserError)(
      text
    )


def _receive(connection: socket.socket) -> str:
  """Receives one line, without its end; "" when the peer closed the connection."""
  data = b""
  while not data.endswith(b"\n") and len(data) < _LINE:
    part = connection.recv(_LINE)
    if not part:
      return ""
    data += part
  return data.decode(errors="replace").strip()
