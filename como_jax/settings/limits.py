"""What each key of a config may hold.

`check` refuses everything else in one line, before anything is loaded, compiled or written.

A key that no line of RULES names holds a value of the kind that the config which ships with the
program has there. Names that an extension may add to (models, objectives, simulators, formats) are
checked by the tables that hold them, see tasks/checks.py.
"""

import dataclasses
import fnmatch
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from como_jax import errors
from como_jax.settings import entries, paths, renames, values

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_PLURAL = {bool: "switches", int: "whole numbers", float: "numbers", str: "texts"}
_EXAMPLES = {bool: "(True, False)", int: "(0, 1)", float: "(0.5, 1.0)", str: "('a', 'b') or ('a',)"}


@dataclasses.dataclass(frozen=True)
class Rule:
  """What a key may hold: one value, or a tuple of such values.

  Attributes:
    kind: bool, int, float (a whole number will do, nan and infinity will not) or str.
    least, most: bounds; `above`, `below`: bounds that are themselves excluded.
    also: a number outside the bounds with a meaning of its own (-1 = automatic).
    choices: the valid texts.
    several: a tuple; `filled`: not an empty one; `count`: of so many numbers in rising order.
    path: a folder or file. pattern: a regular expression.
    optional: None is a value too.
  """

  kind: type
  least: float = -math.inf
  most: float = math.inf
  above: float = -math.inf
  below: float = math.inf
  also: int | None = None
  choices: tuple[str, ...] = ()
  several: bool = False
  count: int = 0
  filled: bool = False
  path: bool = False
  pattern: bool = False
  optional: bool = False

  def __str__(self) -> str:
    """What is expected, in words."""
    if self.choices and not self.several:
      return "one of " + ", ".join(map(repr, self.choices))
    one, bounds = "a path" if self.path else _KINDS[self.kind], []
    for bound, words in (
      (self.least, "at least"),
      (self.above, "above"),
      (self.most, "at most"),
      (self.below, "below"),
    ):
      bounds += (
        [f"{words} {int(bound) if bound == int(bound) else bound}"] if math.isfinite(bound) else []
      )
    if self.several:
      number = ", ".join(
        [f"{self.count} in rising order"] * bool(self.count)
        + (["() for none"] if not self.filled else ["at least one"] * (not self.count))
      )
      one = f"a tuple of {_PLURAL[self.kind]} ({number}), for example {_EXAMPLES[self.kind]}"
    joint = (
      ""
      if not bounds
      else "; each "
      if self.several
      else " of "
      if bounds[0].startswith("at")
      else " "
    )
    text = one + joint + " and ".join(bounds)
    return (
      text
      + (f", or {self.also}" if self.also is not None else "")
      + (", or None" if self.optional else "")
    )

  def holds(self, value: Any) -> bool:
    """Whether a value is such a value."""
    if value is None:
      return self.optional
    if not self.several:
      return self._one(value)
    if not isinstance(value, tuple) or (self.filled and not value):
      return False
    if not all(map(self._one, value)):
      return False
    return (
      not self.count or not value or (len(value) == self.count and list(value) == sorted(value))
    )

  def _one(self, value: Any) -> bool:
    if not values.fits(value, self.kind):
      return False
    if self.kind in (int, float):
      inside = self.least <= value <= self.most and self.above < value < self.below
      return inside or (self.also is not None and value == self.also)
    return not self.choices or value in self.choices


def whole(least: float, most: float = math.inf, **more: Any) -> Rule:
  return Rule(int, least=least, most=most, **more)


def number(least: float = -math.inf, most: float = math.inf, **more: Any) -> Rule:
  return Rule(float, least=least, most=most, **more)


def choice(*choices: str, **more: Any) -> Rule:
  return Rule(str, choices=choices, **more)


TEXT, TEXTS, PATH, POSITIVE = (
  Rule(str),
  Rule(str, several=True),
  Rule(str, path=True),
  number(above=0),
)
SHARE = number(0, 1)  # both ends included
FRACTION = number(0, below=1)
RESIZE = choice("squash", "crop", "pad")
LARGEST_SEED = 2**31 - 1

