"""The parts that batches, labels and policy examples are made of, one by one."""

import dataclasses
import types
import warnings

import numpy as np
import pytest

from como_jax import data, errors
from como_jax.data import (
  index,
  label_file,
  labels,
  motion_mixture,
  normalization,
  pipeline,
  policy_examples,
  policy_index,
  policy_layout,
  policy_pipeline,
  policy_sets,
  shard_file,
  shards,
  stream,
  video,
)
from como_jax.data.batching import Batching, ProcessSlice, Split
from como_jax.data.read_options import ReadOptions
from como_jax.data.times import FrameTimes
from tests.data import flat, makers, test_index


class Broken:
  """Windows of which some cannot be read; remembers which were tried."""

  label, windows = "mine", range(100)

  def __init__(self, bad):
    self.bad, self.tried = bad, []

  def locate(self, i):
    self.tried.append(i)
    if self.bad(i):
      raise video.Unreadable(f"window {i}")
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


def test_what_a_process_gets_of_a_batch():
  assert ProcessSlice(2, 3).rows(6) == 2 and ProcessSlice().rows(1) == 1
  assert Batching(6, process=ProcessSlice(2, 3)).local_rows == 2
  for process, size, message in (
    (ProcessSlice(), 0, "^batch_size 0 does not divide by the number of processes, 1$"),
    (ProcessSlice(0, 2), 7, "^batch_size 7 does not"),
  ):
    with pytest.raises(errors.UserError, match=message):
      process.rows(size)
  for number in (-1, 3):
    with pytest.raises(ValueError, match=f"^process {number} of 3$"):
      ProcessSlice(number, 3).rows(6)


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
  assert getattr(made, "change", None) == (stream._hand_over if workers else None)


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
    f"a data worker died and is replaced at step {step} ({n} of 3)" for step, n in ((4, 1), (6, 2))
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
  assert found._restarts == 3


def test_what_cannot_be_built(tmp_path):
  path = makers.shards(tmp_path / "s", (4, 4))
  for one, given, message in (
    (
      data.DataSet("/nowhere", weight=-1.0),
      {},
      "^data set nowhere: weight is -1.0, expected more than 0$",
    ),
    (data.DataSet(path), {"kind": "mea"}, "^unknown kind of batches 'mea': did you mean 'mae'"),
    (data.DataSet(path), {"frames": 1}, "^motion batches need at least 2 frames, got 1$"),
  ):
    with pytest.raises(errors.UserError, match=message):
      flat.motion([one], batch_size=2, image_size=8, **given)
  with pytest.raises(errors.UserError, match="^no data set is given$"):
    flat.motion([], batch_size=2, image_size=8)
  assert (
    data.DataSet("/a/b/").label == "b"
    and data.DataSet("/a/b", name="n").label == "n"
    and data.DataSet("x") == data.DataSet("x", 1.0, 0.5, (), "")
  )


def test_windows_by_number():
  found = index.windows(
    test_index.table([("x", 0, 4, 10), ("y", 0, 3, 10)]), frames=2, offset_seconds=0.1
  )
  assert len(found) == 10 and (found[0], found[9]) == (index.Window(0, 0, 0), index.Window(1, 1, 1))
  for i in (-1, 10):
    with pytest.raises(IndexError):
      found[i]


def test_runs_of_first_frames(monkeypatch):
  """Uniform segments are one run each, others one for each stretch in which every frame begins a
  window.
  """
  records = test_index.table([("x", 0, 6, 10), ("y", 0, 8, 10), ("z", 0, 2, 10)], cameras=("a",))
  records.uniform[1] = False
  uneven = FrameTimes(0.0, 0.2, 8, np.array([0.0, 0.1, 0.2, 0.3, 0.9, 1.0, 1.5, 1.6]))
  monkeypatch.setattr(
    type(records), "explicit_parts", lambda self, rows: iter([{1: uneven.explicit}])
  )
  found = index.runs(index.shards.segments(records), frames=2, offset=0.1)
  assert [column.tolist() for column in found[:3]] == [
    [0, 1, 1, 1, 2],
    [0, 0, 4, 6, 0],
    [5, 3, 1, 1, 1],
  ] and found[3] == 2


