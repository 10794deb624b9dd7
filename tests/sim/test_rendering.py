"""Rendering without OpenGL: what MuJoCo is asked for, and what is said when it cannot."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest

from como_jax import errors, sim
from como_jax.sim import rendering


@pytest.fixture
def mujoco(monkeypatch):
  """A stand-in that lists what it is asked for."""
  made = []

  class Renderer:
    def __init__(self, *arguments):
      made.append(self)
      self.arguments, self.closed, self.seen = arguments, 0, []
      self.scene = types.SimpleNamespace(flags={"shadow": 1, "reflection": 1, "fog": 1})

    def update_scene(self, data, *, camera, scene_option):
      self.seen.append((data, camera, scene_option.geomgroup.tolist()))

    def render(self):
      return np.full((4, 4, 3), len(self.seen), np.uint8)

    def close(self):
      self.closed += 1

  found = types.SimpleNamespace(
    made=made,
    Renderer=Renderer,
    MjvOption=lambda: types.SimpleNamespace(geomgroup=np.ones(6, int)),
    mjtRndFlag=types.SimpleNamespace(mjRND_SHADOW="shadow", mjRND_REFLECTION="reflection"),
  )
  monkeypatch.setitem(sys.modules, "mujoco", found)
  return found


def model(width=3, height=8):
  quality = types.SimpleNamespace(shadowsize=4096, offsamples=4)
  return types.SimpleNamespace(
    vis=types.SimpleNamespace(
      quality=quality, global_=types.SimpleNamespace(offwidth=width, offheight=height)
    )
  )


def test_pictures_are_plain_and_of_the_size_asked_for(mujoco):
  seen = model()
  one = rendering.Renderer(seen, 4, "toy/reach", hidden=(1, 3))
  assert (seen.vis.quality.shadowsize, seen.vis.quality.offsamples) == (0, 0)
  assert (seen.vis.global_.offwidth, seen.vis.global_.offheight) == (4, 8), (
    "never smaller than the model has it"
  )
  tall = model(8, 3)
  rendering.Renderer(tall, 4, "toy/reach")
  assert (tall.vis.global_.offwidth, tall.vis.global_.offheight) == (8, 4)
  assert not mujoco.made, "the context is made at the first picture"
  one.close()
  assert one.frame("data", "front")[0, 0, 0] == 1 and one.frame("data", "side")[0, 0, 0] == 2
  (renderer,) = mujoco.made
  assert renderer.arguments == (seen, 4, 4) and renderer.scene.flags == {
    "shadow": 0,
    "reflection": 0,
    "fog": 1,
  }
  assert renderer.seen == [("data", camera, [1, 0, 1, 0, 1, 1]) for camera in ("front", "side")]
  one.close(), one.close()
  assert renderer.closed == 1
  assert one.frame("data", "front")[0, 0, 0] == 1 and len(mujoco.made) == 2


def test_all_geoms_are_drawn_unless_hidden(mujoco):
  rendering.Renderer(model(), 4, "toy/reach").frame("data", "front")
  assert mujoco.made[0].seen == [("data", "front", [1] * 6)]


def test_a_renderer_that_fails_says_what_to_do(mujoco):
  def fail(*unused):
    raise OSError("no display")

  mujoco.Renderer = fail
  with pytest.raises(errors.UserError) as caught:
    rendering.Renderer(model(), 4, "toy/reach").frame("data", "front")
  assert str(caught.value) == (
    "toy/reach: MuJoCo cannot render here (OSError: no display). Unset MUJOCO_GL, import "
    "como_jax.sim before mujoco, or `apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri`"
  )


def test_a_choice_that_is_made_is_kept(monkeypatch):
  monkeypatch.setattr(subprocess, "run", None)  # nothing is tried
  monkeypatch.setitem(sys.modules, "mujoco", None)
  monkeypatch.setenv("MUJOCO_GL", "glfw")
  assert rendering.choose_backend() == "glfw"
  monkeypatch.delenv("MUJOCO_GL")
  assert rendering.choose_backend() == "default" and "MUJOCO_GL" not in os.environ


def test_backends_are_tried_in_order_and_their_last_words_are_told(monkeypatch):
  monkeypatch.delitem(sys.modules, "mujoco", raising=False)
  monkeypatch.setenv("MUJOCO_GL", "")
  tried = []

  def run(command, *, env, capture_output, text):
    assert command == [sys.executable, "-c", rendering._PROBE] and capture_output and text
    tried.append((env["MUJOCO_GL"], env["PYOPENGL_PLATFORM"], "PATH" in env))
    return types.SimpleNamespace(
      returncode=3, stderr="Traceback\n  first\nlast words\n" if len(tried) == 1 else "\n"
    )

  monkeypatch.setattr(subprocess, "run", run)
  with pytest.raises(errors.UserError) as caught:
    rendering.choose_backend()
  assert tried == [("egl", "egl", True), ("osmesa", "osmesa", True)]
  assert str(caught.value) == (
    "no headless OpenGL works for MuJoCo (egl: last words; osmesa: exit code 3): run `apt-get "
    "install -y libegl1 libegl-mesa0 libgl1-mesa-dri` or `apt-get install -y libosmesa6`"
  )
  monkeypatch.setattr(
    subprocess, "run", lambda *command, **more: types.SimpleNamespace(returncode=0)
  )
  assert rendering.choose_backend() == "egl" == os.environ["MUJOCO_GL"]


def stripes(low, high, count=1):
  frames = np.full((count, 2, 2, 3), low, np.uint8)
  frames[:, 1] = high
  return frames


def test_a_picture_deviates_by_two_levels():
  rendering.check_frames(stripes(100, 104), "two")
  with pytest.raises(
    errors.UserError,
    match=(
      "^dark camera: frame 0 of 1 is of a single color; the OpenGL context is broken; set "
      "MUJOCO_GL to egl or osmesa and try again$"
    ),
  ):
    rendering.check_frames(stripes(100, 103), "dark camera")


def test_two_frames_that_are_the_same_are_refused():
  with pytest.raises(
    errors.UserError,
    match=(
      "^still: all 2 frames are identical; the OpenGL context is broken; set MUJOCO_GL to egl "
      "or osmesa"
    ),
  ):
    rendering.check_frames(stripes(0, 200, 2), "still")
  moved = stripes(0, 200, 2)
  moved[1, 0, 0, 0] = 1
  rendering.check_frames(moved, "moved")


def test_only_packages_of_others_can_be_installed(monkeypatch):
  def missing(name):
    def load():
      raise ModuleNotFoundError("gone", name=name)

    return load

  monkeypatch.setitem(sim.SIMULATORS, "metaworld", missing("como_jax.sim.gone"))
  with pytest.raises(ModuleNotFoundError, match="^gone$"):
    sim.load("metaworld")
  for name in ("mujoco", None):
    monkeypatch.setitem(sim.SIMULATORS, "metaworld", missing(name))
    with pytest.raises(
      errors.UserError,
      match=f"^simulator 'metaworld' needs the package {name!r}, which is not installed: run "
      "`pip install -r requirements-sim.txt`$",
    ):
      sim.load("metaworld")


def test_a_simulator_is_built_by_name(monkeypatch):
  monkeypatch.setitem(
    sim.SIMULATORS,
    "toy",
    lambda: types.SimpleNamespace(build=lambda task, **settings: (task, settings)),
  )
  assert sim.build("toy", "line", stride=2) == ("line", {"stride": 2})