# Keys (patterns; "task:key" where tasks differ) and what they hold. The first line that fits
# counts.
RULES: tuple[tuple[str, Rule], ...] = (
  # Paths.
  (
    (
      "data.path data.cache data.labels source.path checkpoint encoder_weights init output "
      "lerobot language.weights"
    ),
    PATH,
  ),
  (
    (
      "objectives.perceptual.weights_path quickstart:source quickstart:ingest quickstart:motion "
      "quickstart:probe quickstart:exam quickstart:extract"
    ),
    PATH,
  ),
  ("quickstart:policy quickstart:rollout compile:of", PATH),
  # Data.
  ("motion:data.frames", whole(2)),
  ("data.frames", whole(1)),
  ("data.image_size rollout:image_size collect.image_size model.image_size", whole(8, 8192)),
  ("shards.image_size", whole(0, 8192)),
  ("*.resize", RESIZE),
  ("data.offset_seconds offset_seconds", POSITIVE),
  ("data.validation_fraction", FRACTION),
  ("data.workers data.threads data.prefetch ingest:workers", whole(0, also=-1)),
  ("data.augment.shift.fraction data.augment.flip.probability", SHARE),
  ("data.augment.color.[bcs]*", number(0)),
  ("data.augment.crop.scale", number(above=0, most=1, several=True, count=2, filled=True)),
  ("data.augment.crop.ratio", number(above=0, several=True, count=2, filled=True)),
  ("shards.clip_frames shards.episodes_per_shard", whole(1)),
  ("shards.quality", whole(0, 100)),
  ("*source.depth_range", number(0, several=True, count=2)),
  ("*source.timestamps", choice("table", "frame_index")),
  ("*source.rate_conflict", choice("refuse", "table", "video")),
  ("*source.invalid_rows", choice("skip_episode", "cut_episode")),
  ("*source.hdr", choice("tonemap", "keep")),
  ("*source.camera_keys", TEXTS),
  ("data.measure shards.measure", choice("auto", "on", "off")),
  ("*filters.drop_* *filters.crop_bars", Rule(bool)),
  ("*filters.* *source.frame_rate", number(0)),
  # Training.
  (
    (
      "train.optimizer.learning_rate train.optimizer.weight_decay train.optimizer.clip_norm "
      "train.optimizer.eps"
    ),
    number(0),
  ),
  ("train.optimizer.b1 train.optimizer.b2 train.ema", FRACTION),
  ("train.optimizer.floor train.optimizer.warmup_start", SHARE),
  ("train.optimizer.warmup_steps train.evaluate_every train.checkpoint_every", whole(0)),
  ("train.mesh.* mesh.*", whole(1, also=-1)),
  ("train.frozen", Rule(str, several=True, pattern=True)),
  ("train.optimizer.name train.optimizer.schedule train.wandb", TEXT),
  ("policy:train.steps", whole(0)),  # 0: nothing is trained, the policy to start from is scored
  (
    "train.batch_size train.steps train.accumulate train.log_every train.keep_checkpoints",
    whole(1),
  ),
  ("*objectives.*.weight objectives.*.beta", number(0)),
  ("objectives.contrastive.temperature", POSITIVE),
  ("objectives.contrastive.gate", FRACTION),
  ("evaluation.*", whole(1)),
  ("*seed", whole(0, LARGEST_SEED)),
  # Models.
  ("model.idm.components", whole(0)),
  ("model.idm.components_of", choice("features", "flow")),
  ("model.idm.components_pool", whole(1)),
  ("model.trunk.depth model.robots.*.state", whole(0)),
  ("language.width", whole(2)),
  ("model.*.num_train_timesteps", whole(2)),
  (
    (
      "model.*.width model.*.depth model.*.num_heads model.*.mlp_dim model.*.num_queries "
      "model.*.latent_dim model.*.num_codes model.*.motion_horizon"
    ),
    whole(1),
  ),
  (
    (
      "model.*.num_sampling_steps model.*.components model.language.num_tokens "
      "model.action_horizon model.history model.num_cameras model.pool"
    ),
    whole(1),
  ),
  ("model.robots.*.action language.num_tokens", whole(1)),
  ("model.*.epsilon model.*.alpha", POSITIVE),
  ("model.*.cut", number(above=0, most=1)),
  ("model.*.clip model.*.action_weight model.*.temperature", number(0)),
  ("model.mask_ratio model.language_dropout", FRACTION),
  ("model.*.motion_dropout", SHARE),
  ("model.gpt.gripper.*", Rule(int, least=0, several=True)),
  # Policies, probes, labels, rollouts, serving.
  ("policy.reduce", choice("mean", "first", "last")),
  ("policy.normalization", choice("standard", "quantile")),
  ("guidance_scale policy.guidance_scale", number(0)),
  ("step_seconds policy.step_seconds", number(0)),
  ("policy.cameras data.cameras source.cameras", TEXTS),
  (
    (
      "batch_size windows fit_windows pictures episodes steps num_sampling_steps policy_steps "
      "labeled extract_batch policy_batch"
    ),
    whole(1),
  ),
  ("rollout:timeout", number(1)),
  ("timeout", POSITIVE),
  ("pairs_batch scene videos execute max_steps batch_per_device", whole(0)),
  ("rollout:workers collect:workers", whole(1)),
  ("ensemble memory", number(0)),
  ("effort", number(-1, 1)),
  ("cameras", TEXTS),
  ("rollout:tasks collect:tasks", TEXTS),
  ("quickstart:tasks compile:programs", Rule(str, several=True, filled=True)),
  ("port", whole(0, 65_535)),
  ("batch_wait_ms", number(0, 10_000)),
  ("max_connections max_bad_messages", whole(1, 10_000)),
  ("max_frame_bytes", whole(1024, 2**30)),
  # Collecting.
  ("collect.cameras", Rule(str, several=True, filled=True)),
  ("collect.scenes", Rule(int, least=0, several=True, filled=True)),
  ("collect.motions collect.stride collect.attempts collect.max_steps video.gop", whole(1)),
  ("video.crf", whole(0, 51)),
  ("collect.cameras_per_episode collect.repeated collect.tail", whole(0)),
  ("collect.noise", number(0)),
  ("collect.correlation", FRACTION),
  ("collect.speed", number(above=0, several=True, count=2, filled=True)),
  ("exam.image_size", whole(16, 8192)),
  ("exam.quality", Rule(int, least=0, most=51, several=True, count=2, filled=True)),
  ("exam.*_scenes", Rule(int, least=0, several=True, filled=True)),
  ("exam.more_test_chains", whole(0)),
  ("exam.*chains exam.objects exam.palettes", whole(2)),
  ("exam.fit_views", whole(1)),
  ("control_steps", whole(1)),
  ("exam.latents exam.set", PATH),
  ("exam.tier", choice("hand", "pushed")),
  ("collect.wander", Rule(int, least=0, several=True, count=2, filled=True)),
)
# Sections that may get keys which the shipped config does not have: whoever reads them knows which.
OPEN = (
  "model",
  "model.*",
  "objectives",
  "objectives.*",
  "policy.objectives",
  "policy.objectives.*",
  "build*",
  "collect.build*",
  "language",
)
MIXTURE = "data.mixture"
CAMERAS = ("data.cameras", "source.cameras", "policy.cameras")  # names of data sets' cameras


