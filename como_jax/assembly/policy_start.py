"""The policy that training goes on from: another run's, or the run's own that is resumed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from como_jax import config as config_lib
from como_jax import errors, trees
from como_jax.data import policy_spec
from como_jax.data.policy_facts import LatentMotion, RobotFacts
from como_jax.data.policy_spec import PolicySpec
from como_jax.serve import policy_checkpoint
from como_jax.train import checkpoint, encoder_weights, integrity, rng, rundir


@dataclasses.dataclass(frozen=True)
class StartingPolicy:
  """A policy that training goes on from.

  Attributes:
    name: how messages call it.
    spec: its record.
    params: weights to start from; None for a run that did not start from a policy.
  """

  name: str
  spec: PolicySpec
  params: Mapping[str, Any] | None = None


def load(init: str) -> StartingPolicy | None:
  """The policy of config.init; None for "".

  Raises:
    errors.UserError: there is none.
  """
  if not init:
    return None
  params, spec = policy_checkpoint.load(init)
  return StartingPolicy(f"the policy {init!r} to start from", spec, params)


def resumed(command: config_lib.CommandLine) -> StartingPolicy | None:
  """The run that --resume goes on with; None for a new run.

  Its checkpoint brings the weights; those of config.init only tell which parts were given.

  Raises:
    errors.UserError: it has checkpoints and nothing says in which units they were trained.
  """
  if not command.resume:
    return None
  workdir = command.workdir
  spec = policy_checkpoint.read_spec(workdir)
  if spec is None:
    if integrity.steps(workdir / checkpoint.FOLDER):
      copy = workdir / checkpoint.WEIGHTS / policy_spec.FILE
      raise errors.UserError(
        f"--resume: {workdir / policy_spec.FILE} does not say in which units the checkpoints "
        f"beside it were trained, and {rundir.CONFIG} does not either: put the file back"
        + (f", from {copy}" if copy.is_file() else "")
      )
    return None
  before = load(command.config.init)
  return StartingPolicy(f"the run {command.workdir}", spec, before and before.params)


def check(
  start: StartingPolicy,
  facts: Mapping[str, RobotFacts],
  latent: LatentMotion | None,
  *,
  resize: str,
) -> None:
  """Refuses data that are unlike those of the policy to start from.

  Raises:
    errors.UserError: other frames, labels of another model or offset, or a robot of another size
      or rate.
  """
  if start.spec.resize != resize:
    raise errors.UserError(
      f"the data were ingested with resize={resize!r}, those of {start.name} with "
      f"{start.spec.resize!r}: ingest them in the same way"
    )
  for key in ("latent_model", "latent_offset_seconds") if latent and start.spec.latent else ():
    old, new = getattr(start.spec.latent, key), getattr(latent, key)
    if old and old != new:
      raise errors.UserError(
        f"{key} of the labels is {new!r}, of {start.name} {old!r}: its latent head speaks another "
        "language; extract the labels with its motion model and offset"
      )
  for name, robot in facts.items():
    for key in ("action", "state", "step_seconds") if name in start.spec.robots else ():
      old, new = getattr(start.spec.robots[name], key), getattr(robot, key)
      if old != new:
        raise errors.UserError(
          f"robot {name!r}: {key} is {new} here and {old} in {start.name}; give it another name to "
          "get a new head"
        )


def check_cameras(
  resumed: StartingPolicy, facts: Mapping[str, RobotFacts], *, num_cameras: int
) -> None:
  """Refuses camera slots other than those that a resumed run has learned to see through.

  Raises:
    errors.UserError: another number of slots, or other cameras in them.
  """
  slots = resumed.spec.model["num_cameras"]
  if num_cameras != slots:
    raise errors.UserError(
      f"--resume: config.policy.cameras and the data give {num_cameras} camera slots, "
      f"{resumed.name} has {slots}"
    )
  for name, robot in facts.items():
    before = resumed.spec.robots[name].cameras if name in resumed.spec.robots else ()
    if any(before) and tuple(before) != tuple(robot.cameras):
      raise errors.UserError(
        f"--resume: the cameras of robot {name!r} are {', '.join(robot.cameras)} here and "
        f"{', '.join(before)} in {resumed.name}: name them in config.policy.cameras or the mixture"
      )


def parameters(config, model: Any, start: StartingPolicy | None) -> Mapping[str, Any]:
  """Named parts of the parameters that do not start at random.

  These are none, the encoder, or everything that a policy to start from has.

  Args:
    config: of the run.
    model: of the run.
    start: the policy to start from, or None.

  Raises:
    errors.UserError: the policy to start from is of another kind or size.
  """
  if start is None or start.params is None:
    if not config.encoder_weights and start is None:
      print(
        'encoder: random; set config.encoder_weights ("bundled", a motion model or a pretrained '
        "MAE)"
      )
    return encoder_weights.load(config.encoder_weights, model=model)
  body = start.spec.model["policy"]
  if body != config.model.policy:
    raise errors.UserError(
      f"{start.name} is a {body!r}, this config makes a "
      f"{config.model.policy!r}: choose its kind after the variant, as in "
      f"--config=configs/policy.py:small,policy={body}"
    )
  fresh = jax.jit(model.init)(rng.key(config.seed, "init"))
  expected, given = trees.flatten(fresh), trees.flatten(start.params)
  new = {name: leaf for name, leaf in expected.items() if name not in given}
  other = sorted({"/".join(name.split("/")[:2]) for name in new if not name.startswith("heads/")})
  if other:
    raise errors.UserError(
      f"{start.name} has no {', '.join(other[:4])}: its model section differs from this one's"
    )
  if new:
    print("new heads: " + ", ".join(sorted({name.split("/")[1] for name in new})))
  return trees.merge(fresh, trees.unflatten({**given, **new}), what=f"policy {config.init!r}")
