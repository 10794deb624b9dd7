"""The two train steps that train_step.py compares: ours and that of the torch twin.

Both begin with the same parameters and take the same batches.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from como_jax import config as config_lib
from como_jax import model_presets, models, objectives, trees
from como_jax.models.backbones import mae_vit
from como_jax.parallel import flops, rules
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import optimizer, rng, step
from como_jax.train import state as state_lib
from tests.reference import torch_models as twins

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "motion.py"
SEED = 0


def section(
  options: argparse.Namespace, dtype: str, *, preset: str = "published", **changes: Any
) -> dict[str, Any]:
  """Builds the config section of the model, in the sizes of the options."""
  made = model_presets.preset("motion", preset)
  half = preset == "fast" and dtype == "bfloat16"
  if options.preset == "small":
    made |= {
      "image_size": 64,
      "remat": "none",
      "encoder": {"kind": "mae_vit", "size": "192x4x3/8", "epsilon": 1e-12},
    }
    for part in ("idm", "fdm"):
      made[part] |= {"width": 192, "depth": 2, "num_heads": 3, "mlp_dim": 768}
  made["encoder"]["param_dtype"] = "bfloat16" if half else "float32"
  if options.remat:
    made["remat"] = options.remat
  return made | {"dtype": dtype} | changes


def pictures(pairs: int, frames: int, side: int) -> dict[str, np.ndarray]:
  """Draws a batch: clips of `frames` frames with `pairs` pairs, and a jittered frame per pair."""
  random, clips = np.random.default_rng(SEED), pairs // (frames - 1)
  counts = {"frames": frames, "jittered": frames - 1}
  return {
    name: random.integers(0, 256, (clips, count, side, side, 3), np.uint8)
    for name, count in counts.items()
  }


@dataclasses.dataclass
class Contestant:
  """One row: `take(steps)` runs optimizer steps; `operations` are those of one step.

  `take` waits for the steps and returns the loss and the gradient norm of the first one.
  """

  take: Callable[[int], tuple[float, float]]
  operations: float
  first: tuple[float, float] | None = None

  def __call__(self, steps: int) -> None:
    """Runs steps; stores the result of the first call."""
    result = self.take(steps)
    self.first = self.first or result


def ours(
  options: argparse.Namespace,
  params: Mapping[str, Any],
  batch: Mapping[str, np.ndarray],
  dtype: str,
  preset: str = "published",
) -> Contestant:
  """Our row: the train step of `tasks.motion`, of the config `published` or `fast`."""
  config, mesh = _config(preset), mesh_lib.make(devices=jax.devices()[:1])
  objective = objectives.build(objectives.active(config.objectives))
  tx, rate = optimizer.from_section(config.train)

  def build(model):
    return step.TrainStep(
      objectives.model_loss(model, objective),
      tx,
      step.StepOptions(weights=objective.weights, frozen=model.frozen, seed=SEED, lr_schedule=rate),
      mesh=mesh,
      state=held["state"],
    )

  model = models.build(section(options, dtype, preset=preset))
  kept = {**params, "encoder": mae_vit.stored(model.encoder, params["encoder"])}
  start = state_lib.create(kept, tx, frozen=model.frozen, ema=False)
  held = {"state": jax.device_put(start, rules.shardings(start, mesh))}
  placed = jax.device_put(dict(batch), mesh_lib.batch_sharding(mesh))
  train = build(model)

  def take(steps: int) -> tuple[float, float]:
    first = None
    for _ in range(steps):
      held["state"], metrics = train(held["state"], placed)
      first = first or metrics
    jax.block_until_ready(metrics)
    return float(first["loss"]), float(first["grad_norm"])

  once = section(options, dtype, preset=preset, remat="none", attention_kernel="xla")
  useful = build(models.build(once))
  return Contestant(take, flops.count(useful.trace(held["state"], placed).jaxpr))


def twin(config: Mapping[str, Any]) -> twins.Motion:
  """The torch model of a section, with torch's own initial parameters."""
  encoder, idm, fdm = models.build(dict(config)).encoder, config["idm"], config["fdm"]
  patches, latent_dim = encoder.grid**2, config["bottleneck"]["latent_dim"]
  sizes = ("width", "depth", "num_heads", "mlp_dim")
  return twins.Motion(
    twins.Encoder(*(getattr(encoder.stack, name) for name in sizes), encoder.patch, patches + 1),
    twins.QFormer(
      *(idm[name] for name in sizes),
      idm["num_queries"],
      encoder.width,
      idm["num_queries"] + 2 * (patches + 2) - 1,
    ),
    twins.Bottleneck(idm["width"], latent_dim),
    twins.FDM(
      *(fdm[name] for name in sizes), encoder.patch, patches, idm["num_queries"], latent_dim
    ),
  )