@functools.lru_cache(maxsize=4096)
def _rule(task: str, key: str) -> Rule | None:
  for keys, rule in RULES:
    for pattern in keys.split():
      if fnmatch.fnmatchcase(f"{task}:{key}" if ":" in pattern else key, pattern):
        return rule
  return None


def rule(task: str, key: str, like: Any, kind: type | None = None) -> Rule:
  """What a key may hold.

  Args:
    task: of the config.
    key: dotted, without "config.".
    like: what the shipped config has there; None: nothing, so that None stays valid.
    kind: of the key where `like` is None.
  """
  found = _rule(task, key)
  if found is not None:
    return dataclasses.replace(found, optional=True) if like is None else found
  if isinstance(like, (tuple, list)) or (like is None and kind in (tuple, list)):
    inside = {type(one) for one in like or ()} & set(_KINDS)
    return Rule(inside.pop() if len(inside) == 1 else str, several=True, optional=like is None)
  own = kind if like is None else type(like)
  return Rule(own if own in _KINDS else str, optional=like is None)


def is_open(key: str) -> bool:
  """Whether a section takes keys that it does not have yet."""
  return any(fnmatch.fnmatchcase(key, pattern) for pattern in OPEN)


def leaves(section: Any, prefix: str = "") -> Iterator[tuple[Any, str, str]]:
  """(section, its key, whole dotted key) of every value; sections are not values."""
  for key in section:
    if hasattr(section[key], "keys"):
      yield from leaves(section[key], f"{prefix}{key}.")
    else:
      yield section, key, prefix + key


