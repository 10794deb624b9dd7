"""From a data section to batches: paths, what raw data are read with, what is said of them, and
what the pipeline is asked for.
"""

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import data
from como_jax.assembly import motion_data
from como_jax.data import pipeline
from como_jax.data.batching import Batching
from como_jax.data.read_options import ReadOptions
from tests.data import makers
from tests.refusals import text_of


def test_the_data_sets_of_a_config(monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(
    motion_data.data_folders,
    "to_shards",
    lambda path, section, **more: asked.append((path, more)) or path + "/shards",
  )
  (tmp_path / "one").mkdir()
  config = config_lib.ConfigDict({"task": "motion", "data": config_lib.data().to_dict()})
  config.data.update(
    path=str(tmp_path / "one"), cameras=("a",), offset_seconds=0.5, image_size=48, cache="/c"
  )
  (alone,) = motion_data.data_sets(config)
  assert alone == data.DataSet(
    path=f"{tmp_path}/one/shards", name="one", cameras=("a",), offset_seconds=0.5
  )
  assert asked == [(f"{tmp_path}/one", {"image_size": 48, "cache_dir": "/c"})]
  with config.ignore_type():
    config.data.mixture = (
      {"path": f"{tmp_path}/one/"},
      {
        "path": "bundled",
        "name": "other",
        "offset_seconds": 0.25,
        "cameras": ("b",),
        "weight": 3.0,
      },
    )
  one, other = motion_data.data_sets(config)
  assert one == data.DataSet(
    path=f"{tmp_path}/one//shards", name="one", cameras=(), offset_seconds=0.5
  )
  assert (other.name, other.offset_seconds, tuple(other.cameras), other.weight) == (
    "other",
    0.25,
    ("b",),
    3.0,
  )


def facts(**changes):
  return {
    "name": "toys",
    "episodes": 4,
    "frames": 43,
    "fps": [10.0],
    "cameras": ["a", "b"],
    "windows": {"train": 30, "validation": 5},
    "offset_seconds": 0.5,
    "stride_frames": [5],
    "windows_left_out": 0,
    "image_size": 16,
    **changes,
  }


@pytest.fixture(name="said")
def _said(monkeypatch, capsys):
  """What `check` prints of data with these facts."""

  class Mixture:
    def __init__(self, datasets, *, validation_fraction):
      assert (datasets, validation_fraction) == (["ONE"], 0.25)
      self.found, self.asked = [], []

    def windows(self, split, **options):
      self.asked.append((split, options))

    def describe(self, **options):
      self.asked.append(options)
      return self.found

  monkeypatch.setattr(motion_data, "data_sets", lambda config: ["ONE"])
  monkeypatch.setattr(motion_data.motion_mixture, "MotionMixture", Mixture)

  def said(found, *, frames=2, jitter=False, size=16, model=None):
    config = config_lib.ConfigDict({"data": {"image_size": size, "validation_fraction": 0.25}})
    opened = motion_data.MotionData(config)
    opened.mixture.found.append(found)
    opened.check(image_size=model or size, frames=frames, jitter=jitter)
    assert opened.mixture.asked == [("train", {"frames": frames}), {"frames": frames}]
    return capsys.readouterr().out.splitlines()

  return said


def test_what_there_is_to_train_on_is_said(said):
  start, end = (
    "data: toys: 4 episodes, 43 frames at ",
    ", cameras a, b; 30 training and 5 validation windows of ",
  )
  assert said(facts()) == [f"{start}10 a second{end}2 frames, 0.5 s (5 frames) apart"]
  assert said(facts(windows_left_out=3, fps=[1.5, 2, 3, 4, 5, 6], stride_frames=[5, 6])) == [
    f"{start}1.5, 2, 3, 4, 5, 6 a second{end}2 frames, 0.5 s (5, 6 frames) apart, 3 left out"
  ]
  assert said(facts(fps=[1, 2, 3, 4, 5, 6, 7]), frames=1) == [
    f"{start}1, 2, 3, 4, 5, 6, ... a second{end}1 frames"
  ]
  assert said(facts(fps=[]), frames=1) == [f"{start} a second{end}1 frames"]


def test_data_that_do_not_go_with_the_model_are_said(said):
  assert (
    text_of(lambda: said(facts(), size=16, model=32))
    == "config.data.image_size=16 is not config.model.image_size=32"
  )
  assert len(said(facts(), size=16)) == len(said(facts(image_size=0), size=32)) == 1, (
    "0: of the source's own size"
  )
  assert said(facts(), size=32)[1:] == [
    (
      "data: toys: its shards hold frames of 16 px, enlarged for a model of 32 px: ingest the "
      "source with --config.shards.image_size=32"
    )
  ]
  assert len(said(facts(fps=[2.0, 10.0]), jitter=True)) == 1, (
    "a fifth of 0.5 s is a frame at 10 a second"
  )
  assert len(said(facts(fps=[8.0]))) == 1
  assert said(facts(fps=[4.0, 8.0]), jitter=True)[1:] == [
    "data: toys: no frame lies within a fifth of 0.5 s around a pair's second one, so the "
    "contrastive term's positive pair is the pair itself; raise config.data.offset_seconds to "
    "0.625 or more"
  ]


def test_the_transforms_that_are_switched_on():
  section = config_lib.ConfigDict({"augment": {"shift": {"on": False}, "flip": {"on": False}}})
  assert motion_data.augmentation(section) == ()
  section = config_lib.data()
  for name in section.augment:
    section.augment[name].on = True
  assert len(motion_data.augmentation(section)) == len(section.augment) > 0


def test_what_the_mixture_is_asked_for(monkeypatch):
  asked = []

  class Mixture:
    paths = ["ONE"]

    def __init__(self, datasets, **options):
      asked.append((datasets, options))

    def batches(self, *records):
      asked.append(records)
      return "BATCHES"

    def evaluation(self, *records, **more):
      asked.append((*records, more))
      return "WINDOWS"

  monkeypatch.setattr(motion_data, "data_sets", lambda config: ["ONE"])
  monkeypatch.setattr(motion_data.motion_mixture, "MotionMixture", Mixture)
  monkeypatch.setattr(motion_data, "augmentation", lambda section: ("AUGMENT",))
  monkeypatch.setattr(motion_data.reading, "choose", lambda *given: given)
  section = {"frames": 3, "image_size": 16, "validation_fraction": 0.25, "threads": 5}
  config = config_lib.ConfigDict({"data": {**section, "augment": {}}})
  batching = Batching(8, seed=7)
  opened = motion_data.MotionData(config)
  options = ReadOptions(workers=1, threads=2, prefetch=4)
  assert opened.batches(batching, options, kind="mae", jitter=True) == "BATCHES"
  assert opened.windows("train", frames=2, batch_size=6, max_windows=11) == "WINDOWS"
  assert asked == [
    (["ONE"], {"validation_fraction": 0.25}),
    (pipeline.Layout(16, "mae", 3, True, ("AUGMENT",)), batching, options),
    (
      pipeline.Layout(16, frames=2),
      Batching(6),
      ReadOptions(threads=5),
      {"split": "train", "max_windows": 11},
    ),
  ]
  assert opened.choose_read_options("BATCH") == (config.data, ["ONE"], "BATCH")


def test_single_frames_of_a_split(tmp_path, monkeypatch):
  path = makers.shards(tmp_path / "s", (6, 5))
  config = config_lib.ConfigDict(
    {"data": {"image_size": 16, "validation_fraction": 0.5, "threads": 0}}
  )
  monkeypatch.setattr(motion_data, "data_sets", lambda config: [data.DataSet(path=path)])
  opened = motion_data.MotionData(config)
  found = {split: opened.sample_frames(split, count=3) for split in ("train", "validation")}
  for frames in found.values():
    assert frames.shape == (3, 16, 16, 3) and frames.dtype == np.uint8
    numbers = [makers.number(image) for image in frames]
    assert numbers == sorted(set(numbers)) and numbers[-1] - numbers[0] >= 3, (
      "spread over the episode"
    )
