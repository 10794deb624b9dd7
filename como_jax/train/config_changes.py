"""How the config of a resumed run may differ from the one that it was started with.

A key that the run's own config does not have, as a later version brought it, is filled: with its
value in the config of the task as it ships, without variant or options. That value means "as
before", so such a run goes on as it was. A variant or a user that gives another value asks for a
change. Settings of a config file of the user's own are never taken to be as before.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from como_jax import config as config_lib
from como_jax import errors, weights
from como_jax.settings import renames

# What may change between the runs of one experiment (a dot at the end: the whole section); anything
# else would make another experiment of it. The learning rate and the clipping are what one changes
# after a loss that was not finite. Every change is printed.
RESUMABLE_KEYS = (
  "train.steps",
  "train.log_every",
  "train.evaluate_every",
  "train.checkpoint_every",
  "train.keep_checkpoints",
  "train.tensorboard",
  "train.profile_steps",
  "train.stall_seconds",
  "train.compiled_step",
  "train.wandb",
  "train.mesh.",
  "train.accept_changed_data",
  "model.attention_kernel",
  "data.workers",
  "data.threads",
  "data.prefetch",
  "data.cache",
  "lerobot",
  "shared",
  "lease_seconds",
  "runner",
  "runner_flags",
  *(
    f"train.optimizer.{key}"
    for key in ("learning_rate", "schedule", "floor", "warmup_steps", "warmup_start", "clip_norm")
  ),
)


def changes(workdir: pathlib.Path, config) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
  """How the config of a resumed run differs from the one in its directory.

  Returns:
    ({key that was filled: its value}, {key that changed: (before, now)}); before is None for a key
    of which nobody can say what it was.

  Raises:
    errors.UserError: a key that must not change; it names both values.
  """
  stored = weights.read_config(workdir / weights.CONFIG)
  before, now = _flat(stored), _flat(_plain(config))
  differing = [
    key
    for key in sorted(before.keys() | now.keys())
    if (key not in before or key not in now or before[key] != now[key])
    and not renames.written_by_data(stored, key)
  ]
  filled, changed = {}, {}
  for key in differing:
    known = before if key in before else _as_before(config.task, key, before)
    if key in known and key in now and known[key] == now[key]:
      filled[key] = now[key]
    else:
      changed[key] = (known.get(key), now.get(key))
  refused = [
    f"{key}: {was!r} before, {is_now!r} now"
    for key, (was, is_now) in changed.items()
    if not _is_free(key)
  ]
  if refused:
    raise errors.UserError(
      f"--resume: the config is not the one {workdir} was started with: {'; '.join(refused[:5])}"
    )
  return filled, changed


def lines(workdir: pathlib.Path, config) -> list[str]:
  """What to print of a run that goes on.

  Raises:
    errors.UserError: as `changes`.
  """
  filled, changed = changes(workdir, config)
  new = ", ".join(f"{key}={value!r}" for key, value in filled.items() if not _is_free(key))
  said = (
    [f"resume: {workdir} was started before there were these keys, and goes on with {new}"]
    if new
    else []
  )
  return said + [
    f"resume: {key}: {was!r} before, {now!r} now"
    for key, (was, now) in changed.items()
    if was is not None
  ]


def _is_free(key: str) -> bool:
  return any(
    key == free or (free.endswith(".") and key.startswith(free)) for free in RESUMABLE_KEYS
  )


def _as_before(task: str, key: str, before: Mapping[str, Any]) -> Mapping[str, Any]:
  """A config that says which value of a new key means "as before"; {} where none can.

  This is the config of the task as it ships. It lacks the sections that an option brings (those of
  another model): of these the config with the option tells, where the run has the section.

  Args:
    task: of the run.
    key: that the run's config does not have.
    before: the values of that config.
  """
  shipped = _flat(_plain(config_lib.shipped(task)))
  if key in shipped:
    return shipped
  parts = key.split(".")
  sections = (".".join(parts[:i]) + "." for i in range(1, len(parts)))
  optional = next((one for one in sections if not _has(shipped, one)), None)
  if optional is None or not _has(before, optional):
    return {}
  given = (_flat(_plain(config)) for config in config_lib.shipped_options(task))
  return next((config for config in given if key in config), {})


def _has(values: Mapping[str, Any], section: str) -> bool:
  return any(key.startswith(section) for key in values)


def _plain(config) -> dict[str, Any]:
  """The config as it is stored: tuples are lists."""
  return json.loads(config_lib.to_json(config))


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Dotted key -> value; sections are not values."""
  values = {}
  for key, value in section.items():
    if isinstance(value, Mapping):
      values |= _flat(value, f"{prefix}{key}.")
    else:
      values[prefix + key] = value
  return values
