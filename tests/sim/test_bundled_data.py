"""The data set that ships with the package is complete, small and what its card says."""

import json
import pathlib
import re

import av
import numpy as np
import pytest
from pyarrow import parquet

import como_jax

ROOT = pathlib.Path(como_jax.__file__).parent / "assets/metaworld_mini"


@pytest.fixture(scope="module")
def info():
  return json.loads((ROOT / "meta/info.json").read_text())


@pytest.fixture(scope="module")
def rows():
  return parquet.read_table(ROOT / "meta/episodes/chunk-000/file-000.parquet").to_pylist()


@pytest.fixture(scope="module")
def table(info):
  return parquet.read_table(ROOT / info["data_path"].format(chunk_index=0, file_index=0))


def test_size_and_variety(info, rows):
  assert sum(f.stat().st_size for f in ROOT.rglob("*") if f.is_file()) <= 12 * 2**20
  cameras = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
  assert len(cameras) >= 2 and info["total_tasks"] >= 5
  assert len({row["scene"] for row in rows}) >= 2
  tasks = {row["simulator_task"] for row in rows}
  assert len(tasks) == info["total_tasks"] and all(
    sum(r["simulator_task"] == t for r in rows) >= 10 for t in tasks
  )


def test_counts_agree(info, rows, table):
  assert len(rows) == info["total_episodes"]
  assert len(table) == info["total_frames"] == sum(row["length"] for row in rows)
  assert sorted(set(table["task_index"].to_pylist())) == list(range(info["total_tasks"]))
  for row in rows:
    part = table.slice(row["dataset_from_index"], row["length"])
    assert part["frame_index"].to_pylist() == list(range(row["length"]))
    assert part["next.done"].to_pylist()[-1] and part["next.success"].to_pylist()[-1]


def test_every_video_decodes_to_the_frames_counted(info, rows):
  for key in (k for k, f in info["features"].items() if f["dtype"] == "video"):
    files = {row[f"videos/{key}/file_index"] for row in rows}
    frames, deviations = 0, []
    for number in files:
      with av.open(
        str(ROOT / info["video_path"].format(video_key=key, chunk_index=0, file_index=number))
      ) as container:
        for i, frame in enumerate(container.decode(video=0)):
          assert frame.pts * frame.time_base == pytest.approx(i / info["fps"], abs=1e-9)
          assert [frame.height, frame.width] == info["features"][key]["shape"][:2]
          if i % 100 == 0:
            deviations.append(frame.to_ndarray(format="rgb24").std())
          frames += 1
    assert frames == info["total_frames"]
    assert min(deviations) > 20, "no black or empty frame"


def test_actions_explain_motion_and_point_everywhere(table):
  action, state = (
    np.array(table["action"].to_pylist()),
    np.array(table["observation.state"].to_pylist()),
  )
  episode = table["episode_index"].to_numpy()
  inside = episode[1:] == episode[:-1]
  moved = (state[1:] - state[:-1])[inside, :3]
  for axis in range(3):
    assert np.corrcoef(action[:-1][inside, axis], moved[:, axis])[0, 1] > 0.7
    assert (moved[:, axis] > 0.002).mean() > 0.1 and (moved[:, axis] < -0.002).mean() > 0.1
  assert np.abs(action).max() <= 1


def test_the_same_motion_is_there_in_two_scenes(rows, table):
  motions = {}
  for row in rows:
    motions.setdefault(row["motion"], []).append(row)
  pairs = [found for found in motions.values() if len(found) > 1]
  assert len(pairs) >= 10
  for first, second in pairs:
    assert first["scene"] != second["scene"]
    actions = [
      table["action"].slice(row["dataset_from_index"], row["length"]).to_pylist()
      for row in (first, second)
    ]
    assert actions[0] == actions[1]


def test_the_card_states_these_numbers(info, rows):
  card = (ROOT / "README.md").read_text()
  frames = f"{info['total_frames']:,}"
  for number in (
    f"{info['total_tasks']} tasks",
    f"{info['total_episodes']} episodes",
    f"{frames} time steps",
    f"{info['fps']} frames a second",
    f"{len({r['motion'] for r in rows})} motions",
    "configs/collect.py:mini",
    "MIT",
  ):
    assert number in card, number
  for task in {row["simulator_task"] for row in rows}:
    assert re.search(rf"\b{task}\b", card)
