"""Training of a policy (CoMo stage 2): robot actions and the latent motion of videos in one batch,
one trunk, light heads.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import errors, models, trees
from como_jax.data import normalization, policy_layout, policy_pipeline, policy_spec, read_options
from como_jax.data.batching import Batching, ProcessSlice, Split
from como_jax.inference import policy_evaluator, token_cache
from como_jax.parallel import distributed
from como_jax.serve import policy as serving
from como_jax.tasks import motion_data, policy_data, training
from como_jax.train import atomic, checkpoint, rng, rundir

EVALUATION = "evaluation.json"
# What a latent head depends on, and the values without labels.
LABEL_FACTS = {"latent_model": "", "latent_offset_seconds": 0.0}


def run(command: config_lib.CommandLine) -> int:
  """Trains; the weights it leaves hold all that acting needs (model, statistics, cameras,
  instruction encoder). With config.train.steps=0 it only scores the policy of config.init
  (`evaluate`).
  """
  if command.config.train.steps == 0:
    return evaluate(command)
  flags = {"resume": command.resume, "overwrite": command.overwrite}
  distributed.run_on_all_processes(
    lambda: (
      rundir.check(command.workdir, command.config, **flags) if distributed.is_primary() else None
    )
  )
  config, ready = resolve(command.config)
  return training.fit(dataclasses.replace(command, config=config), lambda: job(config, ready))


def evaluate(command: config_lib.CommandLine) -> int:
  """Scores the policy of config.init on the held-out examples of the data, without training, and
  writes EVALUATION; returns the exit code.

  Raises:
    errors.UserError: there is no such policy, it does not know a robot of the data, or nothing is
      held out.
  """
  config, workdir, flags = (
    command.config,
    command.workdir,
    {"resume": command.resume, "overwrite": command.overwrite},
  )
  if jax.process_count() > 1:
    raise errors.Shared("config.train.steps=0 scores a policy in one process, this run has several")
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
  rundir.check(workdir, config, **flags)
  if command.resume and any(
    (workdir / name).exists() for name in (checkpoint.FOLDER, checkpoint.WEIGHTS)
  ):
    raise errors.UserError(
      f"--workdir {workdir} holds a trained policy: to score it give --config.init={workdir} "
      "and another --workdir"
    )
  config, ready = resolve(config)
  known, before = ready.start[1]["robots"], ready.start[1].get("policy", {})
  for key in ("guidance_scale", "reduce"):
    if key in before and before[key] != config.policy[key]:
      raise errors.UserError(
        f"config.train.steps=0: config.policy.{key} is {config.policy[key]!r}, that of the "
        f"policy {config.init!r} is {before[key]!r}"
      )
  if new := [name for name in config.robots if name not in known]:
    raise errors.UserError(
      f"config.train.steps=0: the policy {config.init!r} has no head for robot {new[0]!r}: "
      f"{errors.nearest(new[0], known)}"
    )
  made = job(config, ready)
  rundir.open_run(workdir, config, **flags)
  scores = made.evaluate(jax.device_put(made.start))
  atomic.write(
    workdir / EVALUATION,
    json.dumps(
      {"policy": str(config.init), "data": [one.path for one in ready.sets], **scores}, indent=2
    ),
  )
  print(
    f"{config.init} on held-out examples: "
    + ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
    + (
      " (of action_mse 0 is perfect; its unit is the policy's own normalization) -> "
      f"{workdir / EVALUATION}"
    )
  )
  return 0


@dataclasses.dataclass(frozen=True)
class ResolvedPolicyData:
  """What a config came down to once its data were looked at.

  Attributes:
    sets: the mixture.
    layout: what an example holds, the statistics included.
    start: (parameters, config) of the policy it starts from, or None.
    spec: what serving needs beside the weights.
  """

  sets: list[policy_pipeline.PolicySet]
  layout: policy_layout.Layout
  start: tuple[dict, dict] | None
  spec: policy_spec.PolicySpec


def resolve(config: config_lib.ConfigDict) -> tuple[config_lib.ConfigDict, ResolvedPolicyData]:
  """The config with everything that follows from its data: sizes of robots, latents and
  instructions, cameras, statistics.

  Raises:
    errors.UserError: data or labels that do not fit together, or do not fit the policy to start
      from.
  """
  sets = policy_data.sets(config)
  start = None
  if config.init:
    start = checkpoint.load(config.init)
    serving.check(start[1], repr(config.init))
  before = start[1] if start else {}
  config = config_lib.ConfigDict(config.to_dict())
  settings, resize, label = (
    before.get("policy", {}),
    policy_data.resize(sets),
    policy_data.label_facts(sets),
  )
  check_start(config.init, settings, resize=resize, label=label)
  robots = {
    name: {"cameras": settings["cameras"], **facts}
    for name, facts in before.get("robots", {}).items()
  }
  # the data number them by name
  robots = dict(sorted({**robots, **policy_data.robots(config, sets)}.items()))
  for name, facts in robots.items():
    old = before.get("robots", {}).get(name, facts)
    for key in ("action", "state", "step_seconds"):
      if old[key] != facts[key]:
        raise errors.UserError(
          f"robot {name!r}: {key} is {facts[key]} here and {old[key]} in the policy "
          f"{config.init!r} to start from; give it another name to get a new head"
        )
  encode, texts = policy_data.instructions(config, sets)
  with config.ignore_type():
    config.robots = robots
    config.policy.cameras = policy_data.cameras(config, sets)
    config.policy.resize = resize
    config.policy.update(
      {key: (label or settings).get(key, none) for key, none in LABEL_FACTS.items()}
    )
    model = config.model
    model.robots = {
      name: {"action": facts["action"], "state": facts["state"]} for name, facts in robots.items()
    }
    model.num_cameras = len(config.policy.cameras)
    model.language.update(width=encode.width, num_tokens=encode.tokens)
    if label:
      model.latent.update(num_queries=label["queries"], latent_dim=label["dims"])
    elif start:
      kept = before["model"]["latent"]
      model.latent.update(num_queries=kept["num_queries"], latent_dim=kept["latent_dim"])
    found = policy_pipeline.statistics(
      sets,
      mode=config.policy.normalization,
      step_seconds=config.policy.step_seconds,
      reduce=config.policy.reduce,
      validation_fraction=config.data.validation_fraction,
    )
    if start:  # a head that is trained further goes on in its own units
      old = normalization.Normalizer.from_json(before["normalization"])
      found = dataclasses.replace(
        found,
        mode=old.mode,
        robots={**found.robots, **old.robots},
        latent=old.latent or found.latent,
      )
    found = with_grippers(
      found, robots, tuple(config.policy.gripper), kept=before.get("robots", {})
    )
    config.normalization = found.to_json()
    if model.policy == "gpt":
      set_grippers(model, found)
  layout = policy_layout.Layout(
    normalizer=found,
    language=texts,
    robots={name: (facts["action"], facts["state"]) for name, facts in robots.items()},
    cameras=model.num_cameras,
    history=model.history,
    chunk=model.action_horizon,
    reduce=config.policy.reduce,
    latent_chunk=model.latent.motion_horizon,
    latent_size=models.specs.LatentSpec(model.latent.num_queries, model.latent.latent_dim).size,
    image_size=config.data.image_size,
    step_seconds=config.policy.step_seconds,
  )
  if config.data.image_size != model.image_size:
    raise errors.UserError(
      f"config.data.image_size={config.data.image_size} is not "
      f"config.model.image_size={model.image_size}"
    )
  guidance_scale = config.policy.guidance_scale
  if guidance_scale != 1 and not models.build(config.model.to_dict()).action_head.supports_guidance:
    raise errors.UserError(
      f"config.policy.guidance_scale={guidance_scale}: only policy=dit can be guided, "
      f"policy={config.model.policy} takes 1"
    )
  config.lock()
  spec = policy_spec.PolicySpec.from_config(config.to_dict())
  return config, ResolvedPolicyData(sets, layout, start, spec)


def with_grippers(
  found: normalization.Normalizer,
  robots: Mapping[str, Mapping[str, Any]],
  wanted: tuple[str, ...],
  *,
  kept: Collection[str] = (),
) -> normalization.Normalizer:
  """The normalization with the two-valued action dimensions that config.policy.gripper names, and
  no others.

  Args:
    found: with those that the data have.
    robots: facts of each, with "action_names".
    wanted: names or numbers of actions; ("auto",) takes what was found.
    kept: robots of the policy to start from, which keep theirs.

  Raises:
    errors.UserError: no robot has such an action, or it has more than two values.
  """
  if wanted == ("auto",):
    return found
  dims_of = {}  # robot -> name or number of an action -> its dimension
  for robot, facts in robots.items():
    if robot not in kept:
      numbers = {str(dim): dim for dim in range(facts["action"])}
      dims_of[robot] = numbers | {str(name): dim for dim, name in enumerate(facts["action_names"])}
  known = {name for of in dims_of.values() for name in of}
  for one in map(str, wanted):
    if one not in known:
      raise errors.UserError(
        f"config.policy.gripper: no robot has an action {one!r}: {errors.nearest(one, known)}"
      )
  changed = dict(found.robots)
  for robot, of in dims_of.items():
    action, chosen = (
      found.robots[robot]["action"],
      {str(one): of[str(one)] for one in wanted if str(one) in of},
    )
    for name, dim in chosen.items():
      if not action.two_valued[dim]:
        raise errors.UserError(
          f"config.policy.gripper: action {name!r} of robot {robot!r} has more values than two, "
          f"from {action.min[dim]:.6g} to {action.max[dim]:.6g}: leave it out"
        )
    binary = np.isin(np.arange(robots[robot]["action"]), list(chosen.values()))
    changed[robot] = {**found.robots[robot], "action": dataclasses.replace(action, binary=binary)}
  return dataclasses.replace(found, robots=changed)


def set_grippers(model, found: normalization.Normalizer) -> None:
  """Fills model.gpt.gripper, the dimensions that GPT classifies; a diffusion head denoises them
  like the others.

  Raises:
    errors.UserError: the config fills it itself.
  """
  if model.gpt.gripper:
    raise errors.UserError(
      "config.model.gpt.gripper is filled from the data: name the dimensions in "
      "config.policy.gripper"
    )
  if model.gpt.action_head == "regression":
    model.gpt.gripper = {
      robot: list(dims) for robot in model.robots if (dims := found.grippers(robot))
    }


def say_dimensions(
  robots: Mapping[str, Mapping[str, Any]], found: normalization.Normalizer
) -> list[str]:
  """What the run makes of actions and states that take two values or never move, a line each, for
  logs.
  """
  lines = []
  for robot in sorted(robots):
    facts, one = robots[robot], found.robots[robot]["action"]

    def name(key, dim, facts=facts):
      names = facts.get(f"{key}_names") or ()
      return str(names[dim]) if dim < len(names) else f"{key} {dim}"

    for dim in found.grippers(robot):
      lines.append(
        f"robot {robot}: action {name('action', dim)} takes two values, {one.min[dim]:.6g} and "
        f"{one.max[dim]:.6g}: it is served as one of them"
      )
    for dim, value in found.constants(robot, "action").items():
      lines.append(
        f"robot {robot}: action {name('action', dim)} never moves: it is served as its constant "
        f"{value:.6g}"
      )
    still = [name("state", dim) for dim in found.constants(robot, "state")]
    if still:
      lines.append(
        f"robot {robot}: state {', '.join(still)} never moves: the policy does not see it"
      )
  return lines


def check_start(
  init: str, before: dict[str, Any], *, resize: str, label: dict[str, Any] | None
) -> None:
  """Raises errors.UserError where data are unlike those of the policy to start from, whose `policy`
  section is `before` ({} for none).
  """
  if before and before.get("resize", "squash") != resize:
    raise errors.UserError(
      f"the data were ingested with resize={resize!r}, those of the policy {init!r} to start from "
      f"with {before.get('resize', 'squash')!r}: ingest them in the same way"
    )
  for key, none in LABEL_FACTS.items():
    old = before.get(key, none)
    if label and old != none and label[key] != old:
      raise errors.UserError(
        f"{key} of the labels is {label[key]!r}, of the policy {init!r} to start from {old!r}: "
        "its latent head speaks another language; extract the labels with its motion model and "
        "offset"
      )


def job(config: config_lib.ConfigDict, ready: ResolvedPolicyData) -> training.TrainJob:
  """Model, losses, batches and the offline action error, from the resolved config."""
  model = models.build(config.model.to_dict())
  start = starting_point(config, model, ready.start)
  slots = config.model.num_cameras
  for line in policy_pipeline.describe(
    ready.sets, validation_fraction=config.data.validation_fraction, cameras=slots
  ):
    print(f"data: {line}")
  for one in ready.sets:
    if unused := policy_data.unused_cameras(one, slots):
      print(
        f"data: {one.label}: cameras {', '.join(unused)} are not used, the policy's slots are "
        f"{', '.join(config.policy.cameras)}: name them in config.policy.cameras"
      )
  for line in say_dimensions(config.robots.to_dict(), ready.layout.normalizer):
    print(f"data: {line}")
  fraction = config.data.validation_fraction
  how = motion_data.choose_read_options(
    config.data, [one.path for one in ready.sets], model.inputs_spec(motion_data.local_rows(config))
  )
  fixed = read_options.ReadOptions(threads=read_options.reading_threads(config.data.threads))
  held_out = None
  if config.data.validation_fraction > 0:
    held_out = policy_pipeline.evaluation(
      ready.sets,
      ready.layout,
      Batching(config.evaluation.batch_size),
      Split("validation", fraction),
      fixed,
      max_examples=config.evaluation.examples,
    )

  def loss(params, batch, key):
    return model.losses(params, batch, key)

  score = policy_evaluator.PolicyEvaluator(
    model,
    ready.layout.normalizer,
    guidance_scale=float(config.policy.guidance_scale),
    dtype=config.model.dtype,
  )
  augment = motion_data.augmentation(config.data)
  known = None
  if config.policy.cache_tokens:
    token_cache.check("policy.cache_tokens", config, model, start, augment)
    known = token_cache.TokenCache(model, start).fill(
      policy_pipeline.evaluation(
        ready.sets,
        ready.layout,
        Batching(config.evaluation.batch_size),
        Split("train", fraction),
        fixed,
      )
    )
    print(f"image tokens: {len(known)} images encoded, once")

  def batches(step):
    process = ProcessSlice(jax.process_index(), jax.process_count())
    found = policy_pipeline.build(
      ready.sets,
      ready.layout,
      Batching(config.train.batch_size, config.seed, step, process),
      Split("train", fraction),
      how,
      augment,
    )
    return known.over(found) if known else found

  return training.TrainJob(
    model=model,
    loss=loss,
    weights=loss_weights(config, model),
    start=start,
    unit="examples",
    examples_per_step=config.train.batch_size,
    batches=batches,
    loading=how,
    batch=known.spec(model.inputs_spec(config.train.batch_size))
    if known
    else model.inputs_spec(config.train.batch_size),
    data=[(one.path, one.labels) for one in ready.sets],
    evaluate=held_out and (lambda params: score(params, held_out)),
    files={policy_spec.FILE: policy_spec.text(ready.spec)},
  )


def loss_weights(config, model) -> dict[str, float]:
  """The weight of every term of the model's loss."""
  return {name: float(config.policy.objectives[name].weight) for name in model.terms}


