"""The mixture of a policy: its data sets, opened once, and everything that is asked of them."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from como_jax import errors
from como_jax.data import (
  normalization,
  policy_examples,
  policy_facts,
  policy_layout,
  policy_pipeline,
  policy_sets,
  policy_statistics,
  stream,
)
from como_jax.data.batching import Batching, Split
from como_jax.data.policy_index import PolicySet
from como_jax.data.read_options import ReadOptions


class PolicyMixture:
  """Data sets of robots and of labeled video that a policy is trained on.

  Every table is read once, and the examples of a split are enumerated once.

  Attributes:
    sets: the data sets, in the order of the config.
    slots: names of the camera slots.
    validation_fraction: share of the episodes set aside.
  """

  def __init__(
    self,
    entries: Sequence[PolicySet],
    *,
    cameras: Sequence[str] = (),
    num_cameras: int = 1,
    validation_fraction: float = 0.1,
  ):
    """Opens the data sets.

    Args:
      entries: the mixture.
      cameras: names of the camera slots; () = those of the first robot's entry. An entry that
        names no cameras fills the slots of its cameras' names, where it has such.
      num_cameras: slots where neither `cameras` nor the entry says how many.
      validation_fraction: share of the episodes set aside.

    Raises:
      errors.UserError: no entry, folders that do not exist or do not fit together, or labels of
        several models.
    """
    if not entries:
      raise errors.UserError("no data set is given")
    self.sets = [_fill_slots(policy_sets.open_set(entry), cameras) for entry in entries]
    policy_sets.check_one_model(self.sets)
    self.slots = policy_facts.slot_names(self.sets, names=cameras, num_cameras=num_cameras)
    self.validation_fraction = validation_fraction
    self._splits: dict[str, list[policy_sets.SplitSet]] = {}

  @property
  def paths(self) -> list[str]:
    """The folders of shards."""
    return [opened.entry.path for opened in self.sets]

  def split(self, name: str) -> list[policy_sets.SplitSet]:
    """The examples of a split ("train", "validation" or "all") of each data set.

    Raises:
      errors.UserError: cameras or episodes that do not exist; no example (but of "validation").
    """
    if name not in self._splits:
      split = Split(name, self.validation_fraction)
      self._splits[name] = [
        policy_sets.open_split(opened, split, num_cameras=len(self.slots)) for opened in self.sets
      ]
    return self._splits[name]

  def robots(self, *, step_seconds: float = 0.0) -> dict[str, policy_facts.RobotFacts]:
    """What is known of each robot, see `policy_facts.robots`."""
    return policy_facts.robots(self.sets, self.slots, step_seconds=step_seconds)

  def latent_motion(self) -> policy_facts.LatentMotion | None:
    """What the labels are; None without any."""
    return policy_facts.latent_motion(self.sets)

  def resize(self) -> str:
    """How all frames were made square, see `policy_facts.resize`."""
    return policy_facts.resize(self.sets)

  def instructions(self) -> list[str]:
    """Every instruction of the data, and "" for none; sorted."""
    return sorted({text for opened in self.sets for text in opened.table.tasks} | {""})

  def statistics(
    self, *, reduce: str = "mean", step_seconds: float = 0.0, kept: bool = False
  ) -> normalization.MixtureStatistics:
    """Statistics of the training examples, see `policy_statistics.statistics`."""
    policy_statistics.check_sizes(self.sets)
    return policy_statistics.statistics(
      self.split("train"), reduce=reduce, step_seconds=step_seconds, kept=kept
    )

  def describe(self) -> list[str]:
    """Lines for logs.

    One for each data set: examples, episodes used of all, tasks, what is learned, cameras. Then one
    for each whose cameras are not all used.
    """
    lines = [_description(opened) for opened in self.split("train")]
    for opened in self.sets:
      if unused := policy_facts.unused_cameras(opened, len(self.slots)):
        lines.append(
          f"{opened.label}: cameras {', '.join(unused)} are not used, the policy's slots are "
          f"{', '.join(self.slots)}: name them in config.policy.cameras"
        )
    return lines

  def batches(
    self,
    layout: policy_layout.Layout,
    batching: Batching,
    read_options: ReadOptions = ReadOptions(),
    augment: Sequence[Callable] = (),
    *,
    split: str = "train",
  ) -> stream.Batches:
    """Endless shuffled training batches, see `policy_pipeline.batches`."""
    policy_pipeline.check_augmentation(augment)
    _ = batching.local_rows  # checked before the examples are enumerated
    return policy_pipeline.batches(self._loader(layout, split), batching, read_options, augment)

  def evaluation_examples(
    self,
    layout: policy_layout.Layout,
    batching: Batching,
    read_options: ReadOptions = ReadOptions(),
    *,
    split: str = "validation",
    max_examples: int | None = None,
  ) -> policy_pipeline.EvaluationExamples:
    """Examples in a fixed order, see `policy_pipeline.evaluation_examples`."""
    return policy_pipeline.evaluation_examples(
      self._loader(layout, split), split, batching, read_options, max_examples=max_examples
    )

  def _loader(self, layout: policy_layout.Layout, split: str) -> policy_examples.ExampleLoader:
    """Loads the examples of a split. Raises `errors.UserError` where they do not fit the layout."""
    layout.check()
    for opened in self.sets:
      policy_examples.check_layout(opened, layout)
    return policy_examples.ExampleLoader(layout, self.split(split))


def _fill_slots(opened: policy_sets.OpenedSet, slots: Sequence[str]) -> policy_sets.OpenedSet:
  """The data set with its cameras in the slots that have their names.

  It stays as it is where its entry names cameras, where every camera is an example of its own, and
  where no slot has the name of one of its cameras.
  """
  entry = opened.entry
  if entry.cameras or entry.views == "each":
    return opened
  cameras = tuple(name if name in opened.table.cameras else "" for name in slots)
  if not any(cameras):
    return opened
  return dataclasses.replace(opened, entry=dataclasses.replace(entry, cameras=cameras))


def _description(opened: policy_sets.SplitSet) -> str:
  table, rows, entry = opened.table, opened.windows.rows(), opened.entry
  learned = []
  if entry.robot:
    learned.append(f"actions of {entry.robot}")
  if entry.labels:
    learned.append(f"motion labels {entry.labels}")
  tasks = {table.tasks[i] for i in np.unique(table.task[rows])} - {""}
  return (
    f"{opened.label}: {len(opened.windows)} examples (weight {entry.weight:g}), "
    f"{len(np.unique(table.episode[rows]))} of {len(np.unique(table.episode))} episodes, "
    f"{len(tasks)} tasks; {', '.join(learned)}; "
    f"cameras {', '.join(name or '-' for name in opened.slots)}"
    + (" (each)" if entry.views == "each" else "")
  )
