"""What goes wrong in a worker process arrives as what it is."""

import errno

import pytest

from como_jax.data import workers


def full(unit, report):
  raise OSError(errno.ENOSPC, "No space left on device", unit)


def broken(unit, report):
  raise FileNotFoundError(errno.ENOENT, "No such file or directory", unit)


def results(function):
  return list(
    workers.run(function, ["/x/shard"], workers=1, on_progress=print, on_death=lambda *unit: None)
  )


def test_a_full_disk_is_told_as_one_and_a_fault_with_its_traceback():
  with pytest.raises(OSError) as told:
    results(full)
  assert (told.value.errno, told.value.filename, told.value.strerror) == (
    errno.ENOSPC,
    "/x/shard",
    "No space left on device",
  )
  with pytest.raises(RuntimeError, match="a worker process failed:\n.*Traceback(.|\n)*/x/shard"):
    results(broken)
