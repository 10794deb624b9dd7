"""Data sets of tensorflow-datasets, and what is read of them."""

import pickle

from como_jax.data import sources, video
from tests.data import makers, tfds_makers

SIZE = (16, 24)
KEEP = video.Geometry()
kinds = tfds_makers.features


def picture(t):
  return makers.picture(t, *SIZE)


def rlds(folder, lengths=(4, 6), *, layout=None, change=None, **more):
  """An RLDS data set of one split; frame t is gray level 20 + 6 t; `change` edits the steps."""
  examples = []
  for e, length in enumerate(lengths):
    steps = [tfds_makers.step(t, picture(t), **more) for t in range(length)]
    if change:
      change(e, steps)
    examples.append({"steps": steps})
  return tfds_makers.write(folder, layout or tfds_makers.rlds_layout(SIZE), {"train": examples})


def opened(path, **options):
  options = {"frame_rate": 8.0, **options}
  source = sources.open_source(path, options=sources.SourceOptions(**options))
  return pickle.loads(pickle.dumps(source))


def shown(raw, camera, geometry=KEEP):
  return [(seconds, makers.number(image)) for seconds, image in raw.cameras[camera](geometry)]
