"""What config files use: the sections that several tasks share, and a config's argument.

como_jax.config offers all of it under its own name.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import config_dict

from como_jax import errors

if TYPE_CHECKING:

  class ConfigDict(config_dict.ConfigDict):
    """The class of ml_collections; its values have no static types."""

    def __getattr__(self, attribute: str) -> Any: ...
    def __getitem__(self, key: str) -> Any: ...
    def get(self, key: str, default: Any = None) -> Any:
      """The value of a key, or the default."""

else:
  ConfigDict = config_dict.ConfigDict


def variant(arg: str | None, valid: Sequence[str], *, default: str) -> str:
  """The named variant that a config's argument (the part after the colon) chooses.

  Raises:
    errors.UserError: naming the nearest variant.
  """
  chosen = arg or default
  if chosen not in valid:
    raise errors.UserError(
      f"config argument {chosen!r} is unknown: {errors.nearest(chosen, valid)}"
    )
  return chosen


def arguments(
  arg: str | None, *, variants: Sequence[str], options: dict[str, Sequence[str]]
) -> tuple[str, dict[str, str]]:
  """Splits a config's argument "variant,key=value,...".

  Every part may be missing; the first variant is the default.

  Raises:
    errors.UserError: naming the nearest variant, option or value.
  """
  name, chosen = variants[0], {}
  for part in (arg or "").split(","):
    key, equals, value = part.partition("=")
    if not part:
      continue
    if not equals:
      name = variant(part, variants, default=name)
    elif key not in options:
      raise errors.UserError(
        f"config argument {part!r}: option {key!r} is unknown: {errors.nearest(key, options)}"
      )
    elif value not in options[key]:
      raise errors.UserError(f"config argument {part!r}: {errors.nearest(value, options[key])}")
    else:
      chosen[key] = value
  return name, chosen


def data(**changes: Any) -> ConfigDict:
  """Where frames come from. The default path is the data set that ships with the package.

  `path` is a LeRobot directory, a folder of video files or a directory of our shards; a raw source
  is turned into shards once and kept in `cache`. `mixture`, when not empty, replaces `path`: a
  tuple of dicts with path, weight, offset_seconds and cameras.
  """
  section = ConfigDict(
    dict(
      path="bundled",
      # time between the two frames of a pair (METHOD: per data set, in seconds)
      offset_seconds=0.5,
      cameras=(),  # () = every camera
      mixture=(),
      image_size=224,
      resize="squash",  # squash (as Moto) | crop | pad, when shards are made
      source=source(),  # how raw data are read
      measure="auto",
      filters=filters(),  # what is looked for in raw data, and left out
      frames=2,  # K frames a sample at the offset: K-1 pairs for K encoder passes
      validation_fraction=0.1,
      # shards whose samples are shuffled together (data/block_order.py); 0 = all at once
      shuffle_shards=0,
      cache="",  # "" = ~/.cache/como_jax/shards
      # processes that load; 0 = threads of this one; -1 = by cores, accelerators and codec
      # (data/read_options.py): 0 on a CPU
      workers=-1,
      threads=-1,  # of each process that loads; -1 = 4, of a worker 2
      prefetch=-1,  # batches ahead, of each worker; -1 = about 8 in all
      augment=ConfigDict(
        dict(  # one draw for all frames of a clip
          shift=ConfigDict(dict(on=True, fraction=10 / 224)),  # Moto: up to 10 px of 224
          crop=ConfigDict(dict(on=False, scale=(0.8, 1.0), ratio=(0.9, 1.1))),
          color=ConfigDict(dict(on=False, brightness=0.2, contrast=0.2, saturation=0.2)),
          flip=ConfigDict(dict(on=False, probability=0.5)),
        )
      ),
    )
  )
  return changed(section, changes)


def source() -> ConfigDict:
  """How a source is read where its files leave it open.

  See `como_jax.data.sources.SourceOptions`.
  """
  return ConfigDict(
    dict(
      # LeRobot features; "" and () = the usual names, all cameras
      action_key="",
      state_key="",
      camera_keys=(),
      timestamps="table",  # of LeRobot rows: table | frame_index (/ fps)
      rate_conflict="refuse",  # LeRobot table and video of different rates: refuse | table | video
      # rows that are not finite: skip_episode | cut_episode (before them)
      invalid_rows="skip_episode",
      depth_range=(),  # (nearest, farthest) value of 16-bit images; () = such cameras are left out
      group="auto",  # views of one recording: auto | none | folder | name | a regular expression
      hdr="tonemap",  # HDR video: tonemap | keep
      # frames per second of data without times (tensorflow-datasets); 0 = refuse them
      frame_rate=0.0,
    )
  )


def filters() -> ConfigDict:
  """Which frames ingest leaves out: none by default.

  See `como_jax.data.frame_filters.FilterOptions`. A pair never crosses a cut.
  """
  return ConfigDict(
    dict(
      # stretches in which nothing moves for so long: slides, frozen streams
      drop_still=False,
      still_seconds=1.0,
      drop_repeated=False,  # frames that repeat the one before
      crop_bars=False,  # black bars around the picture
      max_global_motion=0.0,  # picture widths per second that the camera may move; 0 = any
      min_motion=0.0,  # per cent of the width per second that things must move
      drop_duplicates=False,  # clips that an earlier episode shows
      min_shot_seconds=0.0,
    )
  )


def train(**changes: Any) -> ConfigDict:
  """The loop and the optimizer (METHOD section 4).

  Steps count optimizer updates; the batch is global, over all devices.
  """
  section = ConfigDict(
    dict(
      batch_size=256,
      steps=50_000,
      accumulate=1,
      optimizer=ConfigDict(
        dict(
          name="adam",
          learning_rate=1e-4,
          b1=0.9,
          b2=0.99,
          eps=1e-8,
          weight_decay=0.0,
          clip_norm=0.5,
          schedule="linear",
          floor=0.1,
          warmup_steps=0,
          warmup_start=0.0,
        )
      ),
      ema=0.0,  # decay of the averaged weights; 0 = none
      frozen=config_dict.placeholder(tuple),  # path patterns; None = the model's own (the encoder)
      mesh=ConfigDict(dict(data=-1, fsdp=1, tensor=1)),
      log_every=50,
      evaluate_every=2_000,
      checkpoint_every=1_000,
      keep_checkpoints=2,
      tensorboard=True,
      # first and last step of a profile for TensorBoard, e.g. (10, 14); () = none
      profile_steps=(),
      # a step that takes 3 x the median and so many seconds more ends the run with exit code 75,
      # to be started again; 0 = never, -1 = 8 of several processes or under launch/supervise.py
      stall_seconds=-1.0,
      # file of the compiled step, for quick restarts: made by the first start, loaded by the next
      # ones if nothing has changed; "" = none (train/saved_step.py)
      compiled_step="",
      wandb="",  # project name
      # --resume goes on although the data are not those that the run began with
      accept_changed_data=False,
    )
  )
  return changed(section, changes)


def changed(section: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
  """The section with some keys replaced.

  Dots of a key are written as double underscores (optimizer__learning_rate).

  Raises:
    errors.UserError: there is no such key, with the nearest one.
  """
  for key, value in changes.items():
    node = section
    *parents, last = key.split("__")
    for parent in parents:
      inner = node[parent]
      if not isinstance(inner, ConfigDict):
        raise errors.UserError(f"config key {key!r} is unknown: {parent!r} is not a section")
      node = inner
    if last not in node:
      raise errors.UserError(f"config key {key!r} is unknown: {errors.nearest(last, node)}")
    if type(value) is type(node[last]):
      node[last] = value
    else:
      with node.ignore_type():
        node[last] = value
  return section
