"""Collecting on paper: which tasks, what the writer is given, and what is said."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.data import lerobot_info, lerobot_video
from como_jax.sim import collect
from como_jax.tasks import collect as task

SECTION = dict(
  simulator="toy",
  cameras=("a", "b"),
  cameras_per_episode=0,
  image_size=8,
  scenes=(0, 1, 2),
  repeated=2,
  motions=5,
  stride=4,
  tail=0,
  noise=0.0,
  correlation=0.0,
  speed=(1.0, 1.0),
  wander=(0, 0),
  max_steps=9,
  attempts=2,
  seed=0,
  actions=True,
  build={},
)
NUMBERS = dict(
  state=np.zeros((2, 1), np.float32),
  action=np.ones((2, 1), np.float32),
  success=np.array([False, True]),
)


def episode(of):
  return collect.Episode(
    instruction=f"do {of}",
    frames={"a": np.zeros((2, 8, 8, 3), np.uint8)},
    metadata={"simulator_task": of},
    **NUMBERS,
  )


@pytest.fixture(name="toy")
def _toy(monkeypatch, tmp_path):
  """A simulator, a writer and a bar of paper: what they were told."""
  told = SimpleNamespace(
    closed=[], writers=[], episodes=[], notes=[], bars=[], lines=[], updates=0, built=[]
  )
  spec = SimpleNamespace(fps=20.0, state_names=("x",), action_names=("dx",), robot="arm")
  monkeypatch.setattr(
    task.sim,
    "load",
    lambda name: {
      "toy": SimpleNamespace(TASKS={"reach": "r", "push": "p"}, VERSION="toy 1", EXPERT="script")
    }[name],
  )
  monkeypatch.setattr(
    collect,
    "build",
    lambda settings, name: (
      told.built.append(name) or SimpleNamespace(spec=spec, close=lambda: told.closed.append(name))
    ),
  )
  monkeypatch.setattr(
    collect,
    "collect_task",
    lambda settings, name: iter(
      [episode(name), episode(name), collect.Tally(name, 3, {"reach": 5, "push": 2}[name])]
    ),
  )

  class Writer:
    def __init__(self, output, rate, features, **settings):
      told.writers.append((output, rate, features, settings))
      output.mkdir(parents=True)
      (output / "file").write_bytes(b"x" * 2**19)

    def __enter__(self):
      return self

    def __exit__(self, *unused):
      pass

    def add_episode(self, *given, **more):
      told.episodes.append((given, more))

    def finalize(self, *, notes):
      told.notes.append(notes)

  class Bar(Writer):
    def __init__(self, **settings):
      told.bars.append(settings)

    def write(self, line):
      told.lines.append(line)

    def update(self):
      told.updates += 1

  monkeypatch.setattr(task.lerobot_writer, "Writer", Writer)
  monkeypatch.setattr(task.tqdm, "tqdm", Bar)
  return told


def config(*, tasks=(), output="", workers=1, **changes):
  return config_lib.ConfigDict(
    dict(
      task="collect",
      output=output,
      tasks=tasks,
      workers=workers,
      collect={**SECTION, **changes},
      video=dict(crf=30),
    )
  )


def test_a_data_set_is_written_with_its_notes(toy, tmp_path, capsys):
  assert task.run(SimpleNamespace(config=config(), workdir=tmp_path / "run")) == 0
  output = tmp_path / "run" / "dataset"
  assert toy.built == toy.closed == ["reach"]
  assert toy.writers == [
    (
      output,
      5.0,
      lerobot_info.Features({"a": (8, 8), "b": (8, 8)}, ("x",), ("dx",), outcome=True),
      dict(robot_type="arm", video=lerobot_video.VideoOptions(crf=30)),
    )
  ]
  assert (
    toy.bars == [dict(total=2 * (5 + 2 * 2), unit="episode", desc="collect", mininterval=30.0)]
    and toy.updates == len(toy.episodes) == 4
  )
  (instruction, frames), more = toy.episodes[0]
  assert (
    instruction == "do reach"
    and set(frames) == {"a"}
    and more["metadata"] == {"simulator_task": "reach"}
  )
  assert all(more[name] is value for name, value in NUMBERS.items())
  assert [given[0] for given, _ in toy.episodes] == ["do reach", "do reach", "do push", "do push"]
  assert toy.lines == ["push: only 2 of 5 motions in 3 attempts"]
  plain = json.loads(config_lib.to_json(config()))
  assert toy.notes == [
    {
      "config": plain,
      "simulator": "toy 1",
      "labeled_as": "script",
      "success": {"reach": "5/3", "push": "2/3"},
    }
  ]
  assert capsys.readouterr().out == f"wrote {output}: 0.50 MiB, 7 of 6 attempts succeeded\n"


def test_video_alone_has_no_numbers_and_says_so(toy, tmp_path, monkeypatch):
  monkeypatch.setattr(task.sys.stderr, "isatty", lambda: True, raising=False)
  output = str(tmp_path / "out")
  assert (
    task.collect_dataset(
      config(tasks=("push",), output=output, actions=False, repeated=9), str(tmp_path)
    )
    == tmp_path / "out"
  )
  ((_, _, features, _),) = toy.writers
  assert (features.state_names, features.action_names, features.outcome) == ((), (), False)
  assert toy.built == ["push"]
  assert all(more[name] is None for _, more in toy.episodes for name in NUMBERS)
  assert toy.bars[0]["total"] == 5 + 2 * 5 and toy.bars[0]["mininterval"] == 1.0
  assert (
    toy.notes[0]["labeled_as"] == "video without actions; recorded from a script"
    and toy.notes[0]["config"]["output"] == ""
  )


def test_a_task_that_the_simulator_does_not_have(toy, tmp_path):
  with pytest.raises(errors.UserError) as caught:
    task.collect_dataset(config(tasks=("reach", "rech")), str(tmp_path))
  assert (
    str(caught.value)
    == "config.tasks: toy task 'rech' is unknown: did you mean 'reach'? (valid: push, reach)"
  )
  assert not toy.built and not toy.writers


def test_the_size_of_a_folder(tmp_path):
  (tmp_path / "deep").mkdir()
  (tmp_path / "deep" / "a").write_bytes(b"xxx")
  (tmp_path / "b").write_bytes(b"xx")
  assert task.total_size(str(tmp_path)) == 5
