"""The socket and the log of the policy server."""

import logging
import socket

from como_jax import errors


def silent() -> logging.Logger:
  """Logger that hides the websockets library's tracebacks, which every port scanner causes.

  The server itself prints the important events.
  """
  logger = logging.getLogger("como_jax.serve.websockets")
  logger.setLevel(logging.CRITICAL)
  return logger


def bind(host: str, port: int) -> socket.socket:
  """Returns a bound socket that does not listen yet.

  Args:
    host: name or address; "" = every interface.
    port: 0 = any free port.

  Raises:
    errors.UserError: the host is unknown, or the address cannot be used.
  """
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(
      host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
  except OSError as error:
    raise errors.UserError(f"config.host={host!r}: {error.strerror}") from error
  try:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
  except OSError as error:
    bound.close()
    raise errors.UserError(f"config.host={host!r}, config.port={port}: {error.strerror}") from error
  return bound
