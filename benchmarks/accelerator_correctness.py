"""Section "correctness" of accelerator.py: the same numbers as on the CPU.

Each model's loss and its gradient, from the same parameters and batch: float32 with full-precision
products against the CPU, and bfloat16 against the same. Then attention: the fused kernel and XLA,
both in bfloat16, against XLA in float32, with numbers of tokens that the kernel must pad.
"""

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np

from como_jax import config as config_lib
from como_jax import model_presets, models, objectives, trees
from como_jax.assembly import policy_setup
from como_jax.models import attention
from como_jax.train import rng, step

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
SEED = 0
# Largest relative differences. float32: of sums of some 1e5 products in another order. bfloat16: a
# product has 8 bits; a wrong term of a gradient would change it by its whole size.
LOSS, GRADIENT = {"float32": 1e-4, "bfloat16": 3e-2}, {"float32": 2e-3, "bfloat16": 0.15}
# name: (task, presets at "published" and at "tiny")
CASES = {
  "motion": ("motion", ("published", "debug")),
  "mae": ("mae", ("debug", "debug")),
  "policy, DiT": ("policy", ("debug", "debug")),
  "policy, GPT": ("policy", ("debug_gpt", "debug_gpt")),
}
# name: (query tokens, key tokens, heads, mask): of the encoder, Q-former, FDM, trunks, and small
# odd numbers
SHAPES = {
  "encoder": (197, 197, 16, ""),
  "Q-former": (403, 403, 12, ""),
  "FDM": (205, 205, 12, ""),
  "odd keys": (32, 197, 12, ""),
  "keys masked": (64, 401, 12, "keys"),
  "causal": (77, 77, 12, "causal"),
  "small": (33, 13, 2, ""),
}


@dataclasses.dataclass(frozen=True)
class Run:
  """One program: a model's loss and gradient on a device, in a dtype."""

  case: str
  platform: str
  dtype: str


def correctness(size: str, out: pathlib.Path) -> list[str]:
  """The part of the page.

  Raises:
    SystemExit: a difference is larger than its limit; the rows are written first.
  """
  del out
  rows, wrong = _models(size)
  shapes, bad = _attention(size)
  parts = [
    "Relative differences of a loss and of its gradient (norm of the difference / norm), same "
    "parameters and batch; the reference is float32 on the CPU.",
    common.table(("model", "against the CPU", "loss", "its difference", "of the gradient"), rows),
    shapes,
  ]
  for line in (*wrong, *bad):
    parts.append(f"**wrong: {line}**")
  if wrong or bad:
    print("\n\n".join(parts))
    raise SystemExit("a difference is larger than its limit")
  return parts


def _models(size: str) -> tuple[list[tuple], list[str]]:
  accelerator = jax.default_backend()
  reference = {case: Run(case, "cpu", "float32") for case in CASES}
  here = [Run(case, accelerator, dtype) for case in CASES for dtype in LOSS]
  runs = list(dict.fromkeys([*reference.values(), *here]))  # on a CPU some are the same
  made = {(case, dtype): _case(case, size, dtype) for case in CASES for dtype in LOSS}
  arguments = {case: _arguments(*made[case, "float32"]) for case in CASES}
  lowered = [_lower(run, *made[run.case, run.dtype], arguments[run.case]) for run in runs]
  with concurrent.futures.ThreadPoolExecutor() as pool:  # XLA compiles outside Python's lock
    compiled = list(pool.map(lambda program: program.compile(), lowered))
  print(f"{len(runs)} programs compiled", flush=True)
  results = {}
  for run, program in zip(runs, compiled, strict=True):
    inputs = jax.device_put(arguments[run.case], jax.devices(run.platform)[0])
    loss, grads = program(*inputs)
    results[run] = float(loss), _flat(grads)
    print(run, results[run][0], flush=True)
  rows, wrong = [], []
  for run in here:
    loss, grads = results[run]
    expected, wanted = results[reference[run.case]]
    differences = abs(loss - expected) / abs(expected), _difference(grads, wanted)
    cells = map("{:.1e}".format, differences)
    rows.append((run.case, f"{run.platform} {run.dtype}", f"{loss:.6g}", *cells))
    if not (differences[0] <= LOSS[run.dtype] and differences[1] <= GRADIENT[run.dtype]):
      wrong.append(f"{run.case}, {run.dtype}: limits {LOSS[run.dtype]}, {GRADIENT[run.dtype]}")
  return rows, wrong


def _case(case: str, size: str, dtype: str) -> tuple[Any, Callable, step.StepOptions]:
  """(model, loss, options of its total)."""
  task, presets = CASES[case]
  section = model_presets.preset(task, presets[size == "tiny"]) | {"dtype": dtype, "remat": "none"}
  config = config_lib.parse(["main", f"--config={CONFIGS / task}.py:debug"]).config
  model = models.build(section)
  if task == "policy":
    loss, weights = model.losses, policy_setup.loss_weights(config, model)
  else:
    objective = objectives.build(objectives.active(config.objectives))
    loss, weights = objectives.model_loss(model, objective), objective.weights
  return model, loss, step.StepOptions(weights=weights, frozen=model.frozen, seed=SEED)


