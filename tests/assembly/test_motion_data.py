"""From a data section to batches: paths, what raw data are read with, what is said of them, and
what the pipeline is asked for.
"""

import dataclasses
import types

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import data, models
from como_jax.assembly import motion_data
from como_jax.data import pipeline
from como_jax.data.batching import Batching, ProcessSlice
from como_jax.data.read_options import ReadOptions
from tests.data import makers
from tests.refusals import text_of


def test_the_data_sets_of_a_config(monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(
    motion_data.data_folders,
    "to_shards",
    lambda path, section: asked.append((path, section)) or path + "/shards",
  )
  (tmp_path / "one").mkdir()
  config = config_lib.ConfigDict({"task": "motion", "data": config_lib.data().to_dict()})
  config.data.update(path=str(tmp_path / "one"), cameras=("a",), offset_seconds=0.5)
  (alone,) = motion_data.data_sets(config)
  assert alone == data.DataSet(
    path=f"{tmp_path}/one/shards", name="one", cameras=("a",), offset_seconds=0.5
  )
  assert asked == [(f"{tmp_path}/one", config.data)]
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


SPECS = {
  "motion": lambda rows, frames, *, jittered: {"frames": ("motion", rows, frames, jittered)},
  "mae": lambda rows: {"frames": ("mae", rows)},
}


@pytest.fixture(name="paper")
def _paper(monkeypatch):
  """Training data of paper, and what their mixture was asked for."""
  told = types.SimpleNamespace(facts=[], asked=[])

  class Mixture:
    paths = ["ONE"]

    def __init__(self, datasets, *, validation_fraction):
      assert datasets == ["ONE"]
      self.validation_fraction = validation_fraction

    def windows(self, split, **options):
      told.asked.append((split, options))

    def describe(self, **options):
      told.asked.append(options)
      return told.facts

    def batches(self, *records):
      told.asked.append(records)
      return "BATCHES"

    def evaluation_windows(self, *records, **more):
      told.asked.append((*records, more))
      return "WINDOWS"

  monkeypatch.setattr(motion_data, "data_sets", lambda config: ["ONE"])
  monkeypatch.setattr(motion_data.motion_mixture, "MotionMixture", Mixture)
  monkeypatch.setattr(motion_data, "augmentation", lambda section: ("AUGMENT",))
  monkeypatch.setattr(
    motion_data.reading,
    "choose",
    lambda section, paths, batch: (
      told.asked.append((section.threads, paths, batch)) or ReadOptions(3, 2, 4)
    ),
  )
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  monkeypatch.setattr(jax, "process_count", lambda: 2)

  def opened(kind="motion", *, frames=3, jitter=False, size=16, model=None, fraction=0.25):
    section = {"frames": frames, "image_size": size, "validation_fraction": fraction, "threads": 5}
    section["shuffle_shards"] = 0
    config = {
      "seed": 7,
      "model": {"kind": kind, "image_size": model or size},
      "train": {"batch_size": 8},
      "data": section,
    }
    if kind == "motion":
      config["evaluation"] = {"batch_size": 6, "windows": 11}
    return motion_data.TrainingData(
      config_lib.ConfigDict(config), types.SimpleNamespace(inputs_spec=SPECS[kind]), jitter=jitter
    )

  told.opened = opened
  return told


@pytest.fixture(name="said")
def _said(paper):
  """What is said of data with these facts."""

  def said(found, *, kind="motion", **options):
    paper.facts = [found]
    return paper.opened(kind, frames=2, **options).remarks()

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
  assert said(facts(fps=[1, 2, 3, 4, 5, 6, 7]), kind="mae") == [
    f"{start}1, 2, 3, 4, 5, 6, ... a second{end}1 frames"
  ]
  assert said(facts(fps=[]), kind="mae") == [f"{start} a second{end}1 frames"]


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


PART = Batching(8, seed=7, process=ProcessSlice(1, 2))


def test_what_a_motion_model_asks_its_data_for(paper):
  opened = paper.opened(jitter=True)
  layout = pipeline.Layout(16, "motion", 3, True, ("AUGMENT",))
  assert paper.asked == [("train", {"frames": 3}), (5, ["ONE"], {"frames": ("motion", 4, 3, True)})]
  assert opened.batch_spec == {"frames": ("motion", 8, 3, True)}
  assert opened.read_options == ReadOptions(3, 2, 4)
  del paper.asked[:]
  assert opened.batches(9) == opened.first_batches() == "BATCHES"
  assert opened.windows("train", frames=2, batch_size=7, max_windows=None) == "WINDOWS"
  assert opened.held_out() == "WINDOWS" and opened.remarks() == []
  in_order = ReadOptions(threads=5)
  assert paper.asked == [
    (layout, dataclasses.replace(PART, start_step=9), opened.read_options),
    # whole in every process
    (dataclasses.replace(layout, jitter=False), Batching(8, seed=7), ReadOptions(0, 2, 4)),
    (pipeline.Layout(16, frames=2), Batching(7), in_order, {"split": "train", "max_windows": None}),
    (
      pipeline.Layout(16, frames=3),
      Batching(6),
      in_order,
      {"split": "validation", "max_windows": 11},
    ),
    {"frames": 3},
  ]
  assert paper.opened(fraction=0.0).held_out() is None


def test_what_an_encoder_asks_its_data_for(paper):
  opened = paper.opened("mae", frames=1)
  assert paper.asked == [("train", {"frames": 1}), (5, ["ONE"], {"frames": ("mae", 4)})]
  assert opened.batch_spec == {"frames": ("mae", 8)}
  assert opened.remarks() == [] and paper.asked[2] == {"frames": 1}
  assert opened.batches(0) == "BATCHES"
  assert paper.asked[3] == (
    pipeline.Layout(16, "mae", 1, False, ("AUGMENT",)),
    PART,
    opened.read_options,
  )


def test_single_frames_of_what_is_held_out_or_of_the_training(tmp_path, monkeypatch):
  path = makers.shards(tmp_path / "s", (6, 5))
  config = config_lib.parse(["main", "--config=mae:debug"]).config
  config.data.image_size = config.model.image_size = 16
  monkeypatch.setattr(motion_data, "data_sets", lambda config: [data.DataSet(path=path)])
  model = models.build(config.model.to_dict())
  for config.data.validation_fraction, split in ((0.5, "validation"), (0.0, "train")):
    opened = motion_data.TrainingData(config, model)
    frames = opened.sample_frames(3)
    assert frames.shape == (3, 16, 16, 3) and frames.dtype == np.uint8
    every = opened.windows(split, frames=1, batch_size=1, max_windows=None)
    # of one episode, of both
    assert every.size == {"validation": 6, "train": 11}[split]
    numbers, known = (
      [makers.number(image) for image in images]
      for images in (frames, every.pictures(11)["frames"][:, 0])
    )
    assert numbers == [known[i] for i in {6: (1, 3, 5), 11: (1, 5, 9)}[len(known)]]
