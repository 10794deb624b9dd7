"""Every wrong value of every key of every config: one line, exit code 2, before a task begins.

The wrong values come from this file's own lists of what is meaningful, not from the table that is
tested.
"""

import pytest

from como_jax import config as config_lib
from como_jax import errors, objectives
from como_jax.assembly import config_checks
from como_jax.settings import limits
from tests import test_config

VARIANTS = [
  *test_config.RESOLVED,
  "mae:B",
  "ingest:small",
  "collect:pretrain",
  "motion:small,bottleneck=pre_vq",
  "policy:small,policy=gpt,motion=gmm",
]
# Keys where 0 says something ("off", "all", "automatic", "the source's own") or is simply possible;
# "task:key" where tasks differ.
ZERO = {
  "exam.seed",
  "exam.more_test_chains",
  "seed",
  "collect.seed",
  "data.workers",
  "data.threads",
  "data.prefetch",
  "data.shuffle_shards",
  "data.validation_fraction",
  "data.augment.shift.fraction",
  "data.augment.flip.probability",
  *(f"data.augment.color.{key}" for key in ("brightness", "contrast", "saturation")),
  "data.source.frame_rate",
  "source.frame_rate",
  "train.ema",
  "train.evaluate_every",
  "train.checkpoint_every",
  "train.optimizer.learning_rate",
  "train.optimizer.b1",
  "train.optimizer.b2",
  "train.optimizer.eps",
  "train.optimizer.weight_decay",
  "train.optimizer.clip_norm",
  "train.optimizer.floor",
  "train.optimizer.warmup_steps",
  "train.optimizer.warmup_start",
  "train.stall_seconds",
  *(f"objectives.{name}.weight" for name in objectives.OBJECTIVES),
  "objectives.quantization.beta",
  "policy.objectives.action.weight",
  "policy.objectives.latent.weight",
  "model.mask_ratio",
  "model.language_dropout",
  "model.idm.components",
  "objectives.contrastive.gate",
  "model.trunk.depth",
  "model.robots.robot.state",
  "model.gpt.motion_dropout",
  "model.gpt.action_weight",
  "model.gpt.mixture.temperature",
  "model.dit.ddpm.clip",
  "model.gpt.ddpm.clip",
  "policy.step_seconds",
  "policy.guidance_scale",
  "guidance_scale",
  "step_seconds",
  "shards.image_size",
  "shards.quality",
  "shards.unit_frames",
  *(
    f"{section}.filters.{key}"
    for section in ("data", "shards")
    for key in ("max_global_motion", "min_motion", "min_shot_seconds", "still_seconds")
  ),
  "policy.objectives.gripper.weight",
  "ingest:workers",
  "pairs_batch",
  "scene",
  "videos",
  "execute",
  "max_steps",
  "ensemble",
  "port",
  "batch_wait_ms",
  "batch_per_device",
  "memory",
  "effort",
  "collect.cameras_per_episode",
  "collect.repeated",
  "collect.tail",
  "collect.noise",
  "collect.correlation",
  "video.crf",
}
# Texts that are names or paths of the user's: no list of valid ones exists before the data,
# checkpoint or simulator is opened.
RESUMABLE_KEYS = {
  "data.cache",
  "train.wandb",
  "train.compiled_step",
  "output",
  "lerobot",
  "policy.robot",
  "robot",
  "host",
  "prompt",
  "camera",
  "changes",
  "collect.build.initial",
  "build.initial",
  "build.limits",
  *(
    f"{prefix}source.{key}"
    for prefix in ("", "data.")
    for key in ("action_key", "state_key", "group")
  ),
}
# () is a choice
EMPTY = {
  *(f"{prefix}source.{key}" for prefix in ("", "data.") for key in ("camera_keys", "depth_range")),
  "policy.gripper",
  "data.cameras",
  "source.cameras",
  "policy.cameras",
  "cameras",
  "rollout:tasks",
  "collect:tasks",
  "data.mixture",
  "runner_flags",
  "train.profile_steps",
}
# tuples of them
NUMBERS = {
  "source.depth_range",
  "data.source.depth_range",
  "data.augment.crop.scale",
  "data.augment.crop.ratio",
  "collect.scenes",
  "collect.speed",
  "collect.wander",
  "exam.fit_scenes",
  "exam.test_scenes",
  "exam.quality",
  "train.profile_steps",
}


def every_key():
  """(variant, key, value, kind where the value is None) of every key, once for each task that has
  it; shared sections once.
  """
  found = {}
  for variant in VARIANTS:
    config = config_lib.parse(["main", f"--config={variant}"]).config
    for section, name, key in limits.leaves(config):
      shared = key.startswith(("data.", "train.", "model.")) and any(
        key == other[1] and type(section[name]) is type(other[2]) for other in found.values()
      )
      if not shared:
        found.setdefault(
          f"{config.task}:{key}",
          (variant, key, section[name], section.get_type(name) if section[name] is None else None),
        )
  return found


def allowed(keys, task, key):
  return key in keys or f"{task}:{key}" in keys


