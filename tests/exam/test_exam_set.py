"""The files of a set: what is written, what is read, and what is said where it is not there."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.exam import exam_set
from tests.exam import made_set


@pytest.fixture(scope="module")
def made():
  return made_set.build(fit_chains=18, test_chains=3, features=20)


def test_everything_is_read(made, tmp_path):
  table, _ = made
  table = {**table, "state/first": np.zeros(3), "target": table["target"].astype(np.float32)}
  exam = made_set.write(tmp_path, table)
  assert exam.pairs == 2 * len(table["chain"]) == len(exam.target) and exam.names == made_set.NAMES
  assert exam.names_robot == made_set.NAMES[::-1] and list(exam.numbers) == ["color"]
  assert list(exam.errors) == ["first_linear", "second_linear", "both"] == list(exam.errors_robot)
  assert exam.target.dtype == np.float64
  np.testing.assert_array_equal(exam.pictures, table.pop("pictures"))
  assert made_set.write(tmp_path, table).pictures is None
  np.testing.assert_array_equal(exam.of_pairs("camera")[::2], table["camera"])
  np.testing.assert_array_equal(exam.of_pairs("camera")[1::2], table["camera"])
  assert set(exam.of_pairs("part")[exam.rows(exam_set.SAME_CAMERA)]) == {2}
  part = np.repeat(table["part"], 2)
  for found, target, kind in (
    (exam.variance, "target", 1),
    (exam.variance_robot, "target_robot", 2),
  ):
    np.testing.assert_allclose(found, (table[target][part == kind] ** 2).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
  "name, value, text",
  [
    ("palette", None, "exam.npz: array 'palette' is missing: "),
    ("camera", np.zeros(3, int), r"exam.npz: camera: expected \[42\], found \[3\]"),
    (
      "camera",
      np.zeros(42),
      r"exam.npz: camera: expected whole numbers \[V\], found float64 \[42\]",
    ),
    (
      "part",
      np.arange(42),
      r"exam.npz: part: expected 0 \(fit\), 1 \(test\) and 2 \(same cameras\), found \[3, ",
    ),
    (
      "part",
      np.zeros(42, int),
      r"exam.npz: part: expected views of 0 \(fit\) and 1 \(test\), found 84 and 0 pairs",
    ),
    ("target", np.zeros((42, 4)), r"exam.npz: target: expected \[84, 4\], found \[42, 4\]"),
    (
      "target_robot",
      np.full((84, 4), np.nan),
      "target_robot: 84 of 84 rows hold values that are not finite",
    ),
    ("errors/both", np.zeros((7, 4)), r"exam.npz: errors/both: expected \[42, 4\], found \[7, 4\]"),
    ("errors_robot/both", np.zeros((7, 4)), r"exam.npz: errors_robot/both: expected \[6, 4\]"),
    (
      "pictures",
      np.zeros((42, 3, 8)),
      r"pictures: expected \[21, 3, numbers\], found \[42, 3, 8\]",
    ),
    ("numbers/color", np.zeros(42), r"numbers/color: expected \[42, numbers\], found \[42\]"),
    ("numbers/color", np.array([["red"]] * 42), "numbers/color: expected numbers, found <U3"),
  ],
)
def test_a_set_that_is_wrong_is_named(made, tmp_path, name, value, text):
  table = {key: values for key, values in made[0].items() if key != name}
  with pytest.raises(errors.UserError, match=text):
    made_set.write(tmp_path, table if value is None else {**table, name: value})


def test_foreign_latents(made, tmp_path):
  table, pictures = made
  exam = made_set.write(tmp_path, table)
  arrays = made_set.latents(pictures, "both", count=3)
  np.savez(
    tmp_path / "z.npz",
    **{name: values.astype(np.float16) for name, values in arrays.items()},
    note=np.zeros(2),
  )
  found = exam_set.load_latents(tmp_path / "z.npz", exam)
  assert (
    found.z.shape == (84, 6) == found.z_ba.shape and found.z_ac.shape == (42, 6) == found.z_aa.shape
  )
  np.testing.assert_array_equal(found.z_shifted, arrays["z_shifted"].astype(np.float16))
  np.savez(tmp_path / "alone.npz", z=arrays["z"])
  assert exam_set.load_latents(tmp_path / "alone.npz", exam).z_ac is None


@pytest.mark.parametrize(
  "arrays, text",
  [
    ({"zz": np.zeros((84, 2))}, "array 'z' is missing: did you mean 'zz'"),
    ({"z": np.zeros((42, 2))}, r"z.npz: z: expected \[84, 2\], found \[42, 2\]"),
    ({"z": np.zeros(84)}, r"z: expected \[84, numbers\], found \[84\]"),
    ({"z": np.zeros((84, 0))}, r"z: expected .*found \[84, 0\]"),
    (
      {"z": np.zeros((84, 2)), "z_ac": np.zeros((84, 2))},
      r"z_ac: expected \[42, 2\], found \[84, 2\]",
    ),
    (
      {"z": np.zeros((84, 2)), "z_shifted": np.zeros((84, 2))},
      r"z_shifted: expected \[42, 2\], found",
    ),
    (
      {"z": np.zeros((84, 2)), "z_ba": np.zeros((84, 3))},
      r"z_ba: expected \[84, 2\], found \[84, 3\]",
    ),
    (
      {"z": np.where(np.arange(84)[:, None] % 39 == 5, np.inf, np.zeros((84, 2)))},
      r"z: 3 of 84 rows hold values that are not finite \(the first: row 5\)",
    ),
  ],
)
def test_latents_that_are_wrong_are_named(made, tmp_path, arrays, text):
  exam = made_set.write(tmp_path, made[0])
  np.savez(tmp_path / "z.npz", **arrays)
  with pytest.raises(errors.UserError, match=text):
    exam_set.load_latents(tmp_path / "z.npz", exam)


def test_files_that_are_no_arrays(made, tmp_path):
  exam = made_set.write(tmp_path, made[0])
  with pytest.raises(errors.UserError, match="none.npz: no such file"):
    exam_set.load_latents(tmp_path / "none.npz", exam)
  (tmp_path / "text.npz").write_text("latents")
  np.save(tmp_path / "one.npy", np.zeros((84, 2)))
  whole = (tmp_path / "exam.npz").read_bytes()
  (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
  np.savez(tmp_path / "objects.npz", z=np.array([{}], dtype=object))
  for name in ("text.npz", "one.npy", "cut.npz", "objects.npz"):
    with pytest.raises(errors.UserError, match=f"{name}: expected arrays written by numpy.savez"):
      exam_set.load_latents(tmp_path / name, exam)


def test_controls_are_known_by_their_names():
  stored = dict.fromkeys(
    ("first_linear", "second_kernel", "first", "both_network", "oracle_first_linear", "bothered")
  )
  assert exam_set.controls(stored, "first") == ["first_linear", "first"]
  assert exam_set.controls(stored, "second") == ["second_kernel"]
  assert exam_set.controls(stored, "both") == ["both_network"]


def test_a_folder_without_a_set_is_refused(tmp_path):
  assert exam_set.find("bundled", "pushed") == exam_set.BUNDLED / "pushed"
  with pytest.raises(errors.UserError, match="make a set with configs/exam_set.py"):
    exam_set.find(str(tmp_path), "hand")
  (tmp_path / "hand").mkdir()
  np.savez(tmp_path / "hand" / exam_set.TABLE)
  assert exam_set.find(str(tmp_path), "hand") == tmp_path / "hand"


def test_a_table_is_stored_small_and_its_errors_finite(tmp_path):
  table = {
    "errors/first": np.array([[1e9, 0.5]]),
    "numbers/light": np.ones((1, 3)),
    "target": np.array([[1e9]]),
    "chain": np.array([3]),
  }
  exam_set.save(tmp_path, table)
  assert [file.name for file in tmp_path.iterdir()] == [exam_set.TABLE]
  with np.load(tmp_path / exam_set.TABLE) as file:
    types = {name: file[name].dtype for name in file.files}
    assert np.isfinite(file["errors/first"]).all()
    assert (file["errors/first"][0, 1], file["target"][0, 0]) == (0.5, 1e9)
  assert types == {
    "errors/first": np.float16,
    "numbers/light": np.float16,
    "target": np.float32,
    "chain": np.int64,
  }


def test_latents_are_read_as_they_were_written(made, tmp_path):
  exam = made_set.write(tmp_path, made[0])
  arrays = {"z": np.ones((exam.pairs, 2)), "z_ac": np.zeros((exam.pairs // 2, 2))}
  exam_set.save_latents(tmp_path / "z.npz", exam_set.latents(arrays, exam))
  found = exam_set.load_latents(tmp_path / "z.npz", exam)
  np.testing.assert_array_equal(found.z, arrays["z"])
  np.testing.assert_array_equal(found.z_ac, arrays["z_ac"])
  assert found.z_ba is None and found.z_aa is None and found.z_shifted is None
