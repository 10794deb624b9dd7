"""Training a policy, acting with it, and that acting sees exactly what training saw."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors, models
from como_jax.assembly import policy_setup, policy_start
from como_jax.data import policy_spec, shards, video
from como_jax.data.batching import Batching
from como_jax.data.read_options import ReadOptions
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.serve import policy as serving
from como_jax.tasks import policy, policy_scoring, serve
from como_jax.train import log
from tests.data import flat, makers
from tests.data.test_policy_pipeline import label

TINY = (
  "--config.model.image_size=32",
  "--config.data.image_size=32",
  "--config.model.encoder.size=16x1x2/16",
  "--config.encoder_weights=",
  "--config.model.trunk.width=16",
  "--config.model.trunk.depth=1",
  "--config.model.trunk.num_heads=2",
  "--config.model.trunk.mlp_dim=32",
  "--config.model.dit.width=16",
  "--config.model.dit.depth=1",
  "--config.model.dit.num_heads=2",
  "--config.model.dit.mlp_dim=32",
  "--config.model.dit.num_sampling_steps=2",
  "--config.model.pool=1",
  "--config.model.action_horizon=3",
  "--config.language.width=8",
  "--config.train.batch_size=8",
  "--config.train.tensorboard=False",
  "--config.data.validation_fraction=0.3",
  "--config.model.history=2",
)


def parse(workdir, *words):
  return config_lib.parse(
    ["main", "--config=configs/policy.py:debug", f"--workdir={workdir}", *TINY, *words]
  )


@pytest.fixture(scope="module", name="path")
def _path(tmp_path_factory):
  return makers.shards(tmp_path_factory.mktemp("data") / "s", (12,) * 8)


@pytest.fixture(scope="module", name="labels")
def _labels(path, tmp_path_factory):
  return label(path, tmp_path_factory.mktemp("labels") / "l")


@pytest.fixture(scope="module", name="run")
def _run(path, labels, tmp_path_factory):
  """A finished run on a robot and a video entry."""
  folder = tmp_path_factory.mktemp("runs") / "policy"
  mixture = ({"path": path, "robot": "arm", "episodes": (0, 2)}, {"path": path, "labels": labels})
  assert policy.run(parse(folder, f"--config.data.mixture={mixture!r}")) == 0
  return folder


def observation(path, segment, t, cameras):
  """What a robot would send at frame t of a segment."""
  segments, read = makers.segments(path)
  seen = {IMAGE + name: read.images(segment, name, [t])[0] for name in cameras}
  task = segments.table.tasks[segments.table.task[segments.locate(segment, t)[0]]]
  return seen | {STATE: read.numbers(segment, "state", t, t + 1)[0], TASK: task}


def test_the_weights_hold_all_that_acting_needs(run):
  spec = serving.load(str(run))[1]
  assert list(spec.robots) == ["arm"]
  arm = spec.robots["arm"]
  assert (arm.action, arm.state, arm.action_names) == (3, 2, ("a", "b", "c"))
  assert (arm.step_seconds, arm.cameras, arm.unused_cameras) == (0.1, ("camera",), ())
  assert arm.instructions == {"count": 2, "empty": False, "examples": ["task 0", "task 1"]}
  assert set(arm.transforms) == {"action", "state"}
  assert (
    spec.model["robots"] == {"arm": {"action": 3, "state": 2}}
    and spec.model["latent"]["num_queries"] == 1
  )
  assert (spec.latent.latent_model, spec.latent.latent_offset_seconds) == ("aaaa", 0.2)
  command = parse(run)  # what the data said is not in the config, which stays as it was given
  stored = json.loads((run / "config.json").read_text())
  assert set(stored) == set(command.config) and stored["model"] == command.config.model.to_dict()
  lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
  last = [line for line in lines if line["kind"] == "validation"][-1]
  assert {"action_mse", "action_mse_first", "latent_mse"} <= set(last) and all(
    np.isfinite(last[key]) for key in ("action_mse", "latent_mse")
  )


def test_acting_sees_what_training_saw(run, path):
  """The batch made of observations equals the one made of the data set, array by array."""
  acting = serving.Policy.load(str(run))
  command = parse(run, f"--config.data.path={path}", "--config.policy.robot=arm")
  spec = serving.load(str(run))[1]
  found = policy_setup.setup(command.config, policy_start.StartingPolicy("the run", spec))
  assert found.spec.normalization == spec.normalization
  walk = found.data.mixture.evaluation(
    found.layout, Batching(5), ReadOptions(threads=0), split="all"
  )
  with walk.batches() as batches:
    batch = next(batches)
  table = shards.read_table(path)
  for i in range(5):
    # an episode is one segment here
    row = int(
      np.flatnonzero(table.episode == table.episodes.index(walk.episodes[batch["episode"][i]]))[0]
    )
    t = int(batch["time"][i])
    row_now = acting._row(
      [
        observation(path, row, max(t - 1, 0), acting.cameras),
        observation(path, row, t, acting.cameras),
      ]
    )
    for name, value in row_now.items():
      np.testing.assert_array_equal(value, batch[name][i], err_msg=name)


def test_actions_come_back_in_their_own_units(run, path):
  acting = serving.Policy.load(str(run), batch_size=2)
  seen = observation(path, 0, 3, acting.cameras)
  actions = acting.infer([[seen]] * 3, seed=5)
  assert actions.shape == (3, 3, 3) and actions.dtype == np.float32 and np.isfinite(actions).all()
  rows = [acting._row([seen])] * 2
  batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  normalized = np.asarray(acting._sample(acting._params, batch, jax.random.key(5)))
  (affine,) = serving.load(str(run))[1].robots["arm"].transforms["action"]
  np.testing.assert_allclose(
    actions[:2], normalized * np.array(affine.scale) + np.array(affine.shift), rtol=1e-5, atol=1e-5
  )
  np.testing.assert_array_equal(actions, acting.infer([[seen]] * 3, seed=5))
  assert not np.array_equal(actions, acting.infer([[seen]] * 3, seed=6))


@pytest.mark.parametrize(
  "change, message",
  [
    ({STATE: np.zeros(3, np.float32)}, "expected 2 finite numbers"),
    ({STATE: np.full(2, np.nan, np.float32)}, "expected 2 finite numbers"),
    ({TASK: 7}, "expected a text"),
    ({"image": np.zeros((8, 8), np.uint8)}, r"expected uint8 \[H, W, 3\]"),
    ({"image": None}, "has no camera"),
  ],
)
def test_bad_observations_are_named(run, path, change, message):
  acting = serving.Policy.load(str(run))
  seen = observation(path, 0, 0, acting.cameras)
  if "image" in change:
    image = change.pop("image")
    seen.pop(IMAGE + acting.cameras[0])
    seen |= {} if image is None else {IMAGE + acting.cameras[0]: image}
  with pytest.raises(errors.UserError, match=message):
    acting.infer([[seen | change]])


def test_a_new_robot_gets_a_new_head_and_the_rest_goes_on(run, path, tmp_path, capsys):
  before, old = serving.load(str(run))
  command = parse(
    tmp_path / "next",
    f"--config.init={run}",
    f"--config.data.path={path}",
    "--config.policy.robot=bot",
    "--config.train.steps=1",
    "--config.train.optimizer.learning_rate=0.0",
    "--config.train.ema=0.0",
    "--config.train.optimizer.weight_decay=0.0",
  )
  assert policy.run(command) == 0
  assert "new heads: bot" in capsys.readouterr().out
  after, new = serving.load(str(tmp_path / "next"))
  assert list(new.robots) == ["arm", "bot"] and set(after["heads"]) == {"arm", "bot", "latent"}
  assert new.robots["arm"] == old.robots["arm"] and new.latent == old.latent
  jax.tree.map(
    np.testing.assert_array_equal,
    *((one["trunk"], one["dit"], one["heads"]["arm"]) for one in (before, after)),
  )


def test_a_run_of_an_older_version_goes_on_in_its_own_units(run, path, labels, tmp_path):
  """Its config holds what its data said; from now on `policy.json` does."""
  folder = tmp_path / "old"
  shutil.copytree(run, folder)
  (folder / policy_spec.FILE).unlink()
  stored = json.loads((folder / "config.json").read_text())
  mixture = ({"path": path, "robot": "arm", "episodes": (0, 2)}, {"path": path, "labels": labels})
  words = (f"--config.data.mixture={mixture!r}", "--resume", "--config.train.steps=4")
  numbers = policy_setup.policy_data.PolicyData(parse(folder, *words).config).statistics()
  action = dataclasses.replace(
    numbers.robots["arm"]["action"], std=7 * numbers.robots["arm"]["action"].std
  )
  robots = {"arm": {**numbers.robots["arm"], "action": action}}
  stored["normalization"] = flat.stored_normalization("standard", robots, numbers.latent)
  stored["robots"] = {"arm": {"action_names": ["a", "b", "c"], "step_seconds": 0.1}}
  stored["policy"] |= {"cameras": ["camera"], "resize": "squash", "latent_model": "aaaa"}
  stored["policy"]["latent_offset_seconds"] = 0.2
  stored["model"] = dict(serving.load(str(run))[1].model)
  (folder / "config.json").write_text(json.dumps(stored))
  assert policy.run(parse(folder, *words)) == 0
  spec, fresh = (serving.load(str(one))[1] for one in (folder, run))
  (affine,), (other,) = (one.robots["arm"].transforms["action"] for one in (spec, fresh))
  np.testing.assert_allclose(affine.scale, 7 * np.array(other.scale))
  assert spec.latent == fresh.latent
  assert "normalization" not in json.loads((folder / "config.json").read_text())
  assert policy.run(parse(folder, *words, "--config.train.steps=5")) == 0
  assert serving.load(str(folder))[1] == spec
  with pytest.raises(errors.UserError, match="policy.reduce: 'mean' before, 'last' now"):
    policy.run(parse(folder, *words, "--config.policy.reduce=last"))


def test_a_policy_is_scored_without_a_step(run, path, labels, tmp_path, capsys):
  logged = {name: values[-1] for name, (_, values) in log.read(run, kind="validation").items()}
  mixture = ({"path": path, "robot": "arm", "episodes": (0, 2)}, {"path": path, "labels": labels})

  def scored(name, *words):
    return policy.run(
      parse(
        tmp_path / name,
        f"--config.init={run}",
        "--config.train.steps=0",
        f"--config.data.mixture={mixture!r}",
        *words,
      )
    )

  assert scored("a") == 0 and not {"weights", "checkpoints"} & {
    path.name for path in (tmp_path / "a").iterdir()
  }
  found = json.loads((tmp_path / "a" / policy_scoring.EVALUATION).read_text())
  # validated in training
  assert [found.pop("policy"), *found.pop("data")] == [
    str(run),
    path,
    path,
  ] and found == pytest.approx(logged, rel=1e-5)
  assert (
    f"{run} on held-out examples: action_mse {logged['action_mse']:.4g}, "
    in capsys.readouterr().out
  )
  for words, why in (
    (
      ("--config.data.mixture=()", f"--config.data.path={path}", "--config.policy.robot=bot"),
      "no head for robot 'bot'.*arm",
    ),
    (["--config.data.validation_fraction=0.0"], "fraction is 0"),
    (["--config.init="], "give --config.init=RUN"),
    (["--config.policy.reduce=last"], "policy.reduce is 'last', that of the policy .* is 'mean'"),
  ):
    with pytest.raises(errors.UserError, match=why):
      scored("b", *words)
  assert not (tmp_path / "b").exists()
  (tmp_path / "a" / "weights").mkdir()
  with pytest.raises(
    errors.UserError, match="a holds a trained policy: to score it give --config.init="
  ):
    scored("a", "--resume")


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
def test_mistakes_are_named_before_anything_is_written(path, labels, tmp_path, words, message):
  words = [
    word.replace("PATH2", path).replace("PATH", repr(path)).replace("LABELS", repr(labels))
    for word in words
  ]
  with pytest.raises(errors.UserError, match=message):
    policy.run(parse(tmp_path / "x", *words))
  assert not (tmp_path / "x").exists()


def test_other_models_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match="a policy is expected"):
    serving.check({"model": {"kind": "motion"}}, "m")
  with pytest.raises(errors.UserError, match="config.checkpoint is empty"):
    serving.Policy.load("")


def untrained(workdir, *words):
  """(a policy with random weights that was made for some data, what its config comes to)."""
  found = policy_setup.setup(parse(workdir, *words).config)
  params = jax.jit(models.build(dict(found.spec.model)).init)(jax.random.key(0))
  return serving.Policy(params, found.spec), found


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


def test_frames_made_square_in_two_ways_are_refused(run, path, tmp_path):
  other = makers.shards(tmp_path / "crop", (12,) * 4, image_size=32, resize="crop")
  mixture = (
    {"path": path, "robot": "arm", "name": "one"},
    {"path": other, "robot": "bot", "name": "two"},
  )
  with pytest.raises(errors.UserError, match="one with 'squash', two with 'crop'"):
    policy_setup.setup(parse(tmp_path / "x", f"--config.data.mixture={mixture!r}").config)
  with pytest.raises(errors.UserError, match="resize='crop', those of the policy .* with 'squash'"):
    policy_setup.setup(
      parse(
        tmp_path / "x",
        f"--config.init={run}",
        f"--config.data.path={other}",
        "--config.policy.robot=bot",
      ).config
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
  walk = ready.data.mixture.evaluation(
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


@pytest.mark.parametrize(
  "change, message",
  [
    ({"model": "bbbb"}, "latent_model of the labels is 'bbbb', of the policy .* 'aaaa'"),
    ({"offset": 0.3}, "latent_offset_seconds of the labels is 0.3, of the policy .* 0.2"),
  ],
)
def test_a_latent_head_goes_on_with_its_own_labels_only(run, path, tmp_path, change, message):
  def words(labels):
    mixture = ({"path": path, "robot": "arm", "labels": labels},)
    return f"--config.init={run}", f"--config.data.mixture={mixture!r}"

  command = parse(tmp_path / "x", *words(label(path, tmp_path / "same")))
  latent = policy_setup.setup(command.config).spec.latent
  assert latent == serving.load(str(run))[1].latent
  with pytest.raises(errors.UserError, match=message):
    policy_setup.setup(
      parse(tmp_path / "x", *words(label(path, tmp_path / "other", **change))).config
    )


def test_guidance_of_a_policy_without_any_is_refused_early(path, tmp_path):
  words = ["main", "--config=configs/policy.py:debug,policy=gpt", f"--workdir={tmp_path / 'x'}"]
  words += GPT
  with pytest.raises(errors.UserError, match="config.policy.guidance_scale=2.0: only policy=dit"):
    policy.run(
      config_lib.parse([*words, f"--config.data.path={path}", "--config.policy.guidance_scale=2.0"])
    )
  assert not (tmp_path / "x").exists()


def test_a_history_is_served_only_to_clients_that_ask_every_step(run, monkeypatch):
  def command(*words):
    return config_lib.parse(
      ["main", "--config=configs/serve.py:debug", f"--config.checkpoint={run}", *words]
    )

  served = []
  monkeypatch.setattr(serve.server.Server, "run", lambda self: served.append(self.metadata))
  with pytest.raises(
    errors.UserError, match="looks at 2 observations, 0.1 s apart.*--config.every_step=True"
  ):
    serve.run(command())
  assert serve.run(command("--config.every_step=True")) == 0
  assert (served[0]["history"], served[0]["step_seconds"]) == (2, 0.1)


def test_the_server_keeps_instructions_in_memory_and_warms_its_encoder(run, monkeypatch):
  acting, warmed = serving.Policy.load(str(run)), []
  assert acting._encode._cache is None
  monkeypatch.setattr(acting._encode, "warm_up", lambda: warmed.append(True))
  acting.warm_up()
  assert warmed == [True]


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


GPT = [word for word in TINY if "model.dit" not in word] + [
  f"--config.model.gpt.{word}" for word in ("width=16", "depth=1", "num_heads=2", "mlp_dim=32")
]


def command_of(workdir, path, kind, *words):
  words = [f"--config.data.path={path}", *(GPT if kind == "gpt" else TINY), *words]
  return config_lib.parse(
    ["main", f"--config=configs/policy.py:debug,policy={kind}", f"--workdir={workdir}", *words]
  )


def spec_of(*given):
  return policy_setup.setup(command_of(*given).config).spec


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
