"""The programs of a plan are those of a run: what the step, labeling and acting are built from, on
a model of paper.
"""

import dataclasses
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax.assembly import programs
from como_jax.parallel import flops, topology
from como_jax.train import step
from tests import toy

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True, scope="module")
def _started():
  """JAX starts with the devices of all tests, before a machine asks for fewer."""
  assert len(jax.devices()) == 8


class Model:
  """Parts of the parameters, what is asked of them, and with which arguments."""

  frozen, image_size, robots, terms = toy.FROZEN, 4, ("bot", "arm"), ("action",)
  objective = types.SimpleNamespace(
    functions=("contrastive",),
    weights={"error": 1.0},
    constants={"net": np.ones((2, 3), np.float32)},
  )

  def __init__(self, section):
    self.section, self.asked = section, []

  def init(self, key):
    return {**toy.params(width=8), "idm": {"a": jnp.zeros(2)}, "fdm": {"a": jnp.zeros(100)}}

  def inputs_spec(self, size, frames=0, *, jittered=None):
    self.asked.append((size, frames, jittered))
    return {
      **{
        name: jax.ShapeDtypeStruct((size, *value.shape[1:]), value.dtype)
        for name, value in toy.batch(0).items()
      },
      "actions": jax.ShapeDtypeStruct((size, 1), np.float32),
      "latents_mask": jax.ShapeDtypeStruct((size, 1), bool),
    }

  def forward(self, params, batch, *, key):
    return ("out", params, batch, key)

  def losses(self, *given):
    return ("losses", given)

  def encode_frames(self, params, images):
    assert set(params) == {"encoder", "idm"}
    return images.mean(axis=(1, 2)) + params["encoder"]["kernel"].sum()

  def encode(self, params, before, now, *, tokens):
    self.asked.append((before, now, tokens))
    return types.SimpleNamespace(z=(before - now).mean(axis=(1, 2)) + tokens[0] - tokens[1])

  def sample(self, params, batch, key, *, robot, guidance_scale, num_sampling_steps=None):
    self.asked.append(
      (
        jax.tree.map(lambda leaf: str(leaf.dtype), params["head"]),
        sorted(batch),
        robot,
        num_sampling_steps,
        guidance_scale,
      )
    )
    return batch["x"].sum() + params["head"]["bias"].sum()


@pytest.fixture(name="built")
def _built(monkeypatch):
  """What was built: models and steps."""
  told = types.SimpleNamespace(models=[], steps=[], objectives=[])
  monkeypatch.setattr(
    programs.models, "build", lambda section: told.models.append(Model(section)) or told.models[-1]
  )
  monkeypatch.setattr(
    programs.objectives, "build", lambda section: told.objectives.append(section) or Objective()
  )
  monkeypatch.setattr(
    programs.step,
    "TrainStep",
    lambda loss, tx, options, **more: (
      told.steps.append((loss, options, more)) or types.SimpleNamespace(trace=lambda *given: given)
    ),
  )
  return told


class Objective:
  functions, weights, constants = (
    Model.objective.functions,
    Model.objective.weights,
    Model.objective.constants,
  )

  def draw(self, batch, key):
    return batch

  def __call__(self, *given):
    return given


def config(task, **train):
  section = config_lib.train(
    **{**dict(batch_size=16, steps=9, accumulate=2, ema=0.5, mesh__data=2, mesh__fsdp=2), **train}
  )
  return config_lib.ConfigDict(
    {
      "task": task,
      "seed": 7,
      "model": {"kind": task, "dtype": "bfloat16"},
      "train": section,
      "data": {"frames": 3},
      "objectives": {"a": {"weight": 1.0}, "off": {"weight": 0}},
      "policy": {"guidance_scale": 2, "objectives": {"action": {"weight": 3}}},
    }
  )


