"""The options of a quickstart, read from a config once."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Options:
  """The config of a quickstart; configs/quickstart.py says what each key means."""

  source: str
  ingest: str
  motion: str
  probe: str
  exam: str
  extract: str
  policy: str
  rollout: str
  steps: int
  policy_steps: int
  cache_tokens: bool
  step_seconds: float
  camera: str
  labeled: int
  tasks: tuple[str, ...]
  episodes: int


def from_config(config: Any) -> Options:
  """Reads the options.

  Args:
    config: a ConfigDict with the keys of configs/quickstart.py.
  """
  values = config.to_dict()
  return Options(**{field.name: values[field.name] for field in dataclasses.fields(Options)})
