"""What a training task says and leaves, piece by piece: the end of a run, one that is done already,
memory, and given encoders.
"""

import json
import types

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors, weights
from como_jax.models.backbones import mae_vit
from como_jax.parallel import mesh as mesh_lib
from como_jax.tasks import training
from como_jax.train import loop, memory, rng, rundir
from tests import toy
from tests.train.test_checkpoint_parts import exported, raises, step_folder


def text_of(kind, call):
  with pytest.raises(kind) as caught:
    call()
  return str(caught.value)


def test_a_run_that_is_done_already(tmp_path):
  assert training.done_already(tmp_path, 3) == ""
  step_folder(tmp_path, 2), step_folder(tmp_path, 4), step_folder(tmp_path, 6)

  def begin(step, steps):
    return f"already at step {step} of {steps} asked: nothing to do; "

  used = "the checkpoint of step {0} is what other tasks use; --config.train.steps={0} exports it"
  assert training.done_already(tmp_path, 6) == training.done_already(tmp_path, 7) == ""
  assert training.done_already(tmp_path, 5) == begin(
    6, 5
  ) + "its weights are not exported yet, " + used.format(6)
  (tmp_path / "checkpoints" / "6" / "state" / "manifest.ocdbt").unlink()
  assert training.done_already(tmp_path, 5) == "" and training.done_already(tmp_path, 3) == begin(
    4, 3
  ) + "its weights are not exported yet, " + used.format(4)
  folder = exported(tmp_path / "weights", 2)
  assert training.done_already(tmp_path, 3) == begin(
    4, 3
  ) + f"{folder} is of step 2, " + used.format(4)
  exported(tmp_path / "weights", 4)
  assert training.done_already(tmp_path, 3) == begin(4, 3) + f"{folder} holds its weights"


def test_the_learning_rate_that_a_run_had(tmp_path):
  settings = dict(
    schedule="linear",
    learning_rate=0.5,
    floor=0.5,
    warmup_steps=2,
    warmup_start=0.25,
    clip_norm=1.0,
  )

  def rate(train):
    (tmp_path / rundir.CONFIG).write_text(json.dumps({"train": train} if train is not None else {}))
    return training.rate_before(tmp_path)

  found = rate({"steps": 12, "optimizer": settings})
  np.testing.assert_allclose(
    [found(step) for step in (0, 2, 7, 12)], [0.125, 0.5, 0.375, 0.25], rtol=1e-6
  )
  assert rate(None) is rate({}) is rate({"optimizer": settings}) is rate({"steps": 12}) is None
  for key in ("schedule", "learning_rate", "floor", "warmup_steps", "warmup_start"):
    assert (
      rate(
        {"steps": 12, "optimizer": {name: value for name, value in settings.items() if name != key}}
      )
      is None
    )


@pytest.fixture(name="end")
def _end(tmp_path):
  """Ends a run of paper: `export`."""
  command = config_lib.CommandLine(
    config_lib.ConfigDict({"task": "toy", "train": {"steps": 8}}),
    "toy",
    tmp_path,
    resume=False,
    overwrite=False,
  )
  job = types.SimpleNamespace(unit="pairs", files={"policy.json": "{}"})

  def end(*, rate=12.34, unvalidated=(), value=1.0):
    outcome = loop.TrainResult(
      state=None, examples_per_s=rate, wait_share=0.25, stopped=False, unvalidated=unvalidated
    )
    return training.export(command, job, outcome, {"a": np.full(2, value, np.float32)}, seconds=3.5)

  return end


