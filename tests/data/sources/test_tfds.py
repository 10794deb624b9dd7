"""Data sets of tensorflow-datasets: what is read of them, what is refused, and no TensorFlow."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import sources, video
from tests.data import ingests, makers, tfds_makers
from tests.data.rlds_sets import KEEP, SIZE, kinds, opened, picture, rlds, shown

ROOT = pathlib.Path(__file__).parents[3]


def test_an_rlds_data_set(tmp_path):
  def change(e, steps):
    for t, step in enumerate(steps):
      step["language_instruction"] = "stop" if e == 1 and t > 2 else "go"

  path = rlds(tmp_path, change=change)
  assert sources.detect(path) == "tfds"
  source = opened(path)
  assert (source.names, source.cameras) == (("train_000000", "train_000001"), ("image", "wrist"))
  assert source.info["description"] == (
    "tensorflow-datasets toy/1.0.0, RLDS, 2 episodes at 8 frames a second"
  )
  assert source.skipped == [
    {"name": "features", "reason": "not used: gripper (source options action_key and state_key)"}
  ]
  one, two = source[0], source[1]
  assert (one.task, two.task) == ("go", ["go"] * 3 + ["stop"] * 3) and one.continuous
  np.testing.assert_array_equal(two.arrays["action"], [[t, 0.5, -t] for t in range(6)])
  np.testing.assert_array_equal(two.arrays["state"], [[t, 7] for t in range(6)])
  assert two.arrays["action"].dtype == np.float32
  assert shown(one, "image") == [(t / 8, t) for t in range(4)]
  assert [image[0, 0, 0] for _, image in one.cameras["wrist"](KEEP)] == [
    255 - (20 + 6 * t) for t in range(4)
  ]
  assert next(iter(one.cameras["image"](video.Geometry(8))))[1].shape == (8, 8, 3)
  before = source.fingerprint()
  (tmp_path / "toy/1.0.0/features.json").touch()
  assert opened(path).fingerprint() != before


def test_episodes_of_all_splits_and_text_of_an_episode(tmp_path):
  layout = tfds_makers.rlds_layout(
    SIZE,
    step_text=False,
    episode_metadata=kinds.FeaturesDict({"language_instruction": kinds.Text()}),
  )

  def example(t, text):
    return {
      "steps": [tfds_makers.step(t, picture(t), text=None)],
      "episode_metadata": {"language_instruction": text},
    }

  path = tfds_makers.write(
    tmp_path, layout, {"train": [example(1, "é"), example(2, "b")], "test": [example(3, "c")]}
  )
  source = opened(path)
  assert source.names == ("test_000000", "train_000000", "train_000001")
  assert [(source[i].task, shown(source[i], "image")[0][1]) for i in range(3)] == [
    ("c", 3),
    ("é", 1),
    ("b", 2),
  ]


def test_a_data_set_of_sequences_of_images(tmp_path):
  layout = kinds.FeaturesDict(
    {
      "gray": kinds.Sequence(kinds.Image(shape=(*SIZE, 1), encoding_format="png")),
      "label": kinds.ClassLabel(names=["a"]),
      "state": kinds.Sequence(kinds.Tensor(shape=(2,), dtype=np.float64)),
      "task": kinds.Text(),
    }
  )
  example = {
    "gray": [tfds_makers.png(picture(t)[..., 0]) for t in range(3)],
    "label": "a",
    "state": [np.array([t, 1.5]) for t in range(3)],
    "task": "look",
  }
  source = opened(tfds_makers.write(tmp_path, layout, {"train": [example]}))
  raw = source[0]
  assert (raw.task, raw.continuous, list(raw.arrays)) == ("look", False, ["state"])
  np.testing.assert_array_equal(raw.arrays["state"], [[0, 1.5], [1, 1.5], [2, 1.5]])
  assert shown(raw, "gray") == [(0, 0), (1 / 8, 1), (2 / 8, 2)]
  assert source.skipped[0]["reason"].startswith("not used: label (")


def test_without_a_rate_it_is_refused(tmp_path):
  path = rlds(tmp_path, (1,))
  with pytest.raises(errors.UserError, match=f"^{path}: .* hold no times: set .* frame_rate to"):
    sources.open_source(path)
  for rate in (-1.0, float("nan"), float("inf")):
    with pytest.raises(errors.UserError, match="source option frame_rate=.*expected frames per"):
      sources.SourceOptions(frame_rate=rate)


def test_numbers_that_are_not_finite(tmp_path):
  def change(e, steps):
    steps[3 if e == 0 else 1]["action"] = np.array([0, np.nan, 0], np.float32)

  path = rlds(tmp_path, (5, 4), change=change)
  with pytest.raises(
    video.UnreadableError, match="'action' is not finite at step 3, 1 of 5.*cut_ep"
  ):
    opened(path)[0]
  source = opened(path, invalid_rows="cut_episode")
  raw = source[0]
  assert len(raw.arrays["action"]) == len(raw.arrays["state"]) == len(shown(raw, "image")) == 3
  assert raw.notes == ["feature 'action' is not finite at step 3, 1 of 5: cut before it"]
  with pytest.raises(video.UnreadableError, match="not finite at step 1"):
    source[1]


def test_damage_costs_its_episodes_and_is_named(tmp_path):
  path = pathlib.Path(rlds(tmp_path / "data", (3, 3)))
  (file,) = path.glob("*.array_record*")
  content = bytearray(file.read_bytes())
  at = content.index(b"\x89PNG")
  content[at + 40 : at + 60] = bytes(20)
  file.write_bytes(content)
  with pytest.raises(video.UnreadableError, match="^train_00000[01]: "):
    for raw in (opened(str(path))[i] for i in range(2)):
      shown(raw, "image")


def test_a_folder_with_such_a_data_set_names_it(tmp_path):
  path = rlds(tmp_path, (1,))
  with pytest.raises(errors.UserError, match=f"holds 1 data sets of its own .{path}."):
    sources.detect(str(tmp_path))


def test_older_shards_keep_their_settings(tmp_path):
  """An option that is not used is not recorded."""
  path = makers.shards(tmp_path / "s", (3,))
  assert "frame_rate" not in json.loads((tmp_path / "s/manifest.json").read_text())["options"]
  assert (
    ingests.run(
      rlds(tmp_path, (3,)),
      str(tmp_path / "t"),
      options=sources.SourceOptions(frame_rate=5.0),
      workers=0,
      progress=False,
    ).manifest["options"]["frame_rate"]
    == 5.0
  )
  assert path


INGEST = """
import sys
from como_jax.data import ingest, sources
options = sources.SourceOptions(frame_rate=10.0)
for path, out in zip(sys.argv[1::2], sys.argv[2::2]):
  print(ingest.run(path, out, options=options, workers=0, progress=False).frames)
print([name for name in sys.modules if name.partition(".")[0] == "tensorflow"])
"""


def test_tensorflow_is_not_imported_even_where_it_is_installed(tmp_path):
  (tmp_path / "site/tensorflow").mkdir(parents=True)
  (tmp_path / "site/tensorflow/__init__.py").write_text("print('imported')")
  layout = kinds.FeaturesDict(
    {"frames": kinds.Sequence(kinds.Image(shape=(*SIZE, 3), encoding_format="png"))}
  )
  example = {"frames": [tfds_makers.png(picture(t)) for t in range(4)]}
  plain = tfds_makers.write(tmp_path, layout, {"train": [example]}, name="plain")
  folders = [rlds(tmp_path, (3,)), str(tmp_path / "a"), plain, str(tmp_path / "b")]
  told = subprocess.run(
    [sys.executable, "-c", INGEST, *folders],
    check=True,
    capture_output=True,
    text=True,
    env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path / 'site'}"},
  )
  assert told.stdout.splitlines() == ["3", "4", "[]"]
