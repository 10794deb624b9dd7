"""Scoring of a policy on held-out examples, without training (config.train.steps=0)."""

import json
from collections.abc import Callable
from typing import Any

import jax

from como_jax import config as config_lib
from como_jax import errors, models
from como_jax.assembly import policy_setup, policy_start
from como_jax.inference import policy_evaluator
from como_jax.train import atomic, checkpoint, rundir

EVALUATION = "evaluation.json"


def run(command: config_lib.CommandLine) -> int:
  """Scores the policy of config.init on the held-out examples of the data and writes EVALUATION.

  Raises:
    errors.UserError: there is no such policy, it does not know a robot of the data, or nothing is
      held out.
  """
  config, workdir = command.config, command.workdir
  flags = {"resume": command.resume, "overwrite": command.overwrite}
  _check(config)
  rundir.check(workdir, config, **flags)
  if command.resume and any(
    (workdir / name).exists() for name in (checkpoint.FOLDER, checkpoint.WEIGHTS)
  ):
    raise errors.UserError(
      f"--workdir {workdir} holds a trained policy: to score it give --config.init={workdir} "
      "and another --workdir"
    )
  setup = policy_setup.setup(config)
  _check_same(config, setup)
  model = models.build(dict(setup.spec.model))
  params = policy_start.parameters(config, model, setup.start)
  evaluate = held_out_score(config, model, setup)
  assert evaluate is not None  # as something is held out
  for remark in policy_setup.remarks(setup):
    print(remark)
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  scores = evaluate(jax.device_put(params))
  record = {
    "policy": str(config.init),
    "data": [opened.entry.path for opened in setup.data.mixture.sets],
    **scores,
  }
  atomic.write(workdir / EVALUATION, json.dumps(record, indent=2))
  print(
    f"{config.init} on held-out examples: "
    + ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
    + " (of action_mse 0 is perfect; its unit is the policy's own normalization) -> "
    f"{workdir / EVALUATION}"
  )
  return 0


def held_out_score(
  config, model: Any, setup: policy_setup.PolicySetup
) -> Callable[[Any], dict[str, float]] | None:
  """`params -> scores` on the held-out examples; None where nothing is held out."""
  if not config.data.validation_fraction > 0:
    return None
  section = config.evaluation
  held_out = setup.data.examples(
    setup.layout, "validation", batch_size=section.batch_size, max_examples=section.examples
  )
  score = policy_evaluator.PolicyEvaluator(
    model,
    {name: robot.transforms["action"] for name, robot in setup.spec.robots.items()},
    guidance_scale=setup.spec.guidance_scale,
    dtype=setup.spec.model["dtype"],
  )
  return lambda params: score(params, held_out)


def _check(config) -> None:
  """Refuses a config that has no policy or nothing to score it on."""
  if jax.process_count() > 1:
    raise errors.SharedUserError(
      "config.train.steps=0 scores a policy in one process, this run has several"
    )
  if not config.init:
    raise errors.UserError(
      "config.train.steps=0 trains nothing and scores the policy of config.init: give "
      "--config.init=RUN"
    )
  if not config.data.validation_fraction > 0:
    raise errors.UserError(
      "config.train.steps=0 scores a policy on held-out episodes: "
      "config.data.validation_fraction is 0"
    )


def _check_same(config, setup: policy_setup.PolicySetup) -> None:
  """Refuses settings that would score another policy than the one that was trained."""
  assert setup.start is not None  # as config.init is given
  spec, known = setup.start.spec, setup.start.spec.robots
  reductions = {known[name].reduce for name in setup.data.robots() if name in known}
  stored = {"guidance_scale": {spec.guidance_scale}, "reduce": reductions}
  for key, values in stored.items():
    if values and config.policy[key] not in values:
      raise errors.UserError(
        f"config.train.steps=0: config.policy.{key} is {config.policy[key]!r}, that of the "
        f"policy {config.init!r} is {' or '.join(map(repr, sorted(values)))}"
      )
  if new := [name for name in setup.spec.robots if name not in known]:
    raise errors.UserError(
      f"config.train.steps=0: the policy {config.init!r} has no head for robot {new[0]!r}: "
      f"{errors.nearest(new[0], known)}"
    )
