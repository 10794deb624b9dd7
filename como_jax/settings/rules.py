"""What a key of a config may hold, in the table RULES.

`limits.check` uses it. limits.py also says what a key may hold that is not in the table.
"""

import dataclasses
import math
from typing import Any

from como_jax.settings import values

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_PLURAL = {bool: "switches", int: "whole numbers", float: "numbers", str: "texts"}
_EXAMPLES = {bool: "(True, False)", int: "(0, 1)", float: "(0.5, 1.0)", str: "('a', 'b') or ('a',)"}


@dataclasses.dataclass(frozen=True)
class Rule:
  """What a key may hold: one value, or a tuple of such values.

  Attributes:
    kind: bool, int, float (a whole number will do, nan and infinity will not) or str.
    minimum, maximum: bounds; `above`, `below`: bounds that are themselves excluded.
    also: a number outside the bounds with a meaning of its own (-1 = automatic).
    choices: the valid texts.
    several: a tuple; `filled`: not an empty one; `count`: of so many numbers in rising order.
    path: a folder or file. pattern: a regular expression.
    optional: None is a value too.
  """

  kind: type
  minimum: float = -math.inf
  maximum: float = math.inf
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
    kind, bounds = "a path" if self.path else KINDS[self.kind], []
    for bound, words in (
      (self.minimum, "at least"),
      (self.above, "above"),
      (self.maximum, "at most"),
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
      kind = f"a tuple of {_PLURAL[self.kind]} ({number}), for example {_EXAMPLES[self.kind]}"
    joint = (
      ""
      if not bounds
      else "; each "
      if self.several
      else " of "
      if bounds[0].startswith("at")
      else " "
    )
    text = kind + joint + " and ".join(bounds)
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
      return self._holds_single(value)
    if not isinstance(value, tuple) or (self.filled and not value):
      return False
    if not all(map(self._holds_single, value)):
      return False
    return (
      not self.count or not value or (len(value) == self.count and list(value) == sorted(value))
    )

  def _holds_single(self, value: Any) -> bool:
    """Whether one value, or one element of a tuple, is such a value."""
    if not values.fits(value, self.kind):
      return False
    if self.kind in (int, float):
      inside = self.minimum <= value <= self.maximum and self.above < value < self.below
      return inside or (self.also is not None and value == self.also)
    return not self.choices or value in self.choices


def whole(minimum: float, maximum: float = math.inf, **more: Any) -> Rule:
  """A whole number; `more` are other fields of `Rule`."""
  return Rule(int, minimum=minimum, maximum=maximum, **more)


def number(minimum: float = -math.inf, maximum: float = math.inf, **more: Any) -> Rule:
  """A number; `more` are other fields of `Rule`."""
  return Rule(float, minimum=minimum, maximum=maximum, **more)


def choice(*choices: str, **more: Any) -> Rule:
  """One of some texts; `more` are other fields of `Rule`."""
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
  ("quickstart:policy quickstart:rollout compile:of compile:calibration", PATH),
  # Data.
  ("motion:data.frames", whole(2)),
  ("data.frames", whole(1)),
  ("data.image_size rollout:image_size collect.image_size model.image_size", whole(8, 8192)),
  ("shards.image_size", whole(0, 8192)),
  ("*.resize", RESIZE),
  ("data.offset_seconds offset_seconds", POSITIVE),
  ("data.validation_fraction", FRACTION),
  ("data.shuffle_shards", whole(0)),
  ("data.workers data.threads data.prefetch ingest:workers", whole(0, also=-1)),
  ("data.augment.shift.fraction data.augment.flip.probability", SHARE),
  ("data.augment.color.[bcs]*", number(0)),
  ("data.augment.crop.scale", number(above=0, maximum=1, several=True, count=2, filled=True)),
  ("data.augment.crop.ratio", number(above=0, several=True, count=2, filled=True)),
  ("shards.clip_frames shards.episodes_per_shard", whole(1)),
  ("shards.quality", whole(0, 100)),
  ("shards.unit_frames", whole(0, 1_000_000_000)),
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
  ("train.stall_seconds", number(0, also=-1)),
  ("train.profile_steps", Rule(int, minimum=1, several=True, count=2)),
  ("train.frozen", Rule(str, several=True, pattern=True)),
  ("train.optimizer.name train.optimizer.schedule train.wandb train.compiled_step", TEXT),
  ("policy:train.steps", whole(0)),  # 0: nothing is trained, the policy to start from is scored
  (
    "train.batch_size train.steps train.accumulate train.log_every train.keep_checkpoints",
    whole(1),
  ),
  ("*objectives.*.weight objectives.*.beta", number(0)),
  ("objectives.contrastive.temperature", POSITIVE),
  ("objectives.contrastive.gate", FRACTION),
  ("objectives.contrastive.fraction", number(above=0, maximum=1)),
  ("objectives.perceptual.dtype model.encoder.param_dtype", choice("float32", "bfloat16")),
  ("evaluation.*", whole(1)),
  ("*seed", whole(0, LARGEST_SEED)),
  # Models.
  ("model.idm.components", whole(0)),
  ("model.token_multiple", whole(1)),
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
  ("model.*.cut", number(above=0, maximum=1)),
  ("model.*.clip model.*.action_weight model.*.temperature", number(0)),
  ("model.mask_ratio model.language_dropout", FRACTION),
  ("model.*.motion_dropout", SHARE),
  ("model.gpt.gripper.*", Rule(int, minimum=0, several=True)),
  # Policies, probes, labels, rollouts, serving.
  ("policy.reduce", choice("mean", "first", "last")),
  ("policy.statistics", choice("examples", "kept")),
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
  ("lease_seconds", number(1)),
  ("runner", choice("", "beam")),
  ("runner_flags", TEXTS),
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
  ("collect.scenes", Rule(int, minimum=0, several=True, filled=True)),
  ("collect.motions collect.stride collect.attempts collect.max_steps video.gop", whole(1)),
  ("video.crf", whole(0, 51)),
  ("collect.cameras_per_episode collect.repeated collect.tail", whole(0)),
  ("collect.noise", number(0)),
  ("collect.correlation", FRACTION),
  ("collect.speed", number(above=0, several=True, count=2, filled=True)),
  ("exam.image_size", whole(16, 8192)),
  ("exam.quality", Rule(int, minimum=0, maximum=51, several=True, count=2, filled=True)),
  ("exam.*_scenes", Rule(int, minimum=0, several=True, filled=True)),
  ("exam.more_test_chains", whole(0)),
  ("exam.*chains exam.objects exam.palettes", whole(2)),
  ("exam.fit_views", whole(1)),
  ("control_steps", whole(1)),
  ("exam.latents exam.set", PATH),
  ("exam.tier", choice("hand", "pushed")),
  ("collect.wander", Rule(int, minimum=0, several=True, count=2, filled=True)),
)