def _arguments(model: Any, loss: Callable, options: step.StepOptions) -> tuple[Any, Any]:
  """Parameters that are zero nowhere, and a batch of random values; on the CPU."""
  del loss
  jittered = {"jittered": True} if "contrastive" in options.weights else {}
  data = np.random.default_rng(SEED)

  def draw(spec: jax.ShapeDtypeStruct) -> np.ndarray:
    if spec.dtype == jnp.uint8:
      return data.integers(0, 256, spec.shape, np.uint8)
    if spec.dtype == jnp.bool_:
      return np.ones(spec.shape, bool)
    if spec.dtype == jnp.int32:
      return np.zeros(spec.shape, np.int32)
    return data.normal(size=spec.shape).astype(np.float32)

  with jax.default_device(jax.devices("cpu")[0]):
    params = jax.device_get(jax.jit(model.init)(rng.key(SEED, "init")))
  params = jax.tree.map(lambda x: x + data.normal(0, 0.02, x.shape).astype(x.dtype), params)
  return params, jax.tree.map(draw, model.inputs_spec(2, **jittered))


def _lower(
  run: Run, model: Any, loss: Callable, options: step.StepOptions, arguments: tuple[Any, Any]
) -> jax.stages.Lowered:
  del model
  sharding = jax.sharding.SingleDeviceSharding(jax.devices(run.platform)[0])
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arguments
  )

  def both(params, batch):
    key = rng.key(SEED, "loss")
    grads, terms = step.compute_gradients(loss, params, batch, key, options)
    return step.total(terms, options.weights), grads

  precision = "highest" if run.dtype == "float32" else "default"
  with jax.default_matmul_precision(precision):
    return jax.jit(both).lower(*shapes)


def _flat(tree: Any) -> np.ndarray:
  return np.concatenate([np.asarray(x, np.float64).ravel() for x in trees.flatten(tree).values()])


def _difference(a: np.ndarray, reference: np.ndarray) -> float:
  return float(np.linalg.norm(a - reference) / np.linalg.norm(reference))


def _attention(size: str) -> tuple[str, list[str]]:
  """The rows of attention, and what is wrong with them."""
  batch = 4 if size == "published" else 2
  rows, wrong = [], []

  def compute(kernel, mask, *inputs):
    def loss(q, k, v):
      y = attention.attend(q, k, v, mask, kernel=kernel).astype(jnp.float32)
      return (y * inputs[3].astype(jnp.float32)).sum(), y

    (_, y), grads = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*inputs[:3])
    return y, *grads

  def measure(name: str) -> tuple[tuple, str]:
    queries, keys, heads, masked = SHAPES[name]
    data = np.random.default_rng(SEED)
    shapes = [(batch, n, heads, 64) for n in (queries, keys, keys, queries)]
    # exact in bfloat16, so that only the arithmetic differs
    inputs = [np.asarray(data.normal(size=s), jnp.bfloat16) for s in shapes]
    mask = None
    if masked == "keys":
      mask = jnp.asarray(np.arange(keys) < keys - 7)[None, None, None]
    elif masked:
      mask = jnp.tril(jnp.ones((queries, keys), bool))[None, None]
    with jax.default_matmul_precision("highest"):
      exact = jax.jit(lambda *x: compute("xla", mask, *x))(*(x.astype(np.float32) for x in inputs))
    errors = {}
    for kernel in ("xla", "fused"):
      result = jax.jit(lambda *x, kernel=kernel: compute(kernel, mask, *x))(*inputs)
      errors[kernel] = [
        _difference(np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(result, exact, strict=True)
      ]
    library = attention._library(jnp.asarray(inputs[0]), jnp.asarray(inputs[1]), mask) or "none"
    cells = (
      f"{name}: {queries} x {keys}, {heads} heads{', ' + masked if masked else ''}",
      library,
      *(" / ".join(f"{e:.1e}" for e in errors[kernel]) for kernel in ("fused", "xla")),
    )
    bad = any(
      not fused <= 2 * xla + 1e-3 for fused, xla in zip(errors["fused"], errors["xla"], strict=True)
    )
    return cells, f"attention, {name}: more than twice XLA's error" if bad else ""

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for cells, problem in pool.map(measure, SHAPES):
      rows.append(cells)
      wrong += [problem] if problem else []
  columns = ("attention in bfloat16", "kernel", "error of it: y / dq / dk / dv", "of XLA")
  return "Relative errors against XLA in float32:\n\n" + common.table(columns, rows), wrong