def test_what_a_finished_run_leaves_and_says(end, tmp_path, capsys):
  for name in (".weights.new-1", ".weights.new-2", ".other.new-1"):
    (tmp_path / name).mkdir()
  assert end() == 0
  assert (tmp_path / "speed.json").read_text() == json.dumps(
    {"pairs_per_s": 12.34, "wait_share": 0.25, "steps": 8, "seconds": 3.5}, indent=2
  )
  params, config = weights.load(tmp_path / "weights")
  assert (tmp_path / "weights" / "policy.json").read_text() == "{}"
  assert (
    params["a"].tolist() == [1.0, 1.0]
    and config == {"task": "toy", "train": {"steps": 8}}
    and weights.read_step(tmp_path / "weights") == 8
  )
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    ".other.new-1",
    "speed.json",
    "weights",
  ]
  assert (
    capsys.readouterr().out
    == f"done: 8 steps, 12.3 pairs/s, waited for data 25.0%; weights in {tmp_path / 'weights'}\n"
  )
  (tmp_path / "speed.json").write_text("{}")
  # a finished run, resumed: nothing was measured
  assert end(rate=0.0, unvalidated=(4, 8), value=2.0) == 0
  assert (tmp_path / "speed.json").read_text() == "{}" and weights.load(tmp_path / "weights")[0][
    "a"
  ].tolist() == [2.0, 2.0]
  assert capsys.readouterr().out.endswith("; the validation failed at step 4, 8 (see above)\n")
  (tmp_path / "speed.json").unlink()
  assert (
    end(rate=0.0) == 0 and json.loads((tmp_path / "speed.json").read_text())["pairs_per_s"] == 0.0
  )
  before = (tmp_path / "weights" / weights.PARAMS).read_bytes()
  assert text_of(errors.NonFinite, lambda: end(value=np.nan)) == (
    "step 8: the weights are infinite or not a number and are not exported: lower "
    "config.train.optimizer.learning_rate, or go on from an earlier checkpoint"
  )
  assert (tmp_path / "weights" / weights.PARAMS).read_bytes() == before


def test_a_step_that_does_not_fit_is_refused_before_anything_runs(monkeypatch):
  mesh = mesh_lib.make(data=2, fsdp=2, devices=jax.devices()[:4])
  checked, lowered = [], []
  monkeypatch.setattr(
    memory, "check", lambda need, devices, **more: checked.append((need, devices, more))
  )
  shapes = {"a": jax.ShapeDtypeStruct((100,), np.float32)}
  job = types.SimpleNamespace(batch={"x": jax.ShapeDtypeStruct((8, 3), np.uint8)})
  section = types.SimpleNamespace(batch_size=8, accumulate=2)
  compiled = types.SimpleNamespace(memory_analysis=lambda: None)

  def step(compile):
    return types.SimpleNamespace(
      lower=lambda given, batch: (
        lowered.append((given, batch)) or types.SimpleNamespace(compile=compile)
      )
    )

  training.check_memory(step(lambda: compiled), shapes, job, section, mesh)
  alone = (
    100,
    mesh.local_devices,
    dict(batch_size=8, accumulate=2, what="the state of the run (weights and optimizer) alone"),
  )
  assert checked == [alone]
  given, batch = lowered[0]
  assert (
    given is shapes
    and batch["x"].shape == (8, 3)
    and batch["x"].dtype == np.uint8
    and batch["x"].sharding == mesh_lib.batch_sharding(mesh)
  )
  monkeypatch.setattr(memory, "needed", lambda program: 77 if program is compiled else None)
  training.check_memory(step(lambda: compiled), shapes, job, section, mesh)
  assert checked[1:] == [alone, (77, mesh.local_devices, dict(batch_size=8, accumulate=2))]
  refused = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: " + "x" * 300 + "\nmore")
  assert text_of(
    errors.UserError,
    lambda: training.check_memory(step(raises(refused)), shapes, job, section, mesh),
  ) == (f"a train step does not fit into memory (RESOURCE_EXHAUSTED: {'x' * 180}): {memory.ADVICE}")
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    training.check_memory(
      step(raises(jax.errors.JaxRuntimeError("INTERNAL: x"))), shapes, job, section, mesh
    )


def test_parameters_are_gathered_where_several_processes_hold_them(monkeypatch):
  gathered = []
  monkeypatch.setattr(
    training.distributed, "gather", lambda params: gathered.append(params) or {"a": np.ones(2)}
  )
  params = {"a": np.zeros(2)}
  assert training._replicated_params(params) is params and not gathered
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  assert training._replicated_params(params)["a"].tolist() == [1.0, 1.0] and gathered == [params]


