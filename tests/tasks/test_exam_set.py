"""The folder of an exam."""

import numpy as np

from como_jax.tasks import exam_set as exam_set_task


def test_errors_are_stored_finite(tmp_path):
  exam_set_task.save(
    tmp_path, {"errors/first": np.array([[1e9, 0.5]]), "target": np.array([[1e9]])}
  )
  with np.load(tmp_path / "exam.npz") as file:
    assert (
      np.isfinite(file["errors/first"]).all()
      and file["errors/first"][0, 1] == 0.5
      and file["target"][0, 0] == 1e9
    )
