"""The processes of a run meet before jax starts, so that the message about a missing one can name
it.

Process 0 listens on the coordinator's address, hears every other process say its index and answers
all of them at once: "go", or what is wrong. Then the port is free again for jax's own coordination
service. One short line each way, nothing is executed.
"""

import contextlib
import socket
import time

from como_jax import errors

_LINE = 1024  # bytes; longer ones are no message of ours
_HELLO = "como_jax"


def meet(host: str, port: int, *, count: int, index: int, seconds: float) -> None:
  """Returns when all processes are there.

  Raises:
    errors.Transient: naming the processes that did not come within `seconds`.
    errors.UserError: processes that were started differently, or an address that cannot be used.
  """
  if count == 1:
    return
  if index == 0:
    _wait(host, port, count=count, seconds=seconds)
  else:
    _greet(host, port, count=count, index=index, seconds=seconds)


def _wait(host: str, port: int, *, count: int, seconds: float) -> None:
  """Process 0: hears the others and tells them the outcome."""
  until = time.monotonic() + seconds
  here: set[int] = set()
  heard: list[socket.socket] = []
  problem: Exception | None = None
  try:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server(("", port), family=family, backlog=count)
  except OSError as error:
    raise errors.UserError(
      f"process 0 cannot listen on port {port} of {host}: {error.strerror or error}"
    ) from error
  with server, contextlib.ExitStack() as connections:
    while len(here) < count - 1 and not problem:
      server.settimeout(max(0.01, until - time.monotonic()))
      try:
        connection, _ = server.accept()
      except TimeoutError:
        missing = ", ".join(str(i) for i in range(1, count) if i not in here)
        problem = errors.Transient(
          f"{count - 1 - len(here)} of {count} processes did not come to {host}:{port} within "
          f"{seconds:g} s: missing {missing}"
        )
        break
      connections.enter_context(connection)
      connection.settimeout(5)
      with contextlib.suppress(OSError, ValueError):  # not one of ours: it is not counted
        word, other, of = _receive(connection).split()
        if word != _HELLO:
          continue
        if int(of) != count:
          problem = errors.UserError(
            f"process {other} was told of {of} processes, process 0 of {count}"
          )
        elif int(other) in here or not 0 < int(other) < count:
          problem = errors.UserError(f"two processes of the run call themselves {other}")
        here.add(int(other))
        heard.append(connection)
    for connection in heard:
      with contextlib.suppress(OSError):
        connection.sendall(
          (f"{type(problem).__name__} {problem}\n" if problem else "go\n").encode()
        )
    for connection in heard:
      with contextlib.suppress(OSError):
        connection.recv(1)  # the other side closes first: the port must not linger
  if problem:
    raise problem


def _greet(host: str, port: int, *, count: int, index: int, seconds: float) -> None:
  """The others: say who they are, and wait for the answer."""
  until = time.monotonic() + seconds
  while True:
    try:
      with socket.create_connection((host.strip("[]"), port), timeout=5) as connection:
        connection.sendall(f"{_HELLO} {index} {count}\n".encode())
        # process 0 began to wait at another time
        connection.settimeout(max(0.01, until + 5 - time.monotonic()))
        answer = _receive(connection)
      if answer:
        break
    except OSError:
      pass
    if time.monotonic() > until:
      raise errors.Transient(
        f"process {index} of {count} found no process 0 at {host}:{port} within {seconds:g} s"
      )
    time.sleep(0.1)
  if answer != "go":
    kind, _, text = answer.partition(" ")
    raise (errors.Transient if kind == errors.Transient.__name__ else errors.UserError)(text)


def _receive(connection: socket.socket) -> str:
  """One line, without its end; "" when the other side left."""
  data = b""
  while not data.endswith(b"\n") and len(data) < _LINE:
    part = connection.recv(_LINE)
    if not part:
      return ""
    data += part
  return data.decode(errors="replace").strip()
