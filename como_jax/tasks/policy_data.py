"""From a policy config's `data` section to data sets with robots, labels, cameras and
instructions.
"""

import os
from collections.abc import Callable

import numpy as np

from como_jax import errors, language
from como_jax.data import labels, policy_pipeline, shards
from como_jax.settings import entries as mixtures
from como_jax.tasks import motion_data

MOST_EXAMPLES = 8  # instructions that a checkpoint names


def sets(config) -> list[policy_pipeline.PolicySet]:
  """The data sets of a config: its mixture, or its single path as one robot's data.

  Raw sources are converted into the cache first.

  Raises:
    errors.UserError: a path or label folder that does not exist, labels of other data, an unknown
      key of a mixture entry.
  """
  section = config.data
  alone = dict(
    path=section.path,
    robot=config.policy.robot,
    labels=section.labels,
    cameras=tuple(section.cameras),
  )
  entries = mixtures.check(tuple(section.mixture) or (alone,), "config.data.mixture", task="policy")
  # all of them, before the first one is converted
  given = [motion_data.resolve(entry["path"]) for entry in entries]
  found = []
  for entry, path in zip(entries, given, strict=True):
    folder = motion_data.to_shards(
      path, section, image_size=section.image_size, cache_dir=motion_data.cache_dir(section)
    )
    if entry.get("labels"):
      labels.check(entry["labels"], data_path=folder)
    name = entry.get("name") or os.path.basename(os.path.normpath(path))
    cameras = tuple(entry.get("cameras", ()))
    if not cameras and entry.get("views") != "each":
      cameras = _named(config, folder)
    found.append(
      policy_pipeline.PolicySet(**{**entry, "path": folder, "name": name, "cameras": cameras})
    )
  return found


def _named(config, folder: str) -> tuple[str, ...]:
  """The cameras of some shards in the slots that config.policy.cameras gives their names; () where
  it names none of them.
  """
  known = shards.read_table(folder).cameras
  slots = tuple(name if name in known else "" for name in config.policy.cameras)
  return slots if any(slots) else ()


def robots(config, found: list[policy_pipeline.PolicySet]) -> dict[str, dict]:
  """What is known of each robot, in order of first appearance.

  Robot -> {"action", "state" (sizes), "action_names", "state_names", "step_seconds", "cameras" (of
  each slot, "" where none of its data fill it), "unused_cameras", "instructions" ({"count", "empty"
  (whether some data have none), "examples"})}.

  Raises:
    errors.UserError: no robot at all, a data set without actions, or one robot with two sizes or
      rates.
  """
  facts: dict[str, dict] = {}
  for one in found:
    if not one.robot:
      continue
    manifest, table = shards.read_manifest(one.path), shards.read_table(one.path)
    sizes = {key: manifest[key]["size"] for key in ("action", "state")}
    if not isinstance(sizes["action"], int) or sizes["action"] < 1:
      raise errors.UserError(
        f"{one.label}: robot {one.robot!r} needs actions of one size, the data set has "
        f"{sizes['action'] or 'none'}"
      )
    interval, rates = (
      table.interval[table.length > 1],
      sorted({round(float(rate), 2) for rate in table.rates if rate}),
    )
    step = float(config.policy.step_seconds)
    if step == 0:
      if not len(interval) or np.ptp(interval) > 1e-4 or not table.uniform.all():
        raise errors.UserError(
          f"{one.label}: clips of {', '.join(f'{rate:g}' for rate in rates)} frames a "
          f"second{'' if table.uniform.all() else ', some at varying rates'}: set "
          "config.policy.step_seconds"
        )
      step = float(np.median(interval))
    new = {
      "action": sizes["action"],
      "state": int(sizes["state"] or 0),
      "action_names": list(manifest["action"]["names"] or ()),
      "state_names": list((manifest["state"] or {}).get("names") or ()),
      "step_seconds": round(step, 6),
    }
    old = facts.setdefault(one.robot, new)
    for key in ("action", "state", "step_seconds"):
      if old[key] != new[key]:
        raise errors.UserError(
          f"{one.label}: robot {one.robot!r} has {key} {new[key]} here and {old[key]} in another "
          "data set: give it another robot name"
          + (", or set config.policy.step_seconds" if key == "step_seconds" else "")
        )
  if not facts:
    raise errors.UserError(
      "config.data.mixture: no entry names a robot, so there is no action to learn"
    )
  names = cameras(config, found)
  for robot, mine in facts.items():
    own = [one for one in found if one.robot == robot]
    mine["unused_cameras"] = sorted(
      set.intersection(*(set(unused_cameras(one, len(names))) for one in own))
    )
    tasks = {one: set(shards.read_table(one.path).tasks) for one in own}
    texts = sorted(
      {text for one, of in tasks.items() for text in of if not one.tasks or text in one.tasks}
    )
    spoken = [text for text in texts if text]
    mine["instructions"] = {
      "count": len(spoken),
      "empty": len(spoken) < len(texts),
      "examples": spoken[:MOST_EXAMPLES],
    }
    fills = [_filled(one, len(names)) for one in own]
    own = [next((names_of[i] for names_of in fills if names_of[i]), "") for i in range(len(names))]
    mine["cameras"] = [one and (name or one) for name, one in zip(names, own, strict=True)]
  return facts


