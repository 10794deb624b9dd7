"""From a data section to batches: paths, what raw data are read with, what is said of them, and
what the pipeline is asked for.
"""

import os
import pathlib

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import data, errors
from como_jax.data import pipeline
from como_jax.data.batching import Batching
from como_jax.data.read_options import ReadOptions
from como_jax.tasks import motion_data
from tests.data import makers


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


def test_a_path_is_there_or_its_key_is_named(tmp_path, monkeypatch):
  assert motion_data.resolve("bundled") == str(motion_data.BUNDLED) and motion_data.BUNDLED.is_dir()
  assert motion_data.resolve(str(tmp_path)) == str(tmp_path)
  (tmp_path / "runs1").mkdir()
  (tmp_path / "runs1" / "manifest.json").write_text("{}")
  assert text_of(lambda: motion_data.resolve(f"{tmp_path}/rums1/", name="config.x")) == (
    f"config.x '{tmp_path}/rums1/' does not exist: did you mean '{tmp_path}/runs1'? (valid: "
    f"{tmp_path}/runs1, bundled)"
  )
  assert text_of(lambda: motion_data.resolve("gs://a/b", name="config.x")).startswith("config.x")
  monkeypatch.chdir(tmp_path)
  assert (
    text_of(lambda: motion_data.resolve("rums1"))
    == "data path 'rums1' does not exist: did you mean 'runs1'? (valid: bundled, runs1)"
  )
  assert (
    text_of(lambda: motion_data.resolve("")) == "data path '' does not exist: valid: bundled, runs1"
  )
  assert text_of(lambda: motion_data.resolve("lerobot/pusht")) == (
    "data path 'lerobot/pusht' does not exist: data sets of a hub are not downloaded: give a "
    "local folder"
  )
  assert (
    text_of(lambda: motion_data.resolve("runs1/zzz"))
    == "data path 'runs1/zzz' does not exist: valid: bundled"
  ), "a folder that is there"
  assert (
    text_of(lambda: motion_data.resolve("a/b/c"))
    == "data path 'a/b/c' does not exist: valid: bundled"
  )


@pytest.mark.parametrize(
  "files, holds",
  [
    (("manifest.json",), True),
    (("meta/info.json",), True),
    (("a.MP4",), True),
    (("deep/a.mp4",), False),
    ((), False),
  ],
)
def test_what_looks_like_data(tmp_path, files, holds):
  for name in files:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  assert motion_data._holds_data(str(tmp_path)) is holds and not motion_data._holds_data(
    str(tmp_path / "no")
  )


def test_a_folder_that_may_not_be_read_is_no_data(tmp_path, monkeypatch):
  (tmp_path / "manifest.json").touch()
  monkeypatch.setattr(motion_data.os, "access", lambda path, how: how != os.R_OK | os.X_OK)
  assert not motion_data._holds_data(str(tmp_path))


def test_where_converted_data_are_kept(monkeypatch, tmp_path):
  section = config_lib.data()
  monkeypatch.setenv("COMO_JAX_CACHE", "/cache")
  assert motion_data.cache_dir(section) == "/cache/shards"
  monkeypatch.delenv("COMO_JAX_CACHE")
  monkeypatch.setattr(motion_data.pathlib.Path, "home", lambda: pathlib.Path("/home/me"))
  assert motion_data.cache_dir(section) == "/home/me/.cache/como_jax/shards"
  section.cache = "/mine"
  assert motion_data.cache_dir(section) == "/mine"


def test_raw_data_are_read_as_the_section_says(monkeypatch):
  asked = []
  monkeypatch.setattr(
    motion_data.ingest,
    "ensure_shards",
    lambda path, **settings: asked.append((path, settings)) or "SHARDS",
  )
  assert motion_data.to_shards("raw", {"resize": "crop"}, image_size=32, cache_dir="/c") == "SHARDS"
  section = {
    "resize": "pad",
    "measure": True,
    "filters": config_lib.ConfigDict({"a": 1}),
    "source": {"action_key": "act", "camera_keys": ["x"], "path": "p"},
  }
  motion_data.to_shards("raw", section, image_size=16, cache_dir="/d")
  assert asked[0] == ("raw", dict(image_size=32, cache_dir="/c", resize="crop", options=None))
  path, settings = asked[1]
  options = settings.pop("options")
  assert (path, settings) == (
    "raw",
    dict(image_size=16, cache_dir="/d", resize="pad", measure=True, filters={"a": 1}),
  )
  assert (options.action_key, options.camera_keys) == ("act", ("x",))


def test_the_data_sets_of_a_config(monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(
    motion_data,
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
