"""The data to label, on paper: what is opened of which, and how."""

import types

import jax
import numpy as np
import pytest

from como_jax.assembly import labeling_data, offsets
from como_jax.inference import label_options, motion_checkpoint

DATA = label_options.DataOptions(
  path=None, cameras=("a",), resize=None, cache="CACHE", workers=1, threads=2, prefetch=3
)


def trained_on(section):
  model = types.SimpleNamespace(image_size=16)
  return motion_checkpoint.MotionCheckpoint("C", model, {}, {}, section, fingerprint="M")


@pytest.fixture(name="asked")
def _asked(monkeypatch):
  """What the parts were asked for; every part is of paper."""
  asked = []

  def note(value):
    return lambda *given, **more: asked.append((*given, *([more] if more else []))) or value

  table = types.SimpleNamespace(length=np.array([3, 9, 4]))
  for module, name, value in (
    (labeling_data.offsets, "choose_data", note(("given", offsets.Offset(0.5, "why")))),
    (labeling_data.data_folders, "resolve", lambda path: f"resolved {path}"),
    (labeling_data.data_folders, "to_shards", note("SHARDS")),
    (labeling_data.shards, "read_manifest", lambda folder: f"MANIFEST of {folder}"),
    (labeling_data.shards, "read_table", lambda folder: table if folder == "SHARDS" else None),
    (labeling_data.reading, "choose", note("LOADING")),
    (labeling_data.sequences, "plan", note("PLAN")),
  ):
    monkeypatch.setattr(module, name, value)
  return asked


def opened(section, **changes):
  options = types.SimpleNamespace(
    offset_seconds=0.25, data=types.SimpleNamespace(**{**vars(DATA), **changes})
  )
  return labeling_data.LabelingData(options, trained_on(section))


def test_what_is_opened(asked):
  section = {"path": "trained", "resize": "crop", "filters": {}, "cache": "OLD"}
  data = opened(section, path="P")
  assert asked[0] == ("P", section, dict(offset_seconds=0.25, checkpoint="C"))
  assert asked[1] == ("resolved given", section | {"image_size": 16, "cache": "CACHE"})
  clip = jax.ShapeDtypeStruct((9, 16, 16, 3), np.uint8)
  assert asked[2][1:] == (["SHARDS"], {"frames": clip}) and asked[2][0].threads == 2
  assert (data.source, data.folder, data.manifest, data.read_options, str(data.offset)) == (
    "resolved given",
    "SHARDS",
    "MANIFEST of SHARDS",
    "LOADING",
    "offset 0.5 s (why)",
  )
  assert data.plan() == "PLAN"
  assert asked[3] == (data.table, dict(offset_seconds=0.5, cameras=("a",), name="resolved given"))


@pytest.mark.parametrize(
  "given, trained, expected",
  [
    ("pad", {}, "pad"),
    ("pad", {"resize": "crop"}, "pad"),
    ("", {}, "squash"),
    (None, {"resize": "pad"}, "pad"),
  ],
)
def test_raw_data_are_resized_as_in_training(asked, given, trained, expected):
  opened(trained, resize=given)
  assert asked[1][1]["resize"] == expected
