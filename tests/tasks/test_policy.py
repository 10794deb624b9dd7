"""Training a policy, acting with it, and that acting sees exactly what training saw."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.assembly import policy_setup, policy_start
from como_jax.data import policy_spec, shards
from como_jax.data.batching import Batching
from como_jax.data.read_options import ReadOptions
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.serve import policy as serving
from como_jax.serve import policy_checkpoint
from como_jax.tasks import policy, policy_scoring, serve
from como_jax.train import atomic, data_identity, fit, log, rundir
from tests.data import flat, makers
from tests.data.test_policy_pipeline import label
from tests.tasks.small_policy import parse


@pytest.fixture(scope="module", name="path")
def _path(tmp_path_factory):
  return makers.shards(tmp_path_factory.mktemp("data") / "s", (12,) * 8)


@pytest.fixture(scope="module", name="labels")
def _labels(path, tmp_path_factory):
  return label(path, tmp_path_factory.mktemp("labels") / "l")


def mixed(path, labels):
  """A robot and a video entry of these data."""
  entries = ({"path": path, "robot": "arm", "episodes": (0, 2)}, {"path": path, "labels": labels})
  return f"--config.data.mixture={entries!r}"


@pytest.fixture(scope="module", name="run")
def _run(path, labels, tmp_path_factory):
  """A finished run on a robot and a video entry."""
  folder = tmp_path_factory.mktemp("runs") / "policy"
  assert policy.run(parse(folder, mixed(path, labels))) == 0
  return folder


def observation(path, segment, t, cameras):
  """What a robot would send at frame t of a segment."""
  segments, read = makers.segments(path)
  seen = {IMAGE + name: read.images(segment, name, [t])[0] for name in cameras}
  task = segments.table.tasks[segments.table.task[segments.locate(segment, t)[0]]]
  return seen | {STATE: read.read_array(segment, "state", t, t + 1)[0], TASK: task}


def test_the_weights_hold_all_that_acting_needs(run):
  spec = policy_checkpoint.load(str(run))[1]
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
  spec = policy_checkpoint.load(str(run))[1]
  found = policy_setup.setup(command.config, policy_start.StartingPolicy("the run", spec))
  assert found.spec.normalization == spec.normalization
  walk = found.data.mixture.evaluation_examples(
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
  (affine,) = policy_checkpoint.load(str(run))[1].robots["arm"].transforms["action"]
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
  before, old = policy_checkpoint.load(str(run))
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
  after, new = policy_checkpoint.load(str(tmp_path / "next"))
  assert list(new.robots) == ["arm", "bot"] and set(after["heads"]) == {"arm", "bot", "latent"}
  assert new.robots["arm"] == old.robots["arm"] and new.latent == old.latent
  jax.tree.map(
    np.testing.assert_array_equal,
    *((one["trunk"], one["dit"], one["heads"]["arm"]) for one in (before, after)),
  )


@pytest.fixture(name="older")
def _older(run, path, labels, tmp_path):
  """(a run whose config holds what its data said, as older versions wrote it; words to resume it).

  Its actions vary 7 times as much as those of the data.
  """
  folder = tmp_path / "old"
  shutil.copytree(run, folder)
  (folder / policy_spec.FILE).unlink()
  stored = json.loads((folder / "config.json").read_text())
  words = (mixed(path, labels), "--resume", "--config.train.steps=4")
  numbers = policy_setup.policy_data.PolicyData(parse(folder, *words).config).statistics()
  action = dataclasses.replace(
    numbers.robots["arm"]["action"], std=7 * numbers.robots["arm"]["action"].std
  )
  robots = {"arm": {**numbers.robots["arm"], "action": action}}
  stored["normalization"] = flat.stored_normalization("standard", robots, numbers.latent)
  stored["robots"] = {"arm": {"action_names": ["a", "b", "c"], "step_seconds": 0.1}}
  stored["policy"] |= {"cameras": ["camera"], "resize": "squash", "latent_model": "aaaa"}
  stored["policy"]["latent_offset_seconds"] = 0.2
  stored["model"] = dict(policy_checkpoint.load(str(run))[1].model)
  (folder / "config.json").write_text(json.dumps(stored))
  return folder, words


def scale(spec):
  """Of the actions of a policy's arm."""
  (affine,) = spec.robots["arm"].transforms["action"]
  return np.array(affine.scale)


