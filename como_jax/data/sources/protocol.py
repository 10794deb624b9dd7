"""What ingest needs of a data set: the protocol of every source."""

from typing import Any, Protocol

from como_jax.data import episode


class Source(Protocol):
  """Random access to the episodes of a data set.

  A source is pickled to worker processes, so it must be small and picklable.

  Attributes:
    names: name of each episode, for messages.
    cameras: names of the cameras that every episode is expected to have.
    info: "format", "description" and, when known, "path", "action_names" and "state_names".
    skipped: {"name", "reason"} of each file that was found but is not used.
  """

  names: tuple[str, ...]
  cameras: tuple[str, ...]
  info: dict[str, Any]
  skipped: list[dict[str, str]]

  def __len__(self) -> int: ...

  def __getitem__(self, i: int) -> episode.RawEpisode:
    """Episode i. Raises `UnreadableError(reason)` when a file is damaged."""
    ...

  def fingerprint(self) -> str:
    """Hash that changes when the files change."""
    ...
