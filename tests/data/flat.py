"""Options of the data pipelines as a flat set of keywords, for tests that vary one of them."""

import dataclasses

from como_jax.data import evaluation, pipeline, policy_layout, policy_pipeline
from como_jax.data.batching import Batching, ProcessSlice, Split
from como_jax.data.read_options import ReadOptions


def _records(options, split):
  """(batching, split, reading) of the keywords, which are taken out."""

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
  """`pipeline.build`."""
  records = _records(options, "train")
  return pipeline.build(datasets, pipeline.Layout(**options), *records)


def windows(datasets, *, max_windows=None, frames=3, **options):
  """`evaluation.build`."""
  records = _records(options, "validation")
  layout = pipeline.Layout(frames=frames, **options)
  return evaluation.build(datasets, layout, *records, max_windows=max_windows)


def policy(sets, *, augment=(), **options):
  """`policy_pipeline.build`."""
  records = _records(options, "train")
  return policy_pipeline.build(sets, layout(**options), *records, augment)


def policy_windows(sets, *, max_examples=None, **options):
  """`policy_pipeline.evaluation`."""
  records = _records(options, "validation")
  return policy_pipeline.evaluation(sets, layout(**options), *records, max_examples=max_examples)


def layout(**options):
  """The layout of the keywords; a missing one is named as any missing argument is."""
  return policy_layout.Layout(**options)


def of_layout(one, **changes):
  """The keywords of a layout."""
  return {field.name: getattr(one, field.name) for field in dataclasses.fields(one)} | changes
