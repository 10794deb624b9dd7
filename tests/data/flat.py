"""Options of the data pipelines as a flat set of keywords, for tests that vary one of them."""

from como_jax.data import motion_mixture, pipeline, policy_layout, policy_mixture
from como_jax.data.batching import Batching, ProcessSlice, Split
from como_jax.data.read_options import ReadOptions


def _records(options, split):
  """(batching, split, read_options) of the keywords, which are taken out."""

  def take(*names):
    return {name: options.pop(name) for name in names if name in options}

  process = {
    name.removeprefix("process_"): options.pop(name)
    for name in list(options)
    if name.startswith("process_")
  }
  batching = Batching(process=ProcessSlice(**process), **take("batch_size", "seed", "start_step"))
  name = options.pop("split", split)
  return (
    batching,
    Split(name, **take("validation_fraction")),
    ReadOptions(**take("workers", "threads", "prefetch")),
  )


def motion(datasets, **options):
  """`MotionMixture.batches`."""
  batching, split, read_options = _records(options, "train")
  mixture = motion_mixture.MotionMixture(datasets, validation_fraction=split.validation_fraction)
  return mixture.batches(pipeline.Layout(**options), batching, read_options, split=split.name)


def windows(datasets, *, max_windows=None, frames=3, **options):
  """`MotionMixture.evaluation_windows`."""
  batching, split, read_options = _records(options, "validation")
  mixture = motion_mixture.MotionMixture(datasets, validation_fraction=split.validation_fraction)
  layout = pipeline.Layout(frames=frames, **options)
  return mixture.evaluation_windows(
    layout, batching, read_options, split=split.name, max_windows=max_windows
  )


def description(dataset, *, frames=2, validation_fraction=0.1):
  """`MotionMixture.describe` of one data set."""
  mixture = motion_mixture.MotionMixture([dataset], validation_fraction=validation_fraction)
  return mixture.describe(frames=frames)[0]


def mixture(sets, *, cameras=9, validation_fraction=0.1):
  """The mixture of some entries, with so many unnamed camera slots."""
  return policy_mixture.PolicyMixture(
    sets, cameras=[""] * cameras, validation_fraction=validation_fraction
  )


def policy(sets, *, augment=(), **options):
  """`PolicyMixture.batches`."""
  batching, split, read_options = _records(options, "train")
  opened = mixture(
    sets, cameras=options.get("cameras", 1), validation_fraction=split.validation_fraction
  )
  return opened.batches(layout(**options), batching, read_options, augment, split=split.name)


def policy_windows(sets, *, max_examples=None, **options):
  """`PolicyMixture.evaluation_examples`."""
  batching, split, read_options = _records(options, "validation")
  opened = mixture(
    sets, cameras=options.get("cameras", 1), validation_fraction=split.validation_fraction
  )
  return opened.evaluation_examples(
    layout(**options), batching, read_options, split=split.name, max_examples=max_examples
  )


def statistics(sets, *, validation_fraction=0.1, **options):
  """`PolicyMixture.statistics`."""
  return mixture(sets, validation_fraction=validation_fraction).statistics(**options)


def describe(sets, *, validation_fraction=0.1, cameras=9):
  """`PolicyMixture.describe`."""
  return mixture(sets, cameras=cameras, validation_fraction=validation_fraction).describe()


def layout(*, cameras, **options):
  """The layout of the keywords; a missing one is named as any missing argument is."""
  return policy_layout.Layout(num_cameras=cameras, **options)


def stored_normalization(mode, robots, latent=None):
  """The section `normalization` of the config of an older version: statistics as JSON."""
  return {
    "mode": mode,
    "robots": {
      name: {key: values.to_json() for key, values in parts.items()}
      for name, parts in robots.items()
    },
    "latent": latent and latent.to_json(),
  }