@pytest.mark.parametrize(
  "change, message",
  [
    ({"weight": 0.0}, "^data set n: weight is 0.0, expected more than 0$"),
    ({"views": "both"}, "^data set n: unknown views 'both'"),
    ({"robot": ""}, "neither a robot nor labels"),
    ({"robot": "", "labels": "l"}, None),
    ({"episodes": (0, 1)}, None),
    (
      {"episodes": (-1, 1)},
      r"episodes are \(-1, 1\), expected \(first, last\) with 0 <= first < last$",
    ),
    ({"episodes": (2, 2)}, "episodes are"),
    ({"episodes": (1,)}, "episodes are"),
    ({"episodes": (0, 1.5)}, "episodes are"),
    ({"episodes": (np.int64(0), np.int64(2))}, None),
  ],
)
def test_entries_of_a_mixture(change, message):
  one = dataclasses.replace(policy_index.PolicySet("p/n", robot="arm"), **change)
  if message is None:
    assert one.check() is one
  else:
    with pytest.raises(errors.UserError, match=message):
      one.check()


def test_chunks_by_hand():
  even, uneven = (
    FrameTimes(0.0, 0.1, 6),
    FrameTimes(0.0, 0.2, 5, np.array([0.0, 0.1, 0.2, 0.9, 1.0])),
  )
  for times, t, step, edges, begins in (
    (even, 2, 0.0, [2, 3, 4, 5], [1, 1, 1]),
    (even, 4, 0.0, [4, 5, 6, 6], [1, 1, 0]),
    (even, 1, 0.2, [1, 3, 5, 6], [1, 1, 1]),
    (even, 5, 0.2, [5, 6, 6, 6], [1, 0, 0]),
    (even, 0, 0.15, [0, 1, 3, 4], [1, 0, 1]),
    (uneven, 0, 0.2, [0, 2, 2, 3], [1, 0, 0]),
  ):
    found = policy_index.chunk_edges(times, t, step, 3)
    assert (found[0].tolist(), found[1].astype(int).tolist()) == (edges, begins), (t, step)
  assert policy_index.history_frames(even, 2, 0.0, 4).tolist() == [
    0,
    0,
    1,
    2,
  ] and policy_index.history_frames(even, 4, 0.2, 3).tolist() == [0, 2, 4]
  assert policy_index.history_frames(even, 5, 0.2, 1).tolist() == [
    5
  ] and policy_index.history_frames(uneven, 3, 0.2, 3).tolist() == [2, 3, 3]


def test_examples_by_hand():
  records = test_index.table([("x", 0, 4, 10), ("x", 4, 3, 10), ("y", 0, 5, 10)])
  records.has_action[:] = [True, False, False]
  whole, keep = np.ones(3, bool), np.array([True, True, False])

  def make(**given):
    return policy_index.enumerate_examples(
      records,
      **dict(
        split_keep=whole,
        keep=keep,
        cameras=(1, 0),
        views="together",
        actions=True,
        offset_seconds=0.2,
      )
      | given,
    )

  found = make()
  # four with actions, one with a motion
  assert [dataclasses.astuple(found[i]) for i in range(len(found))] == [
    (0, -1, t) for t in range(5)
  ]
  assert [column.tolist() for column in found.runs()] == [
    [0],
    [0],
    [5],
  ] and found.rows().tolist() == [0, 1]
  assert (
    len(make(offset_seconds=None)) == 4
    and len(make(actions=False)) == 5
    and len(make(actions=False, offset_seconds=None)) == 0
  )
  assert make(actions=False, offset_seconds=None).rows().tolist() == []
  each = make(views="each", keep=whole)
  assert [dataclasses.astuple(each[i]) for i in (0, 4, 5, 9, 10, 12, 13, 15)] == [
    (0, 0, 0),
    (0, 0, 4),
    (0, 1, 0),
    (0, 1, 4),
    (1, 0, 0),
    (1, 0, 2),
    (1, 1, 0),
    (1, 1, 2),
  ] and len(each) == 16
  assert [column.tolist() for column in each.runs()] == [[0, 1], [0, 0], [5, 3]]
  for i in (-1, 16):
    with pytest.raises(IndexError):
      each[i]


