"""Training a policy, acting with it, and that acting sees exactly what training saw."""

import json

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.data import policy as policy_data
from como_jax.data.sources import shards
from como_jax.serve import policy as serving
from como_jax.tasks import policy
from como_jax.train import checkpoint
from tests.data import makers
from tests.data.test_policy import label

TINY = ("--config.model.image_size=32", "--config.data.image_size=32", "--config.model.encoder.size=16x1x2/16", "--config.encoder_weights=",
        "--config.model.trunk.width=16", "--config.model.trunk.depth=1", "--config.model.trunk.heads=2", "--config.model.trunk.mlp=32",
        "--config.model.dit.width=16", "--config.model.dit.depth=1", "--config.model.dit.heads=2", "--config.model.dit.mlp=32",
        "--config.model.dit.steps=2", "--config.model.pool=1", "--config.model.chunk=3", "--config.language.width=8", "--config.train.batch_size=8",
        "--config.train.tensorboard=False", "--config.data.validation_fraction=0.3", "--config.model.history=2")


def parse(workdir, *words):
  return config_lib.parse(["main", "--config=configs/policy.py:debug", f"--workdir={workdir}", *TINY, *words])


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


def observation(path, row, t, cameras):
  """What a robot would send at frame t of a record."""
  table = shards.read_table(path)
  clip = shards.Reader(path).clip(table.shard[row], table.record[row])
  seen = {serving.IMAGE + name: clip.frames[name].decode([t])[0] for name in cameras}
  return seen | {serving.STATE: clip.arrays["state"][t], serving.TASK: clip.task}


def test_the_weights_hold_all_that_acting_needs(run):
  _, config = checkpoint.load(run)
  assert config["robots"] == {"arm": {"action": 3, "state": 2, "action_names": config["robots"]["arm"]["action_names"], "step_seconds": 0.1}}
  assert config["model"]["robots"] == {"arm": {"action": 3, "state": 2}} and config["model"]["latent"]["queries"] == 1
  assert set(config["normalisation"]["robots"]) == {"arm"} and config["normalisation"]["latent"]["count"] > 0
  lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
  last = [line for line in lines if line["kind"] == "validation"][-1]
  assert {"action_mse", "action_mse_first", "latent_mse"} <= set(last) and all(np.isfinite(last[key]) for key in ("action_mse", "latent_mse"))


def test_acting_sees_what_training_saw(run, path):
  """The batch made of observations equals the one made of the data set, array by array."""
  acting = serving.Policy.load(str(run))
  command = parse(run, f"--config.data.path={path}", "--config.policy.robot=arm")
  _, ready = policy.resolve(command.config)
  ready.build["normaliser"] = acting._normaliser
  walk = policy_data.evaluation(ready.sets, **ready.build, batch_size=5, split="all", threads=0)
  with walk.batches() as batches:
    batch = next(batches)
  table = shards.read_table(path)
  for i in range(5):
    row = int(np.flatnonzero(table.episode == walk.episodes[batch["episode"][i]])[0])
    t = int(batch["time"][i])
    row_now = acting._row([observation(path, row, max(t - 1, 0), acting.cameras), observation(path, row, t, acting.cameras)])
    for name, value in row_now.items():
      np.testing.assert_array_equal(value, batch[name][i], err_msg=name)


def test_actions_come_back_in_their_own_units(run, path):
  acting = serving.Policy.load(str(run), batch_size=2)
  seen = observation(path, 0, 3, acting.cameras)
  actions = acting.infer([[seen]] * 3, seed=5)
  assert actions.shape == (3, 3, 3) and actions.dtype == np.float32 and np.isfinite(actions).all()
  rows = [acting._row([seen])] * 2
  batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  normalised = np.asarray(acting._sample(acting._params, batch, jax.random.key(5)))
  statistics = acting._normaliser.robots["arm"]["action"]
  np.testing.assert_allclose(actions[:2], normalised * np.where(statistics.std < 1e-6, 1, statistics.std) + statistics.mean, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(actions, acting.infer([[seen]] * 3, seed=5))
  assert not np.array_equal(actions, acting.infer([[seen]] * 3, seed=6))


@pytest.mark.parametrize("change, message", [
    ({serving.STATE: np.zeros(3, np.float32)}, "expected 2 finite numbers"),
    ({serving.STATE: np.full(2, np.nan, np.float32)}, "expected 2 finite numbers"),
    ({serving.TASK: 7}, "expected a text"),
    ({"image": np.zeros((8, 8), np.uint8)}, r"expected uint8 \[H, W, 3\]"),
    ({"image": None}, "has no camera"),
])
def test_bad_observations_are_named(run, path, change, message):
  acting = serving.Policy.load(str(run))
  seen = observation(path, 0, 0, acting.cameras)
  if "image" in change:
    image = change.pop("image")
    seen.pop(serving.IMAGE + acting.cameras[0])
    seen |= {} if image is None else {serving.IMAGE + acting.cameras[0]: image}
  with pytest.raises(errors.UserError, match=message):
    acting.infer([[seen | change]])


def test_a_new_robot_gets_a_new_head_and_the_rest_goes_on(run, path, tmp_path, capsys):
  before, config = checkpoint.load(run)
  command = parse(tmp_path / "next", f"--config.init={run}", f"--config.data.path={path}", "--config.policy.robot=bot", "--config.train.steps=1",
                  "--config.train.optimizer.learning_rate=0.0", "--config.train.ema=0.0", "--config.train.optimizer.weight_decay=0.0")
  assert policy.run(command) == 0
  assert "new heads: bot" in capsys.readouterr().out
  after, resolved = checkpoint.load(tmp_path / "next")
  assert list(resolved["robots"]) == ["arm", "bot"] and set(after["heads"]) == {"arm", "bot", "latent"}
  assert resolved["normalisation"]["robots"]["arm"] == config["normalisation"]["robots"]["arm"]
  for name in ("trunk", "dit"):
    jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
  jax.tree.map(np.testing.assert_array_equal, before["heads"]["arm"], after["heads"]["arm"])


@pytest.mark.parametrize("words, message", [
    (("--config.data.mixture=({'path': PATH, 'labels': LABELS},)",), "no entry names a robot"),
    (("--config.data.mixture=({'path': PATH, 'robo': 'x'},)",), "did you mean|robot"),
    (("--config.data.mixture=({'path': PATH, 'robot': 'a.b'},)",), "must not hold a dot"),
    (("--config.data.mixture=({'path': PATH, 'robot': 'a', 'labels': '/nowhere'},)",), "nowhere"),
    (("--config.data.path=PATH2", "--config.model.image_size=64"), "is not config.model.image_size"),
    (("--config.data.path=PATH2", "--config.init=/nowhere"), "does not exist"),
])
def test_mistakes_are_named_before_anything_is_written(path, labels, tmp_path, words, message):
  words = [word.replace("PATH2", path).replace("PATH", repr(path)).replace("LABELS", repr(labels)) for word in words]
  with pytest.raises(errors.UserError, match=message):
    policy.run(parse(tmp_path / "x", *words))
  assert not (tmp_path / "x").exists()


def test_other_models_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match="a policy is expected"):
    serving.Policy({}, {"model": {"kind": "motion"}}, name="m")
  with pytest.raises(errors.UserError, match="config.checkpoint is empty"):
    serving.Policy.load("")
