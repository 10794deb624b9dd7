"""What steps and weights folders look like on disk, and what is said of them."""

import json

import pytest

from como_jax import weights


def raises(error):
  def function(*unused, **more):
    raise error

  return function


def message(kind, call):
  with pytest.raises(kind) as caught:
    call()
  return str(caught.value)


def step_folder(run, step, *, position=None):
  """What a step without checksums looks like."""
  folder = run / "checkpoints" / str(step)
  (folder / "state").mkdir(parents=True)
  (folder / "data").mkdir()
  (folder / "data" / "metadata").write_text(
    json.dumps({"position": step if position is None else position})
  )
  (folder / "state" / "_METADATA").write_text("{}")
  (folder / "state" / "manifest.ocdbt").write_bytes(b"x")
  return folder


def exported(folder, step):
  """A weights folder of a step (None: it does not say)."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / weights.PARAMS).write_bytes(b"")
  (folder / weights.CONFIG).write_text(
    json.dumps({} if step is None else {"weights_version": 1, "weights_step": step})
  )
  return folder
