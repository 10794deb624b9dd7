"""From a config's `data` section to batches: paths resolved, raw sources turned into shards once, mixtures opened."""

import os
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from como_jax import data, errors
from como_jax.data import evaluation, ingest, loading, pipeline, transforms
from como_jax.data.sources import shards
from como_jax.parallel import distributed

BUNDLED = pathlib.Path(__file__).parent.parent / "assets" / "metaworld_mini"
_MIXTURE_KEYS = ("path", "weight", "offset_seconds", "cameras", "name")


def resolve(path: str) -> str:
  """The folder a data path means: "bundled" is the data set that ships with the package.

  Raises:
    errors.UserError: it does not exist.
  """
  if path == "bundled":
    return str(BUNDLED)
  if not path or not os.path.exists(path):
    folder = os.path.dirname(path.rstrip("/")) or "."
    near = ["bundled"] + ([os.path.join(folder, name) for name in os.listdir(folder)] if os.path.isdir(folder) else [])
    raise errors.UserError(f"data path {path!r} does not exist: {errors.nearest(path, near)}")
  return path


def cache_dir(section) -> str:
  """Where converted sources are kept: the config's, $COMO_JAX_CACHE/shards or ~/.cache/como_jax/shards."""
  root = os.environ.get("COMO_JAX_CACHE") or os.path.join(pathlib.Path.home(), ".cache", "como_jax")
  return section.cache or os.path.join(root, "shards")


def data_sets(config) -> list[data.DataSet]:
  """The data sets of a config: its mixture, or its single path. Raw sources are converted into the cache first.

  Raises:
    errors.UserError: a path that does not exist or cannot be read, an unknown key of a mixture entry.
  """
  section = config.data
  entries = [dict(entry) for entry in section.mixture] or [dict(path=section.path, cameras=tuple(section.cameras))]
  sets = []
  for entry in entries:
    for key in entry:
      if key not in _MIXTURE_KEYS:
        raise errors.UserError(f"config.data.mixture: an entry has the key {key!r}: {errors.nearest(key, _MIXTURE_KEYS)}")
    entry = {"offset_seconds": section.offset_seconds, **entry}
    path = resolve(entry.pop("path", ""))
    folder = ingest.ensure_shards(path, image_size=section.image_size, cache_dir=cache_dir(section), resize=section.resize)
    entry["cameras"] = tuple(entry.get("cameras", ()))
    entry.setdefault("name", os.path.basename(os.path.normpath(path)))
    sets.append(data.DataSet(path=folder, **entry))
  return sets


def check(config, sets: list[data.DataSet], *, frames: int, jitter: bool) -> None:
  """Opens the training windows once, before anything is written, and says what there is.

  Raises:
    errors.UserError: no window fits, or data and model want frames of different sizes.
  """
  section = config.data
  if section.image_size != config.model.image_size:
    raise errors.UserError(f"config.data.image_size={section.image_size} is not config.model.image_size={config.model.image_size}")
  pipeline.open_sets(sets, frames=frames, split="train", validation_fraction=section.validation_fraction)
  for one in sets:
    facts = data.describe(one, frames=frames, validation_fraction=section.validation_fraction)
    strides = ", ".join(map(str, facts["stride_frames"]))
    print(f"data: {facts['name']}: {facts['episodes']} episodes, {facts['frames']} frames; {facts['windows']['train']} training and "
          f"{facts['windows']['validation']} validation windows of {frames} frames" + (f", {strides} apart" if frames > 1 else ""))
    if jitter and min(facts["stride_frames"]) < 5:
      print(f"data: {facts['name']}: offsets of {strides} frames leave no room for the contrastive term's jitter (n/5 is below 1): "
            "its positive pair is the pair itself; raise config.data.offset_seconds")


def augmentation(section) -> tuple:
  """The transforms that are switched on."""
  chosen = {}
  for name, settings in section.augment.items():
    settings = dict(settings)
    if settings.pop("on"):
      chosen[name] = settings
  return transforms.build(chosen)


def cores() -> int:
  """CPU cores for this process, where others of the run have the same ones its part. Of several, all must ask for the first time together."""
  return max(1, loading.cores() // distributed.sharing(loading.place()))


def local_rows(config) -> int:
  """Rows of a training batch that this process loads."""
  return max(1, config.train.batch_size // jax.process_count())


def choose_loading(section, paths: list[str], batch: Mapping[str, jax.ShapeDtypeStruct]) -> loading.Loading:
  """How folders of shards are read, from a config's data section and the shapes of this process's batches. Raises `errors.UserError`."""
  return loading.choose(
      workers=section.workers, threads=section.threads, prefetch=section.prefetch, cores=cores(),
      accelerators=0 if jax.default_backend() == "cpu" else jax.local_device_count(),
      codecs={shards.read_manifest(path)["codec"] for path in paths},
      room=loading.shared_room(sum(spec.size * spec.dtype.itemsize for spec in batch.values())))


def batches(config, sets: list[data.DataSet], *, kind: str, jitter: bool, start_step: int, how: loading.Loading) -> pipeline.Batches:
  """Endless training batches from a step on, this process's part of each."""
  section = config.data
  return pipeline.build(
      sets, kind=kind, frames=section.frames, jitter=jitter, batch_size=config.train.batch_size, image_size=section.image_size,
      augment=augmentation(section), validation_fraction=section.validation_fraction, seed=config.seed,
      process_index=jax.process_index(), process_count=jax.process_count(), start_step=start_step, workers=how.workers,
      threads=how.threads, prefetch=how.prefetch)


def windows(config, sets: list[data.DataSet], *, split: str, frames: int, batch_size: int, most: int | None) -> evaluation.Evaluation:
  """Fixed windows of K frames with their actions, in order."""
  section = config.data
  return evaluation.build(sets, batch_size=batch_size, image_size=section.image_size, frames=frames, split=split,
                          validation_fraction=section.validation_fraction, max_windows=most, threads=loading.reading_threads(section.threads))


def sample_frames(config, sets: list[data.DataSet], *, split: str, count: int) -> np.ndarray:
  """Single frames spread evenly over a split: uint8 [n, H, W, 3]."""
  return windows(config, sets, split=split, frames=1, batch_size=1, most=count).pictures(count)["frames"][:, 0]
