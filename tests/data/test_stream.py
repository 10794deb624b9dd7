"""A stream of batches: damage, processes, workers and the end."""

import re
import warnings

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import stream, video
from como_jax.data.batching import Batching, ProcessSlice


class Broken:
  """Windows of which some cannot be read; remembers which were tried."""

  label, windows = "mine", range(100)

  def __init__(self, bad):
    self.bad, self.tried = bad, []

  def locate(self, i):
    self.tried.append(i)
    if self.bad(i):
      raise video.UnreadableError(f"window {i}")
    return i


def test_a_damaged_window_is_followed_by_others():
  opened, damage = Broken(lambda i: i == 7), stream.CorruptionMonitor()
  with pytest.warns(
    UserWarning,
    match="^a damaged record is replaced by another window .1 of 1 reads so far.: window 7$",
  ):
    found = stream.read(opened, 7, damage, lambda i: f"used {i}")
  other = int(np.random.default_rng([7, 0]).integers(100))
  assert found == f"used {other}" and opened.tried == [7, other]
  assert stream.read(opened, 3, damage, lambda i: i) == 3
  opened = Broken(lambda i: True)
  with (
    warnings.catch_warnings(),
    pytest.raises(
      errors.UserError, match="^mine: 16 windows in a row are damaged, the first: window 5$"
    ),
  ):
    warnings.simplefilter("ignore")
    stream.read(opened, 5, damage, print)
  assert len(opened.tried) == 16


@pytest.mark.parametrize(
  "reads, met, ends", [(20, 19, False), (20, 20, True), (1999, 20, True), (2000, 20, False)]
)
def test_a_run_ends_where_one_read_of_a_hundred_is_damaged(reads, met, ends):
  damage = stream.CorruptionMonitor()
  damage._reads = reads
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for _ in range(met - 1):
      damage.record_failure(ValueError("x"))
    if ends:
      with pytest.raises(
        errors.UserError, match=f"^{met} of {reads} records are damaged, the last: y$"
      ):
        damage.record_failure(ValueError("y"))
    else:
      damage.record_failure(ValueError("y"))


def test_each_process_takes_its_part():
  samples = [f"sample {i}" for i in range(100)]
  parts = [
    stream.LocalElements(samples, Batching(6, start_step=2, process=ProcessSlice(process, 3)))
    for process in range(3)
  ]
  assert [part(i) for part in parts for i in (0, 1, 2)] == [
    f"sample {i}" for i in (12, 13, 18, 14, 15, 20, 16, 17, 22)
  ]
  rows = stream._BatchLoader(parts[1], lambda rows: rows)
  assert rows(0) == ["sample 14", "sample 15"] and rows(1) == ["sample 20", "sample 21"]


class Stream:
  """Stands in for Grain's data set: gives numbers from the step on; `script` says where it
  fails.
  """

  made: list = []

  def __init__(self, step, script):
    self.step, self.script, self.closed = step, script, 0
    self.made.append(self)

  def to_iter_dataset(self, read):
    self.read = (read.num_threads, read.prefetch_buffer_size)
    return self

  def map(self, change):
    self.change = change
    return self

  def mp_prefetch(self, options):
    self.workers = (options.num_workers, options.per_worker_buffer_size)
    return self

  def __iter__(self):
    return self

  def __next__(self):
    step, self.step = self.step, self.step + 1
    if step in self.script and (error := self.script.pop(step)) is not None:
      raise error
    return {"x": np.array([step])}

  def close(self):
    self.closed += 1


def batches(script=None, *, step=3, workers=0, threads=4, prefetch=4):
  Stream.made, script = [], script or {}
  return stream.Batches(
    lambda step: Stream(step, script),
    step=step,
    workers=workers,
    threads=threads,
    prefetch=prefetch,
  )


@pytest.mark.parametrize(
  "given, read, workers",
  [
    ({}, (4, 4), None),
    ({"threads": 2}, (2, 4), None),
    ({"threads": 8}, (4, 4), None),
    ({"threads": 0}, (0, 0), None),
    ({"threads": 3, "prefetch": 0}, (1, 0), None),
    ({"workers": 2}, (4, 4), (2, 4)),
    ({"workers": 2, "threads": 2}, (2, 2), (2, 4)),
    ({"workers": 1, "threads": 2, "prefetch": 0}, (1, 1), (1, 1)),
  ],
)
def test_how_far_is_read_ahead(given, read, workers):
  batches(**given)
  (made,) = Stream.made
  assert made.read == read and getattr(made, "workers", None) == workers
  assert getattr(made, "change", None) == (stream._to_shared_memory if workers else None)


def test_steps_and_the_end():
  found = batches({5: StopIteration()})
  assert (
    [next(found)["x"][0] for _ in range(2)] == [3, 4] and found.step == 5 and iter(found) is found
  )
  with pytest.raises(StopIteration):
    next(found)
  assert Stream.made[0].closed == 1
  with batches() as found:
    next(found)
  assert Stream.made[0].closed == 1
  owned = next(batches(workers=1))["x"]
  assert owned.flags.owndata


def test_dead_workers_are_replaced_three_times():
  found = batches(
    {
      4: RuntimeError("a process terminated unexpectedly"),
      6: RuntimeError("terminated unexpectedly"),
    },
    workers=1,
  )
  with pytest.warns(UserWarning) as said:
    assert [next(found)["x"][0] for _ in range(4)] == [3, 4, 5, 6]
  assert [str(one.message).split(":")[0] for one in said] == [
    f"a data worker died and is replaced at step {step} ({n} of 3 in an hour)"
    for step, n in ((4, 1), (6, 2))
  ]
  assert [made.closed for made in Stream.made] == [1, 1, 0] and found.step == 7
  with pytest.raises(RuntimeError, match="^another$"):
    next(batches({3: RuntimeError("another")}))
  found = stream.Batches(
    lambda step: Stream(step, {3: RuntimeError("terminated unexpectedly")}),
    step=3,
    workers=0,
    threads=0,
    prefetch=1,
  )
  with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="terminated unexpectedly"):
    next(found)
  assert len(found._restarts) == 3


def test_three_deaths_an_hour_are_borne_for_ever_and_a_fourth_is_not(monkeypatch):
  now, death = [0.0], RuntimeError("terminated unexpectedly")
  monkeypatch.setattr(stream.time, "monotonic", lambda: now[0])
  deaths = dict.fromkeys(range(3, 40), death)
  found = batches(deaths, workers=1)
  with pytest.warns(UserWarning) as said:
    for number in range(12):  # three of them an hour, for four hours
      now[0] += 1200
      deaths[found.step] = death
      assert next(found)["x"][0] == 3 + number
  counts = [re.search(r"\((\d) of 3 in an hour\)", str(one.message))[1] for one in said]
  assert counts == ["1", "2", "3"] + 9 * ["3"]
  deaths[found.step] = death
  now[0] += 1199.0
  with pytest.raises(RuntimeError, match="terminated unexpectedly"):
    next(found)
  now[0] += 1.0
  with pytest.warns(UserWarning, match="3 of 3 in an hour"):
    assert next(found)["x"][0] == 15
