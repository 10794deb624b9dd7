"""The untrained motion model beside a trained one: a start of the same run, with another seed."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from como_jax import models, trees
from como_jax.data import evaluation
from como_jax.models.motion import linear_path_init
from como_jax.train import rng


def untrained(
  model: Any,
  trained: Mapping[str, Any],
  open_windows: Callable[[], evaluation.EvaluationWindows],
  *,
  seed: int,
) -> dict[str, Any]:
  """Initial parameters of a run of this model, with the encoder of the trained model.

  Args:
    model: the model. A linear path is initialized by components of the pairs of the windows.
    trained: parameters of the trained model.
    open_windows: opens windows of training episodes; only called if the model has a linear path.
    seed: seed of the parameters.
  """
  params = {**jax.jit(model.init)(rng.key(seed, "untrained")), "encoder": trained["encoder"]}
  if model.linear_path is not None:
    windows = open_windows()
    with windows.batches() as batches:
      params["idm"] |= linear_path_init.init_from_pairs(
        model, params, batches, pairs=min(linear_path_init.PAIRS, 2 * windows.size)
      )["idm"]
  return params


def encoder_is_trained(run_config: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
  """Whether a run trains its encoder.

  Args:
    run_config: config of the run.
    params: parameters of its model.
  """
  frozen = run_config.get("train", {}).get("frozen")
  frozen = models.build(run_config["model"]).frozen if frozen is None else frozen
  return bool(trees.split({"encoder": params["encoder"]}, tuple(frozen))[0])
