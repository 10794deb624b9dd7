"""The cells of docs/notebooks/label_my_video.ipynb run in order, in one process."""

import json
import subprocess
import sys

import numpy as np

from como_jax.data import labels
from tests import limits
from tests.docs import pages
from tests.end_to_end import program

NOTEBOOK = pages.DOCS / "notebooks" / "label_my_video.ipynb"


def cells(kind):
  notebook = json.loads(NOTEBOOK.read_text())
  assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
  return ["".join(one["source"]) for one in notebook["cells"] if one["cell_type"] == kind]


def test_it_holds_no_outputs():
  """They would be of somebody's machine, and nothing would check them."""
  found = json.loads(NOTEBOOK.read_text())["cells"]
  assert not any(one.get("outputs") or one.get("execution_count") for one in found)


def test_it_runs_from_the_first_cell_to_the_last(tmp_path):
  script = tmp_path / "cells.py"
  script.write_text("\n\n".join(cells("code")) + "\n\nfor_the_test = (z, size, alike)\n")
  command = [sys.executable, "-c", f"exec(compile(open({str(script)!r}).read(), 'cells', 'exec'))"]
  env = program.environment(MPLBACKEND="Agg", PYTHONPATH=str(program.ROOT))
  done = subprocess.run(
    command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=limits.SAFETY_NET
  )
  assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
  work = tmp_path / "label_my_video"
  (motion,) = labels.Labels(str(work / "labels")).episode("robot.mp4").values()
  assert f"robot.mp4: 63 frames, {motion.valid.sum()} labels of 32 numbers" in done.stdout
  assert motion.valid.sum() == 57  # 0.15 s are six frames of 40 a second
  np.testing.assert_allclose(motion.difference[motion.valid], 0.15, atol=1e-3)
  assert motion.z[motion.valid].std(axis=0).min() > 0
  for name in ("z.png", "alike.png"):
    assert (work / name).read_bytes().startswith(b"\x89PNG")