def test_a_run_of_an_older_version_goes_on_in_its_own_units(older, run):
  """Its config holds what its data said; from now on `policy.json` does."""
  folder, words = older
  assert policy.run(parse(folder, *words)) == 0
  spec, fresh = (policy_checkpoint.load(str(one))[1] for one in (folder, run))
  np.testing.assert_allclose(scale(spec), 7 * scale(fresh))
  assert spec.latent == fresh.latent
  assert "normalization" not in json.loads((folder / "config.json").read_text())
  assert policy.run(parse(folder, *words, "--config.train.steps=5")) == 0
  assert policy_checkpoint.load(str(folder))[1] == spec
  with pytest.raises(errors.UserError, match="policy.reduce: 'mean' before, 'last' now"):
    policy.run(parse(folder, *words, "--config.policy.reduce=last"))


def test_a_kill_while_it_is_resumed_loses_no_units(older, run, monkeypatch):
  folder, words = older
  # nothing is compiled before the directory is opened
  monkeypatch.setattr(fit.job, "check_memory", lambda *unused: None)
  write, old, written = atomic.write, 7 * scale(policy_checkpoint.load(str(run))[1]), []

  def dying(path, text):
    if path.name in written:
      write(path, text)
    else:
      written.append(path.name)
      raise KeyboardInterrupt

  monkeypatch.setattr(atomic, "write", dying)
  # the first start dies in the first write, the next one in the second: each goes on from there
  files = [rundir.VERSIONS, policy_spec.FILE, data_identity.FILE, rundir.CONFIG]
  for count in range(len(files)):
    with pytest.raises(KeyboardInterrupt):
      policy.run(parse(folder, *words))
    assert written == files[: count + 1]
    np.testing.assert_allclose(scale(policy_checkpoint.read_spec(folder)), old)
  monkeypatch.undo()
  assert policy.run(parse(folder, *words)) == 0
  np.testing.assert_allclose(scale(policy_checkpoint.load(str(folder))[1]), old)


def test_a_run_of_unknown_units_is_not_resumed(run, older, tmp_path):
  _, words = older
  folder = tmp_path / "lost"
  shutil.copytree(run, folder)
  record = folder / policy_spec.FILE
  refused = f"--resume: {record} does not say in which units the checkpoints beside it were"
  copy = f"put the file back, from {folder / 'weights' / policy_spec.FILE}"
  # of version 1, which counted on a config that holds the units
  for text in (None, json.dumps({"version": 1})):
    record.unlink() if text is None else record.write_text(text)
    with pytest.raises(errors.UserError, match=f"{re.escape(refused)}.*{re.escape(copy)}$"):
      policy.run(parse(folder, *words))
  shutil.rmtree(folder / "weights")
  with pytest.raises(errors.UserError, match="put the file back$"):
    policy.run(parse(folder, *words))
  shutil.rmtree(folder / "checkpoints")  # nothing was trained: it begins
  assert policy_start.resumed(parse(folder, *words)) is None


def test_a_policy_is_scored_without_a_step(run, path, labels, tmp_path, capsys):
  logged = {name: values[-1] for name, (_, values) in log.read(run, kind="validation").items()}

  def scored(name, *words):
    return policy.run(
      parse(
        tmp_path / name,
        f"--config.init={run}",
        "--config.train.steps=0",
        mixed(path, labels),
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
  assert latent == policy_checkpoint.load(str(run))[1].latent
  with pytest.raises(errors.UserError, match=message):
    policy_setup.setup(
      parse(tmp_path / "x", *words(label(path, tmp_path / "other", **change))).config
    )


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
