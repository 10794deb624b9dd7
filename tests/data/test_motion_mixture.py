"""Mixtures of videos: defaults, and what cannot be built."""

import types
import warnings

import numpy as np
import pytest

from como_jax import data, errors
from como_jax.data import (
  block_order,
  index,
  motion_mixture,
  pipeline,
  policy_index,
  policy_layout,
  policy_pipeline,
  shards,
  stream,
)
from como_jax.data.batching import Batching, ProcessSlice, Split
from como_jax.data.read_options import ReadOptions
from tests.data import flat, makers
from tests.data.bare_layouts import NOTHING


def test_what_cannot_be_built(tmp_path):
  path = makers.shards(tmp_path / "s", (4, 4))
  for one, given, message in (
    (
      data.DataSet("/nowhere", weight=-1.0),
      {},
      "^data set nowhere: weight is -1.0, expected more than 0$",
    ),
    (data.DataSet(path), {"kind": "mea"}, "^unknown kind of batches 'mea': did you mean 'mae'"),
    (data.DataSet(path), {"frames": 1}, "^motion batches need at least 2 frames, got 1$"),
  ):
    with pytest.raises(errors.UserError, match=message):
      flat.motion([one], batch_size=2, image_size=8, **given)
  with pytest.raises(errors.UserError, match="^no data set is given$"):
    flat.motion([], batch_size=2, image_size=8)
  assert (
    data.DataSet("/a/b/").label == "b"
    and data.DataSet("/a/b", name="n").label == "n"
    and data.DataSet("x") == data.DataSet("x", 1.0, 0.5, (), "")
  )


class Recorded(Exception):
  """Ends a call once what it asks for is known."""


def recorder(monkeypatch, module, name):
  calls = []

  def record(*given, **more):
    calls.append((given, more))
    raise Recorded

  monkeypatch.setattr(module, name, record)
  return calls


EMPTY = policy_layout.Layout(
  normalization=NOTHING,
  language={},
  robots={},
  num_cameras=1,
  history=1,
  action_horizon=1,
  reduce="mean",
  motion_horizon=0,
  latent_size=0,
  image_size=8,
  step_seconds=0.0,
)


def test_what_nobody_says_of_batches(monkeypatch):
  """One process, from the beginning, of the training episodes: what documentation and configs leave
  out.
  """
  opened = types.SimpleNamespace(windows=range(5), label="n", dataset=data.DataSet("p"))
  monkeypatch.setattr(shards, "read_table", lambda path: "TABLE")
  monkeypatch.setattr(
    pipeline,
    "open_windows",
    lambda dataset, table, *, frames, split: asked.append((table, frames, split)) or opened,
  )
  monkeypatch.setattr(block_order, "shard_ends", lambda windows: [len(windows)])
  asked, calls = [], recorder(monkeypatch, stream, "infinite_batches")
  mixture = motion_mixture.MotionMixture([data.DataSet("p")])
  for _ in range(2):
    with pytest.raises(Recorded):
      mixture.batches(pipeline.Layout(8), Batching(4))
  read_options = ReadOptions(1, 2, 3)
  batching = Batching(4, seed=2, start_step=5, process=ProcessSlice(1, 2))
  mixture = motion_mixture.MotionMixture([data.DataSet("p")], validation_fraction=0.3)
  with pytest.raises(Recorded):
    mixture.batches(pipeline.Layout(8, kind="mae"), batching, read_options, split="all")
  assert asked == [("TABLE", 2, Split("train", 0.1)), ("TABLE", 1, Split("all", 0.3))]
  del calls[0]  # the same windows, not enumerated again
  usual = (Batching(4, seed=0, start_step=0, process=ProcessSlice(0, 1)), ReadOptions(0, 4, 4))
  assert [given[3:] for given, _ in calls] == [usual, (batching, read_options)]
  calls.clear()
  opened.entry = policy_index.PolicySet("p", weight=3.0)
  loader = types.SimpleNamespace(sets=[opened], layout=EMPTY)
  with pytest.raises(Recorded):
    policy_pipeline.batches(loader, Batching(4))
  assert calls[0][0][:2] == ([[5]], [3.0]) and calls[0][0][3:] == usual


def test_what_nobody_says_of_evaluations(monkeypatch):
  monkeypatch.setattr(shards, "read_manifest", lambda path: None)
  monkeypatch.setattr(shards, "read_table", lambda path: "TABLE")
  mixture = motion_mixture.MotionMixture([data.DataSet("p")])
  with monkeypatch.context() as patch:
    calls = recorder(patch, pipeline, "open_windows")
    with pytest.raises(Recorded):
      mixture.evaluation_windows(pipeline.Layout(8, frames=3), Batching(4))
    expected = {"frames": 3, "split": Split("validation", 0.1)}
    assert calls == [((mixture.datasets[0], "TABLE"), expected)]
  with monkeypatch.context() as patch:
    calls = []
    patch.setattr(
      index, "split", lambda table, fraction: calls.append(fraction) or np.ones(1, bool)
    )
    windows = recorder(patch, index, "windows")
    with pytest.raises(Recorded):
      mixture.describe()
    assert calls == [0.1] and windows[0][1]["frames"] == 2


def test_what_a_data_set_holds(uneven_path):
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # what is left out is among the answers
    said = flat.description(
      data.DataSet(uneven_path + "/", offset_seconds=0.1), validation_fraction=0.0
    )
  assert {
    key: said[key]
    for key in (
      "name",
      "source",
      "image_size",
      "codec",
      "cameras",
      "tasks",
      "episodes",
      "clips",
      "frames",
      "quarantined",
      "offset_seconds",
      "stride_frames",
    )
  } == {
    "name": "s",
    "source": "made by a test",
    "image_size": 0,
    "codec": "jpeg",
    "cameras": ["camera"],
    "tasks": 2,
    "episodes": 2,
    "clips": 8,
    "frames": 40,
    "quarantined": 0,
    "offset_seconds": 0.1,
    "stride_frames": [1],
  }
  assert (
    said["action"]["size"] == 3
    and said["state"]["names"] == ["x", "y"]
    and said["seconds"] == pytest.approx(4.0, abs=0.1)
  )
  assert (
    said["windows"]["validation"] == 0
    and said["windows"]["train"] == 13 + 5 + 6
    and said["windows_left_out"] == 13
  )
  assert (
    said["fingerprint"] == shards.read_manifest(uneven_path)["source"]["fingerprint"]
    and said["segments_without_window"] == 0
  )
  split = flat.description(
    data.DataSet(uneven_path, offset_seconds=1.3, name="n"), validation_fraction=0.5, frames=2
  )
  assert (
    split["name"] == "n"
    and split["windows"]["train"] + split["windows"]["validation"] == 1 + 7
    and split["segments_without_window"] == 1
  )
