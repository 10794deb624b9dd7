"""Collection from a simulator's experts: what is stored, and that it can be repeated."""

import dataclasses
import importlib.util
import json
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from pyarrow import parquet

from como_jax import errors
from como_jax.sim import collect
from tests.sim.collection import SETTINGS


def needs_metaworld():
  if importlib.util.find_spec("metaworld") is None:
    pytest.skip("pip install -r requirements-sim.txt")


@pytest.mark.sim
def test_episodes_of_one_task():
  needs_metaworld()
  *episodes, tally = collect.collect_task(SETTINGS, "drawer-close")
  assert tally.successes == 2 and len(episodes) == 3, (
    "the first motion in both scenes, the second in one"
  )
  first, again, other = episodes
  np.testing.assert_array_equal(first.action, again.action)
  np.testing.assert_array_equal(first.state, again.state)
  assert first.metadata["motion"] == again.metadata["motion"] != other.metadata["motion"]
  assert [e.metadata["scene"] for e in episodes] == [0, 1, 1]
  for episode in episodes:
    length = len(episode.action)
    assert (
      set(episode.frames) == {"view0", "view1"} and episode.success[-1] and not episode.success[0]
    )
    assert all(frames.shape == (length, 32, 32, 3) for frames in episode.frames.values())
    assert episode.metadata["camera/view0"] != episode.metadata["camera/view1"]
    moved = episode.state[1:, :3] - episode.state[:-1, :3]
    assert np.corrcoef(np.ravel(episode.action[:-1, :3]), np.ravel(moved))[0, 1] > 0.5, (
      "actions belong to their frames"
    )
  assert np.abs(first.frames["view0"].astype(int) - again.frames["view0"]).mean() > 5, (
    "another scene looks different"
  )


@pytest.mark.sim
def test_what_never_succeeds_is_given_up():
  needs_metaworld()
  settings = dataclasses.replace(SETTINGS, max_steps=4, motions=1, attempts=2)
  assert list(collect.collect_task(settings, "reach")) == [
    collect.Tally("reach", attempts=2, successes=0)
  ]


@pytest.mark.sim
@pytest.mark.parametrize("workers", [1, 2])
def test_the_task_writes_a_data_set(tmp_path, workers):
  needs_metaworld()
  from como_jax import config as config_lib
  from como_jax.tasks import collect as task

  section = dataclasses.asdict(dataclasses.replace(SETTINGS, motions=1, repeated=0, stride=8))
  config = config_lib.ConfigDict(
    dict(
      task="collect",
      output="",
      tasks=("reach", "drawer-close"),
      workers=workers,
      collect=section,
      video=dict(crf=30, gop=4),
    )
  )
  path = task.collect_dataset(config, str(tmp_path))
  assert path == tmp_path / "dataset"
  info = json.loads((path / "meta/info.json").read_text())
  assert (info["fps"], info["total_episodes"], info["robot_type"]) == (10, 2, "sawyer")
  notes = json.loads((path / "meta/collection.json").read_text())
  assert list(notes["success"]) == ["reach", "drawer-close"] and str(tmp_path) not in json.dumps(
    notes
  )
  rows = parquet.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
  assert [row["simulator_task"] for row in rows] == ["reach", "drawer-close"], (
    "in order, whatever the number of processes"
  )
  with pytest.raises(errors.UserError, match="exists already"):
    task.collect_dataset(config, str(tmp_path))
  with pytest.raises(errors.UserError, match="did you mean 'reach'"):
    task.collect_dataset(_with_task(config, "reich"), str(tmp_path))


def test_several_processes_keep_the_order_and_few_tasks_wait(monkeypatch):
  pools, waiting, most = [], set(), []

  class Pool:
    def __init__(self, workers, **settings):
      pools.append((workers, settings))

    def __enter__(self):
      return self

    def __exit__(self, *unused):
      pass

    def submit(self, function, settings, name):
      assert function is collect._whole_task
      waiting.add(name)
      most.append(len(waiting))

      def result():
        waiting.discard(name)
        return function(settings, name)

      return SimpleNamespace(result=result)

  monkeypatch.setattr(collect.concurrent.futures, "ProcessPoolExecutor", Pool)
  monkeypatch.setattr(
    collect, "collect_task", lambda settings, name: iter([(settings, name, 0), (settings, name, 1)])
  )
  expected = [(SETTINGS, name, i) for name in "abcde" for i in (0, 1)]
  for workers in (0, 1):
    assert list(collect.collect_tasks(SETTINGS, "abcde", workers=workers)) == expected and not pools
  assert list(collect.collect_tasks(SETTINGS, "abcde", workers=2)) == expected
  ((workers, given),) = pools
  assert workers == 2 and given.pop("mp_context").get_start_method() == "spawn"
  assert (
    given == dict(initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL))
    and max(most) == 3
  )


@pytest.mark.sim
def test_arguments_of_build_are_checked():
  needs_metaworld()
  with pytest.raises(
    errors.UserError, match="collect.build: metaworld has no 'strde': did you mean 'stride'"
  ):
    collect.build(dataclasses.replace(SETTINGS, build={"strde": 2}), "reach")


def _with_task(config, name):
  changed = config.copy_and_resolve_references()
  changed.tasks = (name,)
  return changed


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(cameras=()), "at least one camera"),
    (dict(scenes=()), "scene"),
    (dict(cameras_per_episode=4), "cameras_per_episode = 4"),
    (dict(motions=0), "motions = 0"),
    (dict(max_steps=3), "max_steps = 3: expected at least 4"),
  ],
)
def test_impossible_settings_are_refused(change, message):
  with pytest.raises(errors.UserError, match=message):
    dataclasses.replace(SETTINGS, **change)