def check(config: Any, shipped: Any) -> None:
  """Refuses a value that its key cannot hold, and brings the others into their usual form ('top' ->
  ('top',)).

  Args:
    config: a whole config (ConfigDict), as a task would be given it.
    shipped: the config of the same task that ships with the program: its keys and kinds of values
      are those that are expected.

  Raises:
    errors.UserError: naming the key, what it holds and what is expected.
  """
  task = shipped["task"]
  _check_sections(config, shipped, "", task=task)
  for section, key, whole_key in list(leaves(config)):
    value = _checked(task, whole_key, section[key], shipped)
    if type(value) is not type(section[key]) or value != section[key]:
      with section.ignore_type():
        section[key] = value
  _check_heads(config, "config")


def _checked(task: str, key: str, value: Any, shipped: Any) -> Any:
  """The value of one key in its usual form."""
  name = f"config.{key}"
  if key == MIXTURE:
    return entries.check(value, name, task=task)
  expected = rule(task, key, *_like(shipped, key, value))
  value = values.coerced(value, expected.kind, several=expected.several)
  if key in CAMERAS and isinstance(value, tuple):
    value = tuple(map(values.camera, value))
  if not expected.holds(value):
    raise errors.UserError(refusal(name, value, expected))
  if expected.path and value:
    paths.local(name, value)
  for pattern in (value or ()) if expected.pattern else ():
    _check_pattern(name, pattern)
  return value


def refusal(name: str, value: Any, expected: Rule) -> str:
  """The line for a value that is not what is expected."""
  shown = value if isinstance(value, str) and value else repr(value)
  shown = shown if len(shown) <= 80 else shown[:77] + "..."
  if expected.choices and not expected.several:
    return f"{name}={shown}: {errors.nearest(str(value), expected.choices)}"
  return f"{name}={shown}, expected {expected}"


def _like(shipped: Any, key: str, value: Any) -> tuple[Any, type | None]:
  """(what the shipped config has at a key, its kind where that is None); the value itself where it
  has none.
  """
  *parents, last = key.split(".")
  node = shipped
  for part in parents:
    node = node[part] if hasattr(node, "keys") and part in node else {}
  if last not in node:
    return (value if value is not None else ""), None
  return node[last], node.get_type(last) if node[last] is None else None


def _check_sections(config: Any, shipped: Any, prefix: str, *, task: str) -> None:
  """Every section is a section, with the keys of the shipped one; every value is none."""
  where = f"config.{prefix}".rstrip(".")
  if not hasattr(config, "keys"):
    raise errors.UserError(
      f"{where}={config!r}, expected a section: {{'key': value}} with the keys "
      + ", ".join(shipped)
    )
  opened = is_open(prefix.rstrip("."))
  for key in config:
    nested, like = hasattr(config[key], "keys"), shipped.get(key)
    if key not in shipped and (not opened or renames.new_name(task, prefix + key)):
      raise errors.UserError(
        f"config key {where}.{key} is unknown: {where} has no {key!r}: "
        f"{renames.nearest(task, prefix + key, shipped)}"
      )
    if hasattr(like, "keys"):
      _check_sections(config[key], like, f"{prefix}{key}.", task=task)
    elif nested and not (key in shipped or _rule(task, prefix + key)):
      # of another model than the shipped one
      _check_sections(config[key], {}, f"{prefix}{key}.", task=task)
    elif nested:
      raise errors.UserError(
        refusal(f"{where}.{key}", dict(config[key]), rule(task, prefix + key, like))
      )
  for key in shipped:
    if key not in config and not opened:
      raise errors.UserError(f"config key {where}.{key} is missing")


def _check_pattern(name: str, pattern: str) -> None:
  try:
    re.compile(pattern)
  except re.error as error:
    raise errors.UserError(f"{name}: {pattern!r} is no regular expression: {error}") from error


def _check_heads(section: Mapping[str, Any], where: str) -> None:
  """Attention splits the width of every transformer evenly over its heads."""
  if (num_heads := section.get("num_heads")) and section.get("width", 0) % num_heads:
    raise errors.UserError(
      f"{where}.width={section['width']} is not a multiple of {where}.num_heads={num_heads}"
    )
  for key, value in section.items():
    if hasattr(value, "keys"):
      _check_heads(value, f"{where}.{key}")