NOTHING = normalization.Normalization({})
LAYOUT = policy_layout.Layout(
  NOTHING, {}, {"b": (3, 0), "a": (2, 4)}, 1, 1, 1, "mean", 0, 0, 1, 0.0
)


@pytest.mark.parametrize(
  "name, least",
  [
    ("cameras", 1),
    ("history", 1),
    ("chunk", 1),
    ("latent_chunk", 0),
    ("latent_size", 0),
    ("image_size", 1),
  ],
)
def test_limits_of_a_layout(name, least):
  assert LAYOUT.check() is LAYOUT and (LAYOUT.names, LAYOUT.action_size, LAYOUT.state_size) == (
    ("a", "b"),
    3,
    4,
  )
  assert (
    dataclasses.replace(LAYOUT, robots={}).action_size
    == dataclasses.replace(LAYOUT, robots={}).state_size
    == 0
  )
  with pytest.raises(
    errors.UserError, match=f"^policy batches: {name} is {least - 1}, expected at least {least}$"
  ):
    dataclasses.replace(LAYOUT, **{name: least - 1}).check()


def test_actions_of_a_step():
  actions = np.arange(10.0).reshape(5, 2)
  for how, expected in (
    ("mean", [[1, 2], [6, 7], [8, 9]]),
    ("first", [[0, 1], [4, 5], [8, 9]]),
    ("last", [[2, 3], [8, 9], [8, 9]]),
  ):
    found = policy_examples.reduced(actions, np.array([0, 2, 4]), np.array([2, 5, 5]), how)
    assert found.tolist() == expected and found.dtype == np.float32
  single = policy_examples.reduced(actions, np.array([0, 3]), np.array([1, 4]), "mean")
  assert single.tolist() == [[0, 1], [6, 7]]


def test_labels_of_one_model_and_offset():
  def opened(name, path, mark, offset):
    manifest = {"model": {"path": path, "fingerprint": mark}, "offset_seconds": offset}
    motions = types.SimpleNamespace(manifest=manifest) if path else None
    return policy_sets.OpenedSet(policy_index.PolicySet("p", labels=name), {}, None, motions)

  def check(*second):
    return policy_sets.check_one_model(
      [opened("one", "m", "x", 0.5), opened("", "", "", 0), opened("two", *second)]
    )

  check("other", "x", 0.5)
  with pytest.raises(
    errors.UserError,
    match=(
      "^labels two are of another motion model .n. than labels one .m.; extract them with one "
      "model$"
    ),
  ):
    check("n", "y", 0.5)
  with pytest.raises(
    errors.UserError,
    match="^labels two are at 0.4 s and labels one at 0.5 s: a policy has one latent motion",
  ):
    check("m", "x", 0.4)


def test_instructions_have_one_shape():
  language = {"a": (np.zeros((2, 3)), np.ones(2, bool)), "b": (np.zeros((2, 4)), np.ones(2, bool))}
  for texts in (
    language,
    {"a": (np.zeros(3), np.ones(3, bool))},
    {"a": (np.zeros((2, 3)), np.ones(3, bool))},
    {},
  ):
    with pytest.raises(errors.UserError, match="^embeddings of instructions have shapes"):
      policy_examples._texts([], texts)
  assert policy_examples._texts([], {"a": language["a"]}) == ([], [])


def clip(**changes):
  return shard_file.Clip(
    **dict(
      start=0,
      length=2,
      frames={"a": shard_file.Frames("jpeg", 2, 4, 6, [b"xyz", b"q"])},
      arrays={"v": np.arange(2)},
    )
    | changes
  )


