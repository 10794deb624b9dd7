"""Which part of a batch a process reads, and how."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax.data.batching import Batching, ProcessSlice
from como_jax.data.read_options import ReadOptions
from como_jax.train import reading


def test_each_process_has_its_part_of_the_cores_and_of_a_batch(monkeypatch):
  monkeypatch.setattr(reading.read_options, "cores", lambda: 9)
  monkeypatch.setattr(reading.read_options, "core_set_id", lambda: "here")
  for processes, cores, rows in ((1, 9, 9), (2, 4, 4), (20, 1, 1)):
    monkeypatch.setattr(
      reading.distributed,
      "count_colocated",
      lambda place, processes=processes: {"here": processes}[place],
    )
    monkeypatch.setattr(jax, "process_count", lambda processes=processes: processes)
    assert (reading.cores(), reading.local_rows(9)) == (cores, rows)


@pytest.mark.parametrize("backend, accelerators", [("cpu", 0), ("gpu", 3)])
def test_how_data_are_read_is_chosen_from_the_machine_the_codec_and_the_batch(
  monkeypatch, backend, accelerators
):
  asked = []
  monkeypatch.setattr(reading, "cores", lambda: 7)
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  monkeypatch.setattr(jax, "local_device_count", lambda: 3)
  monkeypatch.setattr(reading.shards, "read_manifest", lambda path: {"codec": path})
  monkeypatch.setattr(reading.read_options, "shared_room", lambda size: ("room", size))
  monkeypatch.setattr(
    reading.read_options, "choose", lambda **settings: asked.append(settings) or "HOW"
  )
  section = SimpleNamespace(workers=1, threads=2, prefetch=3)
  batch = {"a": jax.ShapeDtypeStruct((2, 3), np.float32), "b": jax.ShapeDtypeStruct((5,), np.uint8)}
  assert reading.choose(section, ["jpeg", "h264", "jpeg"], batch) == "HOW"
  assert asked == [
    dict(
      workers=1,
      threads=2,
      prefetch=3,
      cores=7,
      accelerators=accelerators,
      codecs={"jpeg", "h264"},
      room=("room", 29),
    )
  ]


def test_a_process_reads_its_part_of_the_training_batches(monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  config = config_lib.ConfigDict(
    {"seed": 7, "train": {"batch_size": 8}, "data": {"shuffle_shards": 3}}
  )
  expected = Batching(8, seed=7, start_step=9, process=ProcessSlice(1, 2), shuffle_shards=3)
  assert reading.batching(config, 9) == expected


def test_a_fixed_list_is_read_by_threads():
  assert reading.in_order(SimpleNamespace(threads=3)) == ReadOptions(threads=3)
