"""Features of an RLDS data set: which are read, and which are refused."""

import pathlib

import numpy as np
import pytest

from como_jax import errors
from tests.data import tfds_makers
from tests.data.rlds_sets import KEEP, SIZE, kinds, opened, picture, rlds


def test_chosen_features_and_their_names(tmp_path):
  path = rlds(tmp_path, (2,))
  source = opened(path, action_key="observation/state", state_key="gripper", camera_keys=("wrist",))
  assert source.cameras == ("wrist",)
  assert {"name": "camera image", "reason": "not among the source option camera_keys"} in (
    source.skipped
  )
  np.testing.assert_array_equal(source[0].arrays["action"], [[0, 7], [1, 7]])
  np.testing.assert_array_equal(source[0].arrays["state"], [[0], [1]])
  for options, message in (
    ({"action_key": "actoin"}, "action_key: 'actoin' is no feature of numbers: .*'action'"),
    ({"camera_keys": ("wirst",)}, "camera_keys: 'wirst' is no camera: did you mean 'wrist'"),
  ):
    with pytest.raises(errors.UserError, match=message):
      opened(path, **options)


def test_depth_needs_its_range(tmp_path):
  path = rlds(tmp_path, (2,), layout=tfds_makers.rlds_layout(SIZE, depth=True), depth=1500)
  source = opened(path)
  assert source.cameras == ("image", "wrist")
  assert any(
    item["name"] == "camera depth" and "its images are uint16; source option" in item["reason"]
    for item in source.skipped
  )
  source = opened(path, depth_range=(1000.0, 2000.0))
  assert source.cameras == ("depth", "image", "wrist")
  ((_, image), _) = source[0].cameras["depth"](KEEP)
  assert image.shape == (*SIZE, 3) and (image == 128).all()


def test_what_cannot_be_read_without_tensorflow_is_named(tmp_path):
  path = pathlib.Path(rlds(tmp_path, (2,)))
  info, layout = path / "dataset_info.json", path / "features.json"
  before = info.read_text()
  info.write_text(before.replace('"array_record"', '"tfrecord"'))
  with pytest.raises(errors.UserError, match="file format tfrecord, expected array_record: conv"):
    opened(str(path))
  info.write_text("{")
  with pytest.raises(errors.UserError, match="is not a readable data set of tensorflow-datasets"):
    opened(str(path))
  info.write_text(before)
  layout.write_text(layout.read_text().replace("image_feature.Image", "video_feature.Video", 1))
  with pytest.raises(errors.UserError, match="is of the class Video, which .* TensorFlow only"):
    opened(str(path))


def test_a_data_set_without_a_camera_is_refused(tmp_path):
  layout = kinds.FeaturesDict({"image": kinds.Image(shape=(*SIZE, 3), encoding_format="png")})
  path = tfds_makers.write(tmp_path, layout, {"train": [{"image": tfds_makers.png(picture(0))}]})
  with pytest.raises(errors.UserError, match="no camera among the features, expected images in"):
    opened(path)