def starting_point(config, model, start: tuple[dict, dict] | None) -> dict[str, Any]:
  """Named parts of the parameters that do not start at random: {} | the encoder | everything that a
  policy to start from has.
  """
  if start is None:
    if not config.encoder_weights:
      print(
        'encoder: random; set config.encoder_weights ("bundled", a motion model or a pretrained '
        "MAE)"
      )
    return training.encoder_weights(config.encoder_weights, model=model)
  body = start[1]["model"]["policy"]
  if body != config.model.policy:
    raise errors.UserError(
      f"the policy {config.init!r} to start from is a {body!r}, this config makes a "
      f"{config.model.policy!r}: choose its kind after the variant, as in "
      f"--config=configs/policy.py:small,policy={body}"
    )
  fresh = jax.jit(model.init)(rng.key(config.seed, "init"))
  names, given = trees.flatten(fresh), trees.flatten(start[0])
  new = {name: leaf for name, leaf in names.items() if name not in given}
  other = sorted({"/".join(name.split("/")[:2]) for name in new if not name.startswith("heads/")})
  if other:
    raise errors.UserError(
      f"the policy {config.init!r} to start from has no {', '.join(other[:4])}: its model "
      "section differs from this one's"
    )
  if new:
    print("new heads: " + ", ".join(sorted({name.split("/")[1] for name in new})))
  return trees.merge(fresh, trees.unflatten({**given, **new}), what=f"policy {config.init!r}")
