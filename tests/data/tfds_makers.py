"""Small data sets of tensorflow-datasets in ArrayRecord, written by the library without TensorFlow.

Images are given as PNG files, which the library stores as they are.
"""

import io
import os

import numpy as np
import tensorflow_datasets as library
from PIL import Image

features = library.features


def png(image: np.ndarray) -> io.BytesIO:
  """An image as the library takes it: an open file."""
  file = io.BytesIO()
  Image.fromarray(image).save(file, "PNG")
  file.seek(0)
  return file


def write(folder, layout, splits, *, name="toy", file_format="array_record") -> str:
  """Writes a data set; returns the folder of its version.

  Args:
    folder: parent of the data set.
    layout: `FeaturesDict` of an example.
    splits: name of a split -> its examples.
    name: of the data set.
    file_format: of its files.
  """

  class Builder(library.core.GeneratorBasedBuilder, skip_registration=True):
    """The data set."""

    VERSION = library.core.Version("1.0.0")
    code_path = None  # there is no package around this class

    def _info(self):
      # Shuffling would give the episodes another order.
      return library.core.DatasetInfo(builder=self, features=layout, disable_shuffling=True)

    def _split_generators(self, dl_manager):
      del dl_manager
      return {split: enumerate(examples) for split, examples in splits.items()}

    def _generate_examples(self):
      raise NotImplementedError

  Builder.name = name
  builder = Builder(data_dir=str(folder), file_format=file_format)
  config = library.download.DownloadConfig(register_checksums=False)
  builder.download_and_prepare(download_config=config)
  return os.path.join(str(folder), name, "1.0.0")


def rlds_layout(size=(16, 24), *, step_text=True, depth=False, **more):
  """The features of an RLDS data set with two cameras, actions [3] and states [2]."""
  observation = {
    "image": features.Image(shape=(*size, 3), encoding_format="png"),
    "wrist": features.Image(shape=(*size, 3), encoding_format="png"),
    "state": features.Tensor(shape=(2,), dtype=np.float32),
  }
  if depth:
    observation["depth"] = features.Image(shape=(*size, 1), dtype=np.uint16, encoding_format="png")
  step = {
    "observation": features.FeaturesDict(observation),
    "action": features.Tensor(shape=(3,), dtype=np.float32),
    "is_first": np.bool_,
    "gripper": features.Tensor(shape=(), dtype=np.float32),
  }
  if step_text:
    step["language_instruction"] = features.Text()
  return features.FeaturesDict({"steps": features.Dataset(step), **more})


def step(t, image, *, wrist=None, text="go", action=None, depth=None, size=(16, 24)):
  """Step t of an RLDS episode."""
  observation = {
    "image": png(image),
    "wrist": png(255 - image if wrist is None else wrist),
    "state": np.array([t, 7], np.float32),
  }
  if depth is not None:
    observation["depth"] = png(np.full(size, depth, np.uint16))
  values = {
    "observation": observation,
    "action": np.array([t, 0.5, -t] if action is None else action, np.float32),
    "is_first": t == 0,
    "gripper": np.float32(t),
  }
  if text is not None:
    values["language_instruction"] = text
  return values