def test_shards_refuse_what_does_not_fit(tmp_path):
  writer = shard_file.Writer(str(tmp_path / "s"))
  writer.add(clip())
  with pytest.raises(ValueError, match=r"^cameras \['b'\] in a shard of \['a'\]$"):
    writer.add(clip(frames={"b": clip().frames["a"]}))
  writer.add(clip(frames={"a": dataclasses.replace(clip().frames["a"], codec="h264")}))
  with pytest.raises(ValueError, match=r"^codecs \['h264', 'jpeg'\] in one shard$"):
    writer.close()
  for arrays in ({"v": np.array(["x"])}, {"v": np.arange(2.0)}):
    writer = shard_file.Writer(str(tmp_path / "t"))
    writer.add(clip())
    writer.add(clip(arrays=arrays))
    with pytest.raises(TypeError, match="^array 'v' has dtypes .*, expected one kind of numbers$"):
      writer.close()


def test_a_small_shard(tmp_path):
  writer = shard_file.Writer(str(tmp_path / "s"))
  writer.add(
    clip(
      arrays={"v": np.arange(2), "w": np.float32([[1, 2], [3, 4]])},
      frame_facts={"f": np.array([5, 6])},
      statistics={"w": np.ones((3, 2)), "v": np.ones((3, 1))},
    )
  )
  writer.add(
    clip(
      start=2,
      arrays={"v": np.arange(2, 4)},
      frame_facts={"f": np.array([7, 8])},
      statistics={"v": np.zeros((3, 1))},
    )
  )
  entry = writer.close()
  assert entry["index_offset"] % 8 == 0
  found = shard_file.ShardFile(str(tmp_path / "s"), entry)
  assert (
    found.index["start"].tolist() == [0, 2]
    and found.cameras == ("a",)
    and found.arrays == ("v", "w")
    and len(found) == 2
  )
  assert (
    found.blobs(1, "a", [1, 0, 1]) == {0: b"xyz", 1: b"q"}
    and found.blobs(0, "a", []) == {}
    and found.size(1, "a") == (4, 6)
  )
  assert (
    found.array(1, "v").tolist() == [2, 3]
    and found.array(0, "w").tolist() == [[1, 2], [3, 4]]
    and found.array(1, "w") is None
  )
  assert found.frame_fact(1, "f").tolist() == [7, 8] and [
    part.shape for part in found.statistics("w")
  ] == [(3, 2)]
  assert [part.tolist() for part in found.statistics("v")] == [[[1]] * 3, [[0]] * 3]
  for numbers in ([-1], [2], [0, 2]):
    with pytest.raises(IndexError, match="of a clip of 2$"):
      found.blobs(0, "a", numbers)
  assert (
    shard_file._runs([1, 2, 4, 5, 6, 9]) == [[1, 2], [4, 5, 6], [9]] and shard_file._runs([]) == []
  )


def test_counts_of_labels(tmp_path):
  def motion(*valid):
    return labels.Motion(np.ones((len(valid), 2)), np.array(valid, bool), np.ones(len(valid)))

  clips = [(0, {"a": motion(1, 1, 0), "b": motion(1, 0, 0)}), (3, {"a": motion(0), "b": motion(1)})]
  facts = dict(facts={"m": 1}, left_out=1, at_end=2, damaged=[{"clip": 0, "camera": "a"}])
  sidecar = label_file.write_shard(str(tmp_path), 3, clips, **facts)
  assert {
    key: sidecar[key]
    for key in (
      "shard",
      "file",
      "clips",
      "frames",
      "valid",
      "left_out",
      "at_end",
      "unreadable",
      "facts",
      "damaged",
    )
  } == {
    "shard": 3,
    "file": "labels-00003.labels",
    "clips": 2,
    "frames": 4,
    "valid": 4,
    "left_out": 1,
    "at_end": 2,
    "unreadable": 1,
    "facts": {"m": 1},
    "damaged": [{"clip": 0, "camera": "a"}],
  }
  opened = shard_file.ShardFile(str(tmp_path / "labels-00003.labels"))
  assert (
    opened.index["start"].tolist() == [0, 3]
    and opened.array(0, "valid/a").tolist() == [1, 1, 0]
    and opened.array(0, "z/a").dtype == np.float32
  )
  assert label_file.finished(str(tmp_path), 3, facts={"m": 1}) == sidecar


