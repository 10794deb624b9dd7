"""A profile of some steps: what is recorded, when, and that a failure does not end the run."""

import subprocess
import sys

import jax
import pytest

from como_jax.train import profile as profile_lib


@pytest.fixture(name="recorded")
def _recorded(monkeypatch):
  """What the profiler was told."""
  told = []
  monkeypatch.setattr(profile_lib.profiler, "start", lambda folder: told.append(("start", folder)))
  monkeypatch.setattr(profile_lib.profiler, "stop", lambda: told.append("stop"))
  return told


def made(folder, said, *, first=2, last=3, **more):
  return profile_lib.Profile(folder, first=first, last=last, say=said.append, **more)


def test_training_needs_no_tensorflow():
  code = "import sys, como_jax.train.fit; sys.exit('tensorflow' in sys.modules)"
  subprocess.run([sys.executable, "-c", code], check=True)


def test_the_steps_are_in_the_file(tmp_path):
  said = []
  profile = made(tmp_path, said)
  step = jax.jit(lambda x: x @ x)
  for number in range(1, 6):
    if number == profile.first:
      profile.start()
    with jax.profiler.StepTraceAnnotation("train", step_num=number):
      step(jax.numpy.ones((8, 8))).block_until_ready()
    if number == profile.last:
      profile.stop()
  profile.close()
  (file,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
  events = [
    event
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes
    for line in plane.lines
    for event in line.events
    if event.name == "train"
  ]
  assert sorted(dict(event.stats)["step_num"] for event in events) == [2, 3]
  assert said == [
    f"profile: written into {file.parent}; to look at it: pip install "
    f"tensorboard xprof; tensorboard --logdir {tmp_path}"
  ]


def test_a_run_that_ends_before_the_last_step_writes_what_there_is(tmp_path, recorded):
  said = []
  profile = made(tmp_path, said)
  profile.start()
  profile.close()
  assert recorded == [("start", str(tmp_path)), "stop"] and len(said) == 1
  profile.close()
  assert len(recorded) == 2 == len(said) + 1, "once"


def test_a_profile_that_was_not_begun_is_said(tmp_path, recorded):
  said = []
  made(tmp_path, said, first=9).close()
  assert said == ["profile: there is none, as step 9 was not run"] and not recorded


def test_the_other_processes_record_nothing(tmp_path, recorded):
  said = []
  profile = made(tmp_path, said, records=False)
  profile.start()
  profile.stop()
  profile.close()
  assert not recorded and not said


def test_what_fails_is_said(tmp_path, monkeypatch):
  def fail(*unused):
    raise RuntimeError("no")

  said = []
  monkeypatch.setattr(profile_lib.profiler, "start", lambda folder: None)
  monkeypatch.setattr(profile_lib.profiler, "stop", fail)
  profile = made(tmp_path, said)
  profile.start()
  profile.stop()
  monkeypatch.setattr(profile_lib.profiler, "start", fail)
  profile = made(tmp_path, said)
  profile.start()
  profile.stop()
  profile.close()
  assert said == [
    f"profile: it cannot be written into {tmp_path} and is left out: no",
    "profile: it cannot be started and is left out: no",
  ]
