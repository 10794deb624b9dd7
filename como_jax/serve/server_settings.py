"""Settings of the policy server."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from como_jax import errors
from como_jax.serve import client_schemas, codec


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the server.

  Attributes:
    host: address to listen on; 0.0.0.0 is every interface.
    port: 0 = any free port.
    preset: keys that clients send (client_schemas.py).
    cameras: the preset's image keys for the policy's cameras, in order; () = the first keys.
    prompt: instruction for clients that send none.
    batch_size: maximum number of requests in one call of the policy.
    batch_wait_ms: time for which the first of them waits for others, milliseconds.
    max_connections: maximum number of clients at a time; further clients get the answer 503.
    max_frame_bytes: maximum size of one message.
    max_bad_messages: bad messages in a row after which the connection is closed.
    seed: of the first request of every connection; it increases by 1 with every answer.
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
    for name, minimum, maximum in (
      ("port", 0, 65_535),
      ("batch_size", 1, 1024),
      ("batch_wait_ms", 0, 10_000),
      ("max_connections", 1, 10_000),
      ("max_frame_bytes", 1024, 2**30),
      ("max_bad_messages", 1, 10_000),
      ("seed", 0, 2**31 - 1),
    ):
      if not minimum <= getattr(self, name) <= maximum:
        raise errors.UserError(
          f"config.{name}={getattr(self, name)}, expected {minimum} to {maximum}"
        )
    if self.preset not in client_schemas.PRESETS:
      raise errors.UserError(
        f"config.preset={self.preset!r} is unknown: "
        f"{errors.nearest(self.preset, client_schemas.PRESETS)}"
      )


def from_config(config: Any) -> Settings:
  """Reads the settings from a ConfigDict. Raises errors.UserError: one is out of range."""
  values = config.to_dict()
  return Settings(**{field.name: values[field.name] for field in dataclasses.fields(Settings)})