def label_facts(found: list[policy_pipeline.PolicySet]) -> dict | None:
  """{"queries", "dims", "latent_offset_seconds", "latent_model" (fingerprint)} of the label sets,
  None without any.
  """
  first = next((labels.Labels(one.labels).manifest for one in found if one.labels), None)
  return first and {
    "queries": first["queries"],
    "dims": first["dims"],
    "latent_offset_seconds": float(first["offset_seconds"]),
    "latent_model": first["model"]["fingerprint"],
  }


def resize(found: list[policy_pipeline.PolicySet]) -> str:
  """How all frames were made square (`video.Geometry`), so that acting does the same.

  Raises:
    errors.UserError: data sets made in different ways.
  """
  modes: dict[str, str] = {}
  for one in found:
    # frames of the source's own size are squashed when they are loaded
    manifest = shards.read_manifest(one.path)
    modes.setdefault(
      manifest.get("resize", "squash") if manifest.get("image_size") else "squash", one.label
    )
  if len(modes) > 1:
    listed = ", ".join(f"{label} with {mode!r}" for mode, label in modes.items())
    raise errors.UserError(
      f"config.data.mixture: frames were made square in different ways ({listed}): ingest all "
      "with one resize"
    )
  return next(iter(modes))


def cameras(config, found: list[policy_pipeline.PolicySet]) -> tuple[str, ...]:
  """Names of the camera slots: the config's, else those of the first robot's entry, else its data
  set's first ones.
  """
  if config.policy.cameras:
    return tuple(config.policy.cameras)
  first = next(one for one in found if one.robot)
  names = _filled(first, len(first.cameras) or max(1, config.model.num_cameras))
  return names[:1] if first.views == "each" else names


def _filled(one: policy_pipeline.PolicySet, count: int) -> tuple[str, ...]:
  """The camera of each of so many slots in an entry's examples, "" = empty; of "each", whose
  examples fill the first slot, its first.
  """
  names = tuple(one.cameras) or shards.read_table(one.path).cameras[:count]
  if one.views == "each":
    names = tuple(name for name in names if name)[:1]
  return (*names, *[""] * count)[:count]


def unused_cameras(one: policy_pipeline.PolicySet, count: int) -> tuple[str, ...]:
  """The cameras of an entry's data that fill none of so many slots and are no examples of their
  own.
  """
  known = shards.read_table(one.path).cameras
  used = (tuple(one.cameras) or known) if one.views == "each" else _filled(one, count)
  return tuple(name for name in known if name not in used)


def instructions(
  config, found: list[policy_pipeline.PolicySet]
) -> tuple[Callable, dict[str, tuple[np.ndarray, np.ndarray]]]:
  """The text encoder, and every instruction of the data with its embedding (tokens [L, E], mask
  [L]).
  """
  encode = language.build(config.language.to_dict())
  texts = sorted({text for one in found for text in shards.read_table(one.path).tasks} | {""})
  tokens, mask = encode(texts)
  return encode, {text: (tokens[i], mask[i]) for i, text in enumerate(texts)}
