"""What the server keeps of one connection."""

import dataclasses

MAX_ERROR = 300  # characters of an error frame, without its prefix


@dataclasses.dataclass
class ClientState:
  """State of one connection.

  Attributes:
    name: address of the client.
    seed: of the next request.
    history: observations that the policy has accepted, oldest first.
    answered: number of answers.
    num_bad_messages: number of bad messages in a row.
    error: the last error.
    previous_ms: milliseconds of the previous request, with its transmission.
  """

  name: str
  seed: int
  history: list = dataclasses.field(default_factory=list)
  answered: int = 0
  num_bad_messages: int = 0
  error: str = ""
  previous_ms: float | None = None

  def fail(self, text: str) -> str:
    """Stores an error and returns its frame, one short line."""
    line = " ".join(text.split())
    self.error = line if len(line) <= MAX_ERROR else line[: MAX_ERROR - 3] + "..."
    return f"error: {self.error}"
