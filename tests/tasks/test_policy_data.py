"""What a policy takes from its data: cameras, their slots, how frames become square, grippers."""

import dataclasses
import json

import numpy as np
import pytest

from como_jax import errors
from como_jax.assembly import policy_setup
from como_jax.data import policy_spec, video
from como_jax.data.batching import Batching
from como_jax.data.read_options import ReadOptions
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.serve import policy as serving
from como_jax.serve import policy_checkpoint
from como_jax.tasks import policy
from tests.data import makers
from tests.data.test_policy_pipeline import label
from tests.tasks.small_policy import command_of, parse, untrained


class Grasps(makers.Synthetic):
  """Two cameras; of three joints one never moves, and the last is a gripper; of two states one
  never moves.
  """

  def __getitem__(self, i):
    raw = super().__getitem__(i)
    t = raw.arrays["action"][:, 0]  # frame numbers
    wave = np.sin(t + i)
    action = np.stack([wave, 1.569 + 1e-7 * wave, np.where(t > 6, 0.6, -1.0)], 1).astype(np.float32)
    return dataclasses.replace(
      raw,
      arrays={
        "action": action,
        "state": np.stack([wave, np.zeros_like(wave)], 1).astype(np.float32),
      },
    )


@pytest.fixture(scope="module", name="grasps")
def _grasps(tmp_path_factory):
  return makers.shards(
    tmp_path_factory.mktemp("data") / "grasps", source=Grasps((12,) * 6, cameras=("front", "wrist"))
  )


def spec_of(*given):
  return policy_setup.setup(command_of(*given).config).spec


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_acting_makes_frames_square_as_ingesting_did(tmp_path, resize):
  source = makers.Synthetic((12,) * 4, size=(40, 80))
  data = makers.shards(tmp_path / "s", source=source, image_size=32, resize=resize)
  acting, _ = untrained(tmp_path / "x", f"--config.data.path={data}")
  _, raw = next(iter(source[0].cameras["camera"](video.Geometry())))
  stored = makers.segments(data)[1].images(0, "camera", [0])[0]
  seen = acting._row([{IMAGE + "camera": raw, STATE: np.zeros(2, np.float32), TASK: "task 0"}])[
    "images"
  ][0, 0]
  assert raw.shape == (40, 80, 3) and np.abs(seen.astype(int) - stored).mean() < 4  # JPEG
  if resize == "crop":
    with pytest.raises(errors.UserError, match="one side is more than 16 times the other"):
      acting._row(
        [{IMAGE + "camera": np.zeros((1, 17, 3), np.uint8), STATE: np.zeros(2, np.float32)}]
      )


@pytest.mark.parametrize(
  "entry, words, asked, mask",
  [
    ({"cameras": ("l", "r"), "views": "each"}, (), ("l",), [True]),
    ({"views": "each"}, ("--config.policy.cameras=('l', 'r')",), ("l",), [True, False]),
    ({"cameras": ("", "r")}, (), ("r",), [False, True]),
    (
      {"cameras": ("r",)},
      ("--config.policy.cameras=('front', 'side')",),
      ("front",),
      [True, False],
    ),
    ({"cameras": ("l", "r")}, (), ("l", "r"), [True, True]),
  ],
)
def test_slots_that_training_leaves_empty_are_empty_when_acting(
  tmp_path, entry, words, asked, mask
):
  data = makers.shards(tmp_path / "s", (12,) * 4, cameras=("l", "r"), size=(32, 32))
  mixture = ({"path": data, "robot": "arm", **entry},)
  acting, ready = untrained(tmp_path / "x", f"--config.data.mixture={mixture!r}", *words)
  assert acting.cameras == asked and acting.metadata["cameras"] == list(asked)
  picture = np.full((32, 32, 3), 9, np.uint8)
  row = acting._row(
    [{STATE: np.zeros(2, np.float32), TASK: "task 0", **{IMAGE + name: picture for name in asked}}]
  )
  assert (
    row["images_mask"].tolist() == mask
    and [bool(row["images"][:, slot].any()) for slot in range(len(mask))] == mask
  )
  walk = ready.data.mixture.evaluation_examples(
    ready.layout, Batching(8), ReadOptions(threads=0), split="all"
  )
  with walk.batches() as batches:
    assert all(trained == mask for trained in next(batches)["images_mask"].tolist())


def test_each_robot_is_asked_for_its_own_cameras(tmp_path):
  data = makers.shards(tmp_path / "s", (12,) * 4, cameras=("l", "r"))
  mixture = (
    {"path": data, "robot": "arm", "cameras": ("l", "r")},
    {"path": data, "robot": "bot", "cameras": ("l",)},
  )
  found = policy_setup.setup(parse(tmp_path / "x", f"--config.data.mixture={mixture!r}").config)
  assert found.data.mixture.slots == ("l", "r")
  assert {name: robot.cameras for name, robot in found.spec.robots.items()} == {
    "arm": ("l", "r"),
    "bot": ("l", ""),
  }


@pytest.mark.parametrize("kind", ["dit", "gpt"])
def test_grippers_are_found_weighted_and_said(grasps, tmp_path, kind, capsys):
  job = policy.job(command_of(tmp_path / "x", grasps, kind))
  expected = {"action": 1.0, "latent": 1.0} | ({"gripper": 1.0} if kind == "gpt" else {})
  assert job.weights == expected and job.model.terms == tuple(job.weights)
  said = capsys.readouterr().out
  for line in (
    "robot robot: action c takes two values, -1 and 0.6: it is served as one of them",
    "robot robot: action b never moves: it is served as its constant 1.569",
    "robot robot: state y never moves: the policy does not see it",
    (
      "grasps: cameras wrist are not used, the policy's slots are front: name them in "
      "config.policy.cameras"
    ),
  ):
    assert f"data: {line}\n" in said
  assert "cameras front\n" in said  # of the examples: what is used
  spec = policy_spec.PolicySpec.from_json(json.loads(job.files[policy_spec.FILE]))
  assert spec.robots["robot"].two_valued == (2,)