def theirs(
  options: argparse.Namespace,
  params: Mapping[str, Any],
  batch: Mapping[str, np.ndarray],
  dtype: str,
  *,
  device: torch.device,
  compiled: bool,
) -> Contestant:
  """Torch's row: the twin with the same loss and optimizer."""
  settings = _config().train.optimizer
  model = twins.load(twin(section(options, dtype)), trees.flatten(params)).to(device).train()
  model.encoder.requires_grad_(False).to(getattr(torch, dtype))
  trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
  adam = torch.optim.Adam(
    trained,
    lr=settings.learning_rate,
    betas=(settings.b1, settings.b2),
    eps=settings.eps,
    fused=True,
  )
  steps_in_all, floor = _config().train.steps, settings.floor
  schedule = torch.optim.lr_scheduler.LambdaLR(
    adam, lambda count: 1 - (1 - floor) * min(count / steps_in_all, 1)
  )
  placed = [torch.tensor(batch[name], device=device) for name in ("frames", "jittered")]

  def loss(model, *inputs):
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
      return model(*inputs)

  run = torch.compile(loss, mode=options.compile_mode, dynamic=False) if compiled else loss

  def take(steps: int) -> tuple[float, float]:
    first = None
    for _ in range(steps):
      value = run(model, *placed)
      value.backward()
      norm = torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
      adam.step()
      adam.zero_grad()
      schedule.step()
      first = first or (value.detach(), norm)
    if device.type == "cuda":
      torch.cuda.synchronize()
    return tuple(float(x) for x in first)

  # computes shapes only
  with (
    torch.device("meta"),
    sdpa_kernel(SDPBackend.MATH),
    FlopCounterMode(display=False) as counter,
  ):
    shapes = twin(section(options, dtype))
    shapes.encoder.requires_grad_(False)
    shapes(*(tensor.to("meta") for tensor in placed)).backward()
  return Contestant(take, counter.get_total_flops())


def _config(preset: str = "published") -> config_lib.ConfigDict:
  return config_lib.parse(["main", f"--config={CONFIG}:{preset}"]).config


def check(options: argparse.Namespace, params: Mapping[str, Any], device: torch.device) -> float:
  """Relative difference of our loss and the twin's, in full float32, with the same parameters.

  Raises:
    SystemExit: they are not the same model.
  """
  model = models.build(section(options, "float32"))
  objective = objectives.build(objectives.active(_config().objectives))
  batch = pictures(2, 2, model.image_size)
  with jax.default_matmul_precision("highest"):
    terms = jax.jit(lambda p, x: objective(model.forward(p, x, key=rng.key(SEED, "loss")), x))(
      params, batch
    )
  ours_loss = float(step.total(terms, objective.weights))
  tf32 = torch.backends.cuda.matmul.allow_tf32
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
  with torch.no_grad():
    torch_model = twins.load(twin(model.config), trees.flatten(params)).to(device)
    value = float(
      torch_model(*(torch.tensor(batch[name], device=device) for name in ("frames", "jittered")))
    )
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
  return same("loss", ours_loss, value, tolerance=1e-4)


def same(what: str, ours_value: float, value: float, *, tolerance: float) -> float:
  """Relative difference of two values; exits if it is larger than the tolerance.

  Args:
    what: name of the value, for the message.
    ours_value: of our model.
    value: of torch's.
    tolerance: largest relative difference.
  """
  difference = abs(ours_value - value) / abs(value)
  if not difference <= tolerance:
    raise SystemExit(f"not the same model: {what} is {ours_value} here and {value} in torch")
  return difference
