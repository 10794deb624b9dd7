"""The compiled train step of a small motion model on a mesh of eight: what must not be in it."""

import re

import jax
import pytest

from como_jax import model_presets, models, objectives, trees
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from como_jax.train import rng, state, step
from tests import toy

ACCUMULATE = 2


@pytest.fixture(scope="module")
def compiled():
  """(state's shapes, mesh, text of the compiled step)."""
  config = model_presets.preset("motion", "debug")
  config["image_size"] = 32
  config["encoder"]["size"] = "32x2x2/8"
  config["idm"].update(width=64, depth=2, mlp_dim=128)
  config["fdm"].update(width=64, depth=3, mlp_dim=128)
  model = models.build(config)
  objective = objectives.build(
    {"reconstruction": {"weight": 1.0}, "contrastive": {"weight": 0.004}}
  )
  mesh = mesh_lib.make(data=2, fsdp=4)
  tx, _ = toy.make_optimizer(steps=5, learning_rate=1e-3)
  now = jax.eval_shape(
    lambda key: state.create(model.init(key), tx, frozen=model.frozen, ema=True), rng.key(0, "init")
  )
  train = step.TrainStep(
    lambda params, batch, key: objective(model.forward(params, batch, key=key), batch),
    tx,
    step.StepOptions(
      weights=objective.weights,
      frozen=model.frozen,
      seed=0,
      num_microbatches=ACCUMULATE,
      ema_decay=0.9,
    ),
    mesh=mesh,
    state=now,
  )
  batch = {
    name: jax.ShapeDtypeStruct(spec.shape, spec.dtype)
    for name, spec in model.inputs_spec(8 * ACCUMULATE, 3, jittered=True).items()
  }
  # machine code; the partitioning is the same
  quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
  return now, mesh, train.lower(now, batch).compile(compiler_options=quick).as_text()


def collectives(text, *kinds):
  """(element type, shape) of every result of these operations."""
  lines = re.findall(rf"^.*= (.*?) (?:{'|'.join(kinds)})(?:-start)?\(", text, re.M)
  return [
    (kind, tuple(map(int, filter(None, dims.split(",")))))
    for line in lines
    for kind, dims in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", line)
  ]


def test_the_state_is_donated(compiled):
  now, _, text = compiled
  aliases = re.search(r"input_output_alias=\{(.*?)\}, entry", text, re.S)[1]
  assert aliases.count("-alias") == len(jax.tree.leaves(now))


def test_nothing_calls_back_to_the_host(compiled):
  text = compiled[2]
  assert not re.search(
    r"callback|outfeed|infeed|host_compute|send\(|recv\(", re.sub(r"metadata=\{[^}]*\}", "", text)
  )


def test_layers_are_gathered_one_at_a_time(compiled):
  now, mesh, text = compiled
  gathered = collectives(text, "all-gather")
  split = {
    tuple(leaf.shape)
    for name, leaf in trees.flatten(now.params).items()
    if any(rules.spec(name, leaf.shape, mesh))
  }
  stacked = {shape for shape in split if len(shape) == 3}
  # the test looks at the right thing
  assert (3, 64, 128) in stacked and (64, 128) in {shape for _, shape in gathered}
  for _, shape in gathered:
    assert shape not in stacked and shape[1:] not in stacked, f"a whole stack {shape} is gathered"


def test_no_frame_moves_between_devices(compiled):
  moved = collectives(compiled[2], "all-gather", "all-to-all", "collective-permute", "all-reduce")
  assert moved and not [
    (kind, shape)
    for kind, shape in moved
    if kind == "u8" or (len(shape) >= 4 and shape[-3:] == (32, 32, 3))
  ]