def test_the_state_is_made_sharded_with_the_given_parts_in_place():
  tx, _ = toy.make_optimizer()
  given = {"encoder": {"kernel": np.full((8, 512), 7.0, np.float32)}}
  model = types.SimpleNamespace(
    init=lambda key: {**toy.params(width=512), "noise": jax.random.normal(key, (3,))}
  )
  job = types.SimpleNamespace(model=model, start=given)
  mesh = mesh_lib.make(data=1, fsdp=4, devices=jax.devices()[:4])
  made = [
    training.initial_state(job, tx, frozen=toy.FROZEN, ema=ema, seed=seed, mesh=mesh)
    for ema, seed in ((True, 3), (False, 4))
  ]
  assert (
    (np.asarray(made[0].params["encoder"]["kernel"]) == 7).all()
    and made[0].ema is not None
    and made[1].ema is None
  )
  for state, seed in zip(made, (3, 4), strict=False):
    np.testing.assert_allclose(
      state.params["noise"], jax.random.normal(rng.key(seed, "init"), (3,)), rtol=1e-6
    )
  shapes = training.state_shapes(job, tx, frozen=toy.FROZEN, ema=True, mesh=mesh)

  def described(state):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), state)

  assert (
    described(shapes) == described(made[0])
    and not shapes.params["head"]["kernel"].sharding.is_fully_replicated
  )


@pytest.fixture(name="given")
def _given(monkeypatch):
  """`encoder_weights` with a checkpoint of these parameters and config."""
  model = types.SimpleNamespace(
    init=lambda key: {
      "encoder": {"a": {"kernel": np.zeros((2, 3), np.float32)}},
      "head": {"b": np.zeros(1)},
    },
    config={"encoder": {"epsilon": 1e-6}, "image_size": 32},
  )
  loaded = []

  def given(path="FOLDER", *, params=None, **config):
    params = (
      {"encoder": {"a": {"kernel": np.ones((2, 3), np.float32)}}, "other": {}}
      if params is None
      else params
    )
    monkeypatch.setattr(
      training.checkpoint, "load", lambda folder: loaded.append(str(folder)) or (params, config)
    )
    return training.encoder_weights(path, model=model)

  given.loaded = loaded
  return given


def test_a_given_encoder_is_taken_alone_and_must_fit(given, monkeypatch):
  assert given("") == {} and not given.loaded
  for config in (
    {},
    {"layer_norm_epsilon": 1e-6},
    {"model": {"encoder": {"epsilon": 1e-6}}},
    {"model": {}},
  ):
    found = given(**config)
    assert (
      set(found) == {"encoder"}
      and np.asarray(found["encoder"]["a"]["kernel"]).tolist() == np.ones((2, 3)).tolist()
    )
  given("bundled")
  assert given.loaded[-2:] == ["FOLDER", str(training.BUNDLED_ENCODER)]
  assert (
    text_of(errors.UserError, lambda: given(params={"head": {}, "idm": {}}))
    == "encoder weights 'FOLDER' hold no encoder, only: head, idm"
  )
  other = (
    "encoder weights 'FOLDER' were trained with a LayerNorm epsilon of 1e-05, the config has "
    "1e-06: give --config.model.encoder.epsilon=1e-05"
  )
  for config in ({"layer_norm_epsilon": 1e-5}, {"model": {"encoder": {"epsilon": 1e-5}}}):
    assert text_of(errors.UserError, lambda config=config: given(**config)) == other
  assert text_of(
    errors.UserError,
    lambda: given(params={"encoder": {"a": {"kernel": np.ones((2, 4), np.float32)}}}),
  ).startswith("encoder weights 'FOLDER'")
  refitted = []
  monkeypatch.setattr(
    mae_vit,
    "refit_positions",
    lambda encoder, size: (
      refitted.append(size) or {"a": {"kernel": np.full((2, 3), 5, np.float32)}}
    ),
  )
  given()
  assert not refitted
  found = given(params={"encoder": {"patch": {"kernel": np.ones(1)}, "position": np.ones(1)}})
  assert refitted == [32] and np.asarray(found["encoder"]["a"]["kernel"]).max() == 5
