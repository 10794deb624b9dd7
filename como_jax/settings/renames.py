"""Config keys that were renamed: files that were written before are still read.

`upgrade` brings a stored config.json to today's keys. On a command line or in a user's config file
an old key is an error that names the new one (`new_name`).
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from como_jax import errors

# Sections with the settings of a transformer stack.
_STACKS = ("model.decoder", "model.idm", "model.fdm", "model.trunk", "model.dit", "model.gpt")
_SAMPLERS = ("model.dit", "model.gpt")

# Old key -> its new name in the same section. "task:key" is a key of that task alone.
RENAMED: dict[str, str] = {
  **{f"{section}.heads": "num_heads" for section in (*_STACKS, "decoder")},
  **{f"{section}.mlp": "mlp_dim" for section in (*_STACKS, "decoder")},
  **{
    f"{section}.initialiser": "initializer"
    for section in (*_STACKS, "model.encoder", "model.bottleneck")
  },
  "model.idm.queries": "num_queries",
  "model.bottleneck.dims": "latent_dim",
  "model.bottleneck.codes": "num_codes",
  "model.normalise_target": "normalize_target",
  "model.chunk": "action_horizon",
  "model.cameras": "num_cameras",
  "model.language.tokens": "num_tokens",
  "model.latent.queries": "num_queries",
  "model.latent.dims": "latent_dim",
  "model.latent.chunk": "motion_horizon",
  **{f"{section}.steps": "num_sampling_steps" for section in _SAMPLERS},
  **{f"{section}.ddpm.levels": "num_train_timesteps" for section in _SAMPLERS},
  "model.gpt.hide_motion": "motion_dropout",
  "data.augment.colour": "color",
  "objectives.quantisation": "quantization",
  "policy.guidance": "guidance_scale",
  "policy.normalisation": "normalization",
  "normalisation": "normalization",
  "language.tokens": "num_tokens",
  "quickstart:labelled": "labeled",
  "rollout:guidance": "guidance_scale",
  "rollout:sample_steps": "num_sampling_steps",
  "serve:guidance": "guidance_scale",
  "serve:steps": "num_sampling_steps",
}

# What older versions wrote into the config of a policy's run after reading its data. Today it
# stands in policy.json, and the config stays as it was given.
DATA_KEYS = (
  "robots.",
  "normalization.",
  "policy.cameras",
  "policy.resize",
  "policy.latent_model",
  "policy.latent_offset_seconds",
  "model.robots.",
  "model.num_cameras",
  "model.language.",
  "model.latent.num_queries",
  "model.latent.latent_dim",
  "model.gpt.gripper.",
)


def written_by_data(config: Mapping[str, Any], key: str) -> bool:
  """Whether an older version took the value of a dotted key from the data, in a stored config."""
  return "normalization" in config and any(
    f"{key}." == known or key == known or (known.endswith(".") and key.startswith(known))
    for known in DATA_KEYS
  )


def upgrade(config: Mapping[str, Any]) -> dict[str, Any]:
  """A copy of a stored config with today's keys.

  Old keys are recognized by their presence, so a config with today's keys is returned unchanged.

  Args:
    config: the content of a config.json: a resolved config, or what a weights folder holds.
  """
  result = copy.deepcopy(dict(config))
  for section, old, new in _old_keys(result):
    if new not in section:
      section[new] = section.pop(old)
  return result


def new_name(task: str, key: str) -> str | None:
  """The new name of an old key in its section; None for any other key.

  Args:
    task: of the config.
    key: dotted, without "config.".
  """
  return RENAMED.get(key) or RENAMED.get(f"{task}:{key}")


def nearest(task: str, key: str, valid: Iterable[str]) -> str:
  """Text to end an error about an unknown key with: its new name, or as `errors.nearest`.

  Args:
    task: of the config.
    key: dotted, without "config.".
    valid: the keys of its section.
  """
  if new := new_name(task, key):
    return f"it was renamed to {new!r}"
  return errors.nearest(key.rpartition(".")[2], valid)


def _old_keys(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
  """(section, old key in it, new name) of every old key that a config has."""
  for name, new in RENAMED.items():
    task, _, key = name.rpartition(":")
    if task and config.get("task") != task:
      continue
    *parents, old = key.split(".")
    section: Any = config
    for parent in parents:
      section = section.get(parent) if isinstance(section, dict) else None
    if isinstance(section, dict) and old in section:
      yield section, old, new