class Recorded(Exception):
  """Ends a call once what it asks for is known."""


def recorder(monkeypatch, module, name):
  calls = []

  def record(*given, **more):
    calls.append((given, more))
    raise Recorded

  monkeypatch.setattr(module, name, record)
  return calls


EMPTY = policy_layout.Layout(
  normalization=NOTHING,
  language={},
  robots={},
  cameras=1,
  history=1,
  chunk=1,
  reduce="mean",
  latent_chunk=0,
  latent_size=0,
  image_size=8,
  step_seconds=0.0,
)


def test_what_nobody_says_of_batches(monkeypatch):
  """One process, from the beginning, of the training episodes: what documentation and configs leave
  out.
  """
  opened = types.SimpleNamespace(windows=range(5), label="n", dataset=data.DataSet("p"))
  monkeypatch.setattr(shards, "read_table", lambda path: "TABLE")
  monkeypatch.setattr(
    pipeline,
    "open_windows",
    lambda dataset, table, *, frames, split: asked.append((table, frames, split)) or opened,
  )
  asked, calls = [], recorder(monkeypatch, stream, "infinite_batches")
  mixture = motion_mixture.MotionMixture([data.DataSet("p")])
  for _ in range(2):
    with pytest.raises(Recorded):
      mixture.batches(pipeline.Layout(8), Batching(4))
  reading = ReadOptions(1, 2, 3)
  batching = Batching(4, seed=2, start_step=5, process=ProcessSlice(1, 2))
  mixture = motion_mixture.MotionMixture([data.DataSet("p")], validation_fraction=0.3)
  with pytest.raises(Recorded):
    mixture.batches(pipeline.Layout(8, kind="mae"), batching, reading, split="all")
  assert asked == [("TABLE", 2, Split("train", 0.1)), ("TABLE", 1, Split("all", 0.3))]
  del calls[0]  # the same windows, not enumerated again
  usual = (Batching(4, seed=0, start_step=0, process=ProcessSlice(0, 1)), ReadOptions(0, 4, 4))
  assert [given[3:] for given, _ in calls] == [usual, (batching, reading)]
  calls.clear()
  opened.entry = policy_index.PolicySet("p", weight=3.0)
  loader = types.SimpleNamespace(sets=[opened], layout=EMPTY)
  with pytest.raises(Recorded):
    policy_pipeline.batches(loader, Batching(4))
  assert calls[0][0][:2] == ([5], [3.0]) and calls[0][0][3:] == usual


def test_what_nobody_says_of_evaluations(monkeypatch):
  monkeypatch.setattr(shards, "read_manifest", lambda path: None)
  monkeypatch.setattr(shards, "read_table", lambda path: "TABLE")
  mixture = motion_mixture.MotionMixture([data.DataSet("p")])
  with monkeypatch.context() as patch:
    calls = recorder(patch, pipeline, "open_windows")
    with pytest.raises(Recorded):
      mixture.evaluation(pipeline.Layout(8, frames=3), Batching(4))
    expected = {"frames": 3, "split": Split("validation", 0.1)}
    assert calls == [((mixture.datasets[0], "TABLE"), expected)]
  with monkeypatch.context() as patch:
    calls = []
    patch.setattr(
      index, "split", lambda table, fraction: calls.append(fraction) or np.ones(1, bool)
    )
    windows = recorder(patch, index, "windows")
    with pytest.raises(Recorded):
      mixture.describe()
    assert calls == [0.1] and windows[0][1]["frames"] == 2
