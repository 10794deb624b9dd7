"""The data of a policy: a config's mixture and instructions, opened once."""

import os
from collections.abc import Mapping

import jax

from como_jax import language, storage
from como_jax.assembly import data_folders, motion_data
from como_jax.data import (
  normalization,
  policy_facts,
  policy_layout,
  policy_mixture,
  policy_pipeline,
  stream,
)
from como_jax.data.batching import Batching
from como_jax.data.policy_index import PolicySet
from como_jax.data.read_options import ReadOptions
from como_jax.settings import entries as mixtures
from como_jax.train import reading


class PolicyData:
  """The data of a policy's config, opened once.

  Attributes:
    mixture: the data sets.
    encode: instructions -> tokens.
    language: instruction -> (tokens [L, E], mask [L]), of every instruction of the data.
    augment: transforms that are switched on.
  """

  def __init__(self, config):
    """Opens the data sets; raw sources are converted into the cache first.

    Args:
      config: of a policy.

    Raises:
      errors.UserError: a path or label folder that does not exist, labels of other data, an unknown
        key of a mixture entry, or an unknown instruction encoder.
    """
    self._section, self._settings = config.data, config.policy
    self.mixture = policy_mixture.PolicyMixture(
      mixture_entries(config),
      cameras=tuple(config.policy.cameras),
      num_cameras=config.model.num_cameras,
      validation_fraction=config.data.validation_fraction,
    )
    self.encode = language.build(config.language.to_dict())
    texts = self.mixture.instructions()
    tokens, mask = self.encode(texts)
    self.language = {text: (tokens[i], mask[i]) for i, text in enumerate(texts)}
    self.augment = motion_data.augmentation(config.data)

  def robots(self) -> dict[str, policy_facts.RobotFacts]:
    """What is known of each robot, see `policy_facts.robots`."""
    return self.mixture.robots(step_seconds=self._settings.step_seconds)

  def statistics(self) -> normalization.MixtureStatistics:
    """Statistics of the training examples, see `policy_statistics.statistics`."""
    return self.mixture.statistics(
      reduce=self._settings.reduce,
      step_seconds=self._settings.step_seconds,
      kept=self._settings.statistics == "kept",
    )

  def choose_read_options(self, batch: Mapping[str, jax.ShapeDtypeStruct]) -> ReadOptions:
    """How training batches of these shapes (of this process) are read."""
    return reading.choose(self._section, self.mixture.paths, batch)

  def batches(
    self, layout: policy_layout.Layout, batching: Batching, read_options: ReadOptions
  ) -> stream.Batches:
    """Endless augmented training batches, see `PolicyMixture.batches`."""
    return self.mixture.batches(layout, batching, read_options, self.augment)

  def examples(
    self,
    layout: policy_layout.Layout,
    split: str,
    *,
    batch_size: int,
    max_examples: int | None = None,
  ) -> policy_pipeline.EvaluationExamples:
    """Examples in a fixed order, see `PolicyMixture.evaluation_examples`."""
    return self.mixture.evaluation_examples(
      layout,
      Batching(batch_size),
      reading.in_order(self._section),
      split=split,
      max_examples=max_examples,
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
  paths = [data_folders.resolve(entry["path"]) for entry in entries]
  for entry in entries:
    if entry.get("labels"):
      entry["labels"] = str(storage.local_folder(entry["labels"]))
  sets = []
  for entry, path in zip(entries, paths, strict=True):
    folder = data_folders.to_shards(path, section)
    values = {
      **entry,
      "path": folder,
      "name": entry.get("name") or os.path.basename(os.path.normpath(path)),
      "cameras": tuple(entry.get("cameras", ())),
    }
    sets.append(PolicySet(**values))
  return sets