@pytest.mark.parametrize("task", ["motion", "mae", "policy"])
def test_the_train_step_of_a_plan_is_that_of_a_run(built, task):
  machine = topology.parse("cpu-4")
  program = programs.train(config(task), machine, batch_size=8)
  (loss, options, more), model = built.steps[0], built.models[0]
  assert model.section == {"kind": task, "dtype": "bfloat16"}
  now, constants, rate = more.pop("state"), more.pop("constants"), options.lr_schedule
  weights = {"action": 3.0} if task == "policy" else {"error": 1.0}
  assert more == {"mesh": program.mesh}
  assert dataclasses.replace(options, lr_schedule=None) == step.StepOptions(
    weights=weights, frozen=toy.FROZEN, seed=7, num_microbatches=2, ema_decay=0.5
  )
  assert (
    dict(program.mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 1}
    and now.ema is not None
    and float(rate(9)) < float(rate(0))
  )
  total = 8 * 8 + 8 * 8 + 8 + 8 * 3 + 2 + 100
  assert (program.parameters, program.trainable) == (total, total - 64)
  assert (program.examples, program.unit) == (8, "clips" if task == "motion" else "examples")
  state, batch = program.trace()
  assert state is now and batch["x"].shape == (8, 8)
  assert model.asked == [(8, 3, True) if task == "motion" else (8, 0, None)]
  shape = jax.ShapeDtypeStruct((2, 3), np.float32)
  assert (
    constants == ({} if task == "policy" else {"net": shape})
    and built.objectives
    == {
      "motion": [{"a": {"weight": 1.0}}],
      "mae": [{"a": {"weight": 1.0}, "off": {"weight": 0}}],
      "policy": [],
    }[task]
  )
  out = ("out", "P", "B", "K")
  expected = {
    "motion": ((out, "B", None), (out, "B", "C")),
    "mae": ((out, "B", None), (out, "B", "C")),
    "policy": (("losses", ("P", "B", "K")), None),
  }[task]
  assert loss("P", "B", "K") == expected[0] and (
    expected[1] is None or loss("P", "B", "K", "C") == expected[1]
  )


def test_settings_of_the_train_step(built):
  machine = topology.parse("cpu-4")
  program = programs.train(
    config("motion", frozen=("head/.*",), ema=0.0), machine, batch_size=8, useful=True
  )
  _, options, more = built.steps[0]
  assert (
    options.frozen == ("head/.*",)
    and more["state"].ema is None
    and program.trainable == program.parameters - (64 + 8 + 24)
  )
  assert built.models[0].section == {
    "kind": "motion",
    "dtype": "bfloat16",
    "remat": "none",
    "attention_kernel": "xla",
  }
  with pytest.raises(Exception, match="divi"):
    programs.train(config("motion"), machine, batch_size=6)


def test_labeling_encodes_each_frame_once(built):
  machine = topology.parse("cpu-4")
  program = programs.extract(config("motion"), machine, batch_size=8)
  assert (
    program.examples,
    program.unit,
    program.trainable,
    program.parameters,
    program.mesh.size,
  ) == (8, "frames", 0, 64 + 2, 4)
  traced = program.trace()
  tokens, z = traced.out_info
  assert tokens.shape == z.shape == (8, 3)
  shapes = [leaf.shape for leaf in jax.tree.leaves(traced.args_info)]
  assert (8, 4, 4, 3) in shapes and (8, 3) in shapes
  before, now, features = built.models[0].asked[0]
  assert before.shape == now.shape == (8, 4, 4, 3) and len(features) == 2
  assert (
    programs.extract(config("motion"), machine, batch_size=8, useful=True).examples == 8
    and built.models[1].section["remat"] == "none"
  )


def test_acting_is_that_of_the_server(built):
  program = programs.policy(config("policy"), topology.parse("cpu-4"), batch_size=3)
  assert (program.examples, program.unit, program.trainable, program.mesh.size) == (
    3,
    "chunks",
    0,
    1,
  )
  assert program.parameters == 8 * 8 + 8 * 8 + 8 + 8 * 3 + 2 + 100
  program.trace()
  asked = built.models[0].asked
  assert asked[0] == (3, 0, None)
  dtypes, batch, robot, steps, guidance = asked[1]
  assert (
    dtypes["kernel"] == "bfloat16"
    and batch == ["mask", "x", "y"]
    and (robot, steps, guidance) == ("bot", None, 2.0)
  )


@pytest.mark.parametrize(
  "name, small",
  [
    (
      "policy",
      "model.action_horizon=2 model.trunk.depth=1 model.dit.depth=1 "
      "model.dit.num_sampling_steps=2 model.pool=1",
    ),
    ("mae", "model.decoder.depth=1"),
  ],
)
def test_policy_and_mae_programs_trace(name, small):
  words = (small + " model.image_size=16 data.image_size=16").split()
  config = config_lib.parse(
    ["main", f"--config={ROOT}/configs/{name}.py:debug", *(f"--config.{word}" for word in words)]
  ).config
  for kind in programs.KINDS[config.task]:
    program = getattr(programs, kind)(
      config, topology.parse("cpu-8" if kind == "train" else "cpu-1"), batch_size=8
    )
    assert (
      flops.count(program.trace().jaxpr) > 2 * 8 * 1e5 and program.parameters > program.trainable
    )