def wrong_texts(task, key, value, kind):
  """Texts that the key cannot mean."""
  kind = kind or type(value)
  yield from () if value is None else ("None",)
  if kind is bool:
    yield from ("perhaps", "2", "flase", "(True,)", "")
  elif kind is int:
    yield from (
      "ten",
      "1.5",
      "1e3",
      "(1,)",
      "{}",
      "",
      "True",
      "-7",
      *(() if allowed(ZERO, task, key) else ("0",)),
    )
  elif kind is float:
    yield from (
      "fast",
      "(1.0,)",
      "{}",
      "",
      "nan",
      "inf",
      "True",
      "-7.5",
      *(() if allowed(ZERO, task, key) else ("0.0",)),
    )
  elif kind is str:
    yield from (
      "('a',)",
      "{'a': 1}",
      "['a']",
      "gs://bucket/a" if ("path" in key or key in ("output", "data.cache", "lerobot")) else "[]",
    )
    yield from (
      ()
      if allowed(RESUMABLE_KEYS, task, key)
      else (f"{value or ''}x" if value else "no/such/thing",)
    )
  elif kind is tuple:
    yield from (
      "{'a': 1}",
      "('a'",
      "(('a',),)",
      "('a', 1)",
      "a, b",
      "(1, {})",
      "",
      *(() if allowed(EMPTY, task, key) or value is None else ("()",)),
    )
    yield from ("('a', 'b')", "(-7, -7)") if key in NUMBERS else ("(1, 2)", "3", "(None,)")


def test_every_wrong_value_of_every_key_is_one_line(ends):
  keys, accepted, tried = every_key(), [], 0
  for place, (variant, key, value, kind) in keys.items():
    for text in wrong_texts(place.partition(":")[0], key, value, kind):
      line, tried = ends(f"--config={variant}", f"--config.{key}={text}"), tried + 1
      if line is None:
        accepted.append(f"{variant} {key}={text}")
      else:
        assert key.rpartition(".")[2] in line, (
          f"{key}={text}: the line does not name the key: {line}"
        )
  assert len(keys) > 280 and tried > 2000 and not accepted, "\n".join(accepted)


def test_every_misspelled_key_is_one_line(ends):
  for variant, key, _, _ in every_key().values():
    line = ends(f"--config={variant}", f"--config.{key}x=1")
    assert line and f"'{key.rpartition('.')[2]}x'" in line and "did you mean" in line, (
      variant,
      key,
      line,
    )


def test_sections_take_neither_values_nor_unknown_keys(ends):
  for variant in (
    "motion",
    "policy:small",
    "ingest",
    "collect:libero",
    "extract",
    "rollout:libero",
  ):
    config = config_lib.parse(["main", f"--config={variant}"]).config
    # arguments of a simulator
    for section in {key.rpartition(".")[0] for _, _, key in limits.leaves(config)} - {
      "",
      "build",
      "collect.build",
    }:
      for text in ("5", "None", "()", "", "[1]", "{1: 2}", "{'no_such_key': 1}"):
        line = ends(f"--config={variant}", f"--config.{section}={text}")
        assert line and (section.rpartition(".")[2] in line), (variant, section, text, line)


WRONG_KIND = {
  bool: ("yes", 1, None, ()),
  int: ("8", 1.5, True, None, (8,), {"a": 1}),
  float: ("0.1", None, (0.1,), float("nan")),
  str: (5, True, None, ("a",), {"a": 1}),
  tuple: ({"a": 1}, (None,), (("a",),)),
}


def test_a_users_own_file_is_held_to_the_same(ends, tmp_path_factory):
  """A value of another kind in a config file, where no text is read."""
  file = tmp_path_factory.mktemp("own") / "own.py"
  for place, (variant, key, value, kind) in every_key().items():
    # a simulator checks its own arguments
    if key == "task" or key.startswith(("model.robots", "build.", "collect.build.")):
      continue
    shipped = config_lib.parse(["main", f"--config={place.partition(':')[0]}"]).config
    for bad in WRONG_KIND[kind or type(value)]:
      if bad is None and value is None:
        continue
      config = config_lib.ConfigDict(
        config_lib.parse(["main", f"--config={variant}"]).config.to_dict()
      )
      node = config
      for part in key.split(".")[:-1]:
        node = node[part]
      with node.ignore_type():
        node[key.rpartition(".")[2]] = bad
      try:
        limits.check(config, shipped)
        config_checks.check(config)  # what only some variants have
        pytest.fail(f"{variant} {key}={bad!r} is accepted")
      except errors.UserError as error:
        assert key.rpartition(".")[2] in str(error) and "\n" not in str(error)
  text = (
    "from como_jax import config as c\ndef get_config(arg=None):\n  config = "
    "c.load('motion:debug')[0]\n  {}\n  return config\n"
  )
  for change, expected in (
    ("config.data.framse = 3", "config.data has no 'framse': did you mean 'frames'"),
    ("del config.data.frames", "config.data.frames is missing"),
    ("with config.ignore_type(): config.train.mesh = 3", "config.train.mesh=3, expected a section"),
    (
      "with config.ignore_type(): config.evaluation.windows = dict(a=1)",
      "config.evaluation.windows",
    ),
    ("config.task = 'motoin'", "did you mean 'motion'"),
    ("return 3", "get_config returns a int"),
  ):
    file.write_text(text.format(change))
    assert expected in ends(f"--config={file}"), change


def test_every_variant_begins(ends):
  """The checks let through what ships; a checkpoint is all that some of them miss."""
  for variant in VARIANTS:
    assert ends(f"--config={variant}") is None, variant


def test_nested_sections_and_tuples_of_keys_without_a_line_in_the_table():
  def make(**changes):
    return config_lib.ConfigDict(
      dict(
        task="ingest",
        extra=dict(
          {"on": True, "name": "a", "keys": (), "range": (0.5, 1.0), "inner": {"n": 3}}, **changes
        ),
      )
    )

  limits.check(make(), make())
  limits.check(make(keys=("a",), range=(1, 2)), make())
  for changes in (
    dict(on=1),
    dict(name=3),
    dict(keys=(("a",),)),
    dict(range=("a",)),
    dict(inner=3),
    dict(inner={"n": 1.5}),
    dict(inner={"m": 3}),
  ):
    with pytest.raises(errors.UserError, match="config.extra"):
      limits.check(make(**changes), make())
