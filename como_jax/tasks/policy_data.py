"""From a policy's config to its mixture and the embeddings of its instructions."""

import os
from collections.abc import Sequence

import numpy as np

from como_jax import language
from como_jax.data import policy_mixture
from como_jax.data.policy_index import PolicySet
from como_jax.settings import entries as mixtures
from como_jax.tasks import motion_data


def open_mixture(config) -> policy_mixture.PolicyMixture:
  """The mixture of a config, opened. Raises `errors.UserError`."""
  return policy_mixture.PolicyMixture(
    mixture_entries(config),
    cameras=tuple(config.policy.cameras),
    num_cameras=config.model.num_cameras,
    validation_fraction=config.data.validation_fraction,
  )


def mixture_entries(config) -> list[PolicySet]:
  """The entries of a config's mixture, or its single path as one robot's data.

  Raw sources are converted into the cache first.

  Raises:
    errors.UserError: a path that does not exist, or an unknown key of a mixture entry.
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
  paths = [motion_data.resolve(entry["path"]) for entry in entries]
  sets = []
  for entry, path in zip(entries, paths, strict=True):
    folder = motion_data.to_shards(
      path, section, image_size=section.image_size, cache_dir=motion_data.cache_dir(section)
    )
    values = {
      **entry,
      "path": folder,
      "name": entry.get("name") or os.path.basename(os.path.normpath(path)),
      "cameras": tuple(entry.get("cameras", ())),
    }
    sets.append(PolicySet(**values))
  return sets


def embed(
  config, texts: Sequence[str]
) -> tuple[language.Encoder, dict[str, tuple[np.ndarray, np.ndarray]]]:
  """The text encoder, and instruction -> (tokens [L, E], mask [L])."""
  encode = language.build(config.language.to_dict())
  tokens, mask = encode(texts)
  return encode, {text: (tokens[i], mask[i]) for i, text in enumerate(texts)}