def test_grippers_by_choice(grasps, tmp_path):
  for wanted, dims in (("()", ()), ("('c',)", (2,)), ("('2',)", (2,))):
    spec = spec_of(tmp_path / "x", grasps, "gpt", f"--config.policy.gripper={wanted}")
    assert spec.robots["robot"].two_valued == dims
    assert spec.model["gpt"]["gripper"] == ({"robot": [2]} if dims else {})
  spec = spec_of(tmp_path / "x", grasps, "gpt", "--config.model.gpt.action_head=diffusion")
  # denoised, then decoded as one of the two
  assert spec.model["gpt"]["gripper"] == {} and spec.robots["robot"].two_valued == (2,)
  for words, message in (
    (("--config.policy.gripper=('d',)",), "config.policy.gripper: no robot has an action 'd'"),
    (
      ("--config.policy.gripper=('a',)",),
      "action 'a' of robot 'robot' has more values than two, from -",
    ),
    (
      ("--config.model.gpt.gripper={'robot': (2,)}",),
      "name the dimensions in config.policy.gripper",
    ),
  ):
    with pytest.raises(errors.UserError, match=message):
      spec_of(tmp_path / "x", grasps, "gpt", *words)


def test_a_slot_is_filled_by_the_camera_of_its_name(grasps, tmp_path):
  """In whatever order the slots are named; names that the data do not have are new ones for its
  cameras, in order.
  """
  for wanted, filled, asked in (
    (("wrist", "front"), ("wrist", "front"), ("wrist", "front")),
    (("top", "wrist"), ("", "wrist"), ("", "wrist")),
    (("a", "b"), (), ("a", "b")),
  ):
    command = command_of(tmp_path / "x", grasps, "dit", f"--config.policy.cameras={wanted!r}")
    found = policy_setup.setup(command.config)
    assert found.data.mixture.sets[0].entry.cameras == filled
    assert found.spec.robots["robot"].cameras == asked


def test_weights_of_the_loss_are_not_negative(grasps, tmp_path):
  with pytest.raises(
    errors.UserError,
    match="config.policy.objectives.gripper.weight=-1.0, expected a number of at least 0",
  ):
    spec_of(tmp_path / "x", grasps, "gpt", "--config.policy.objectives.gripper.weight=-1.0")


def test_the_checkpoint_names_cameras_and_instructions_it_was_not_given(grasps, tmp_path):
  mixture = (
    {"path": grasps, "robot": "arm"},
    {"path": grasps, "robot": "bot", "views": "each", "tasks": ("task 0",)},
  )
  command = parse(tmp_path / "x", f"--config.data.mixture={mixture!r}")
  robots = policy_setup.setup(command.config).spec.robots
  assert robots["arm"].unused_cameras == ("wrist",) and robots["bot"].unused_cameras == ()
  assert robots["arm"].instructions == {
    "count": 2,
    "empty": False,
    "examples": ["task 0", "task 1"],
  }
  assert robots["bot"].instructions == {"count": 1, "empty": False, "examples": ["task 0"]}


def test_guidance_of_a_policy_without_any_is_refused_early(grasps, tmp_path):
  command = command_of(tmp_path / "x", grasps, "gpt", "--config.policy.guidance_scale=2.0")
  with pytest.raises(errors.UserError, match="config.policy.guidance_scale=2.0: only policy=dit"):
    policy.run(command)
  assert not (tmp_path / "x").exists()


def test_other_models_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match="a policy is expected"):
    policy_checkpoint.check({"model": {"kind": "motion"}}, "m")
  with pytest.raises(errors.UserError, match="config.checkpoint is empty"):
    serving.Policy.load("")


@pytest.mark.parametrize(
  "words, message",
  [
    (("--config.data.mixture=({'path': PATH, 'labels': LABELS},)",), "no entry names a robot"),
    (
      ("--config.data.mixture=({'path': PATH, 'robo': 'x'},)",),
      "an entry has the key 'robo': did you mean 'robot'",
    ),
    (("--config.data.mixture=({'path': PATH, 'robot': 'a.b'},)",), "expected a text without a dot"),
    (("--config.data.mixture=({'path': PATH, 'robot': 'a', 'labels': '/nowhere'},)",), "nowhere"),
    (
      ("--config.data.path=PATH2", "--config.model.image_size=64"),
      "is not config.model.image_size",
    ),
    (("--config.data.path=PATH2", "--config.init=/nowhere"), "does not exist"),
    (
      (
        "--config.data.path=PATH2",
        *(
          f"--config.model.dit.{word}"
          for word in ("objective=ddpm", "ddpm={'num_train_timesteps': 4}", "num_sampling_steps=5")
        ),
      ),
      "model.dit.num_sampling_steps 5",
    ),
  ],
)
def test_mistakes_are_named_before_anything_is_written(grasps, tmp_path, words, message):
  labels = label(grasps, tmp_path / "labels") if "LABELS" in words[0] else ""
  words = [
    word.replace("PATH2", grasps).replace("PATH", repr(grasps)).replace("LABELS", repr(labels))
    for word in words
  ]
  with pytest.raises(errors.UserError, match=message):
    policy.run(parse(tmp_path / "x", *words))
  assert not (tmp_path / "x").exists()
