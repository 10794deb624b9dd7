"""One replica reads the state and the others get it: which processes read, and every bit of it."""

import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from como_jax.parallel import mesh as mesh_lib
from como_jax.train import checkpointer, single_reading
from tests import toy
from tests.end_to_end import program

STATE = {
  "single": np.float32([-0.0, np.nan, 1e-45, 3]),
  "half": np.array([[1.5, -0.0], [np.inf, 3e-3]], ml_dtypes.bfloat16),
  "step": np.int32(-7),
  "flags": np.array([True, False, True]),
  "wide": np.arange(8 * 6, dtype=np.float32).reshape(8, 6) / 7,
}


def target(mesh, spec):
  """The shapes of STATE; "wide" is sharded."""
  return {
    name: jax.ShapeDtypeStruct(
      leaf.shape,
      leaf.dtype,
      sharding=jax.sharding.NamedSharding(
        mesh, spec if name == "wide" else jax.sharding.PartitionSpec()
      ),
    )
    for name, leaf in STATE.items()
  }


@pytest.fixture(name="item", scope="module")
def _item(tmp_path_factory):
  folder = tmp_path_factory.mktemp("saved")
  saving = checkpointer.Checkpointer(folder, keep=1)
  saving.save(4, jax.tree.map(jnp.asarray, STATE))
  saving.close()
  return folder / "checkpoints" / "4" / "state"


@pytest.mark.parametrize("count, fsdp, tensor", [(2, 1, 1), (2, 2, 2), (4, 2, 1), (8, 1, 1)])
def test_every_bit_is_sent_to_every_device(item, monkeypatch, count, fsdp, tensor):
  """In one process, whose devices are taken for several replicas."""
  mesh = mesh_lib.make(fsdp=fsdp, tensor=tensor)
  wanted = target(mesh, jax.sharding.PartitionSpec("fsdp", "tensor"))
  assert single_reading.replicas(wanted) == 1
  monkeypatch.setattr(single_reading, "replicas", lambda target: count)
  found = single_reading.restore(item, wanted)
  for name, leaf in STATE.items():
    assert found[name].sharding == wanted[name].sharding and found[name].dtype == leaf.dtype
    for shard in found[name].addressable_shards:
      assert np.asarray(shard.data).tobytes() == leaf[shard.index].tobytes(), (name, shard.device)
    assert len(found[name].addressable_shards) == 8


def owned(monkeypatch, mesh, per_process):
  """The number of replicas if each process had so many of the mesh's devices."""
  place = {device: i // per_process for i, device in enumerate(mesh.devices.flat)}
  monkeypatch.setattr(single_reading, "owner", place.__getitem__)
  wanted = target(mesh, jax.sharding.PartitionSpec("fsdp", "tensor"))
  return single_reading.replicas(wanted)


def test_a_replica_is_of_whole_processes(monkeypatch):
  data = mesh_lib.make()
  assert [owned(monkeypatch, data, n) for n in (8, 4, 2, 1)] == [1, 2, 4, 8]
  halves = mesh_lib.make(fsdp=4)  # fsdp over two processes of two, or four of one
  assert [owned(monkeypatch, halves, n) for n in (8, 4, 2, 1)] == [1, 2, 2, 2]
  assert [owned(monkeypatch, mesh_lib.make(fsdp=8), n) for n in (4, 1)] == [1, 1]
  three = mesh_lib.make(fsdp=3, devices=jax.devices()[:6])
  assert owned(monkeypatch, three, 2) == 1  # whole processes and whole replicas: all six


def test_what_cannot_be_sent_is_read_by_all(monkeypatch):
  mesh = mesh_lib.make()
  monkeypatch.setattr(single_reading, "owner", lambda device: device.id // 4)
  wanted = target(mesh, jax.sharding.PartitionSpec("fsdp", "tensor"))
  assert single_reading.replicas(wanted) == 2
  assert single_reading.replicas({}) == 1
  assert single_reading.replicas(target(mesh, jax.sharding.PartitionSpec("data"))) == 1
  assert single_reading.replicas(target(mesh, jax.sharding.PartitionSpec(("fsdp", "data")))) == 1
  long = jax.ShapeDtypeStruct((2,), np.dtype("float64"), sharding=wanted["step"].sharding)
  assert single_reading.replicas({**wanted, "long": long}) == 1
  alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  assert single_reading.replicas({"a": jax.ShapeDtypeStruct((2,), "float32", sharding=alone)}) == 1


def two_processes(workdir, *, fsdp, single):
  """What each of two processes of four devices read and got."""
  words = [str(workdir), str(fsdp), "on" if single else "off", "256"]
  return program.local_processes("tests.train.restored_in_two", *words, count=2, devices=4)


@pytest.mark.flow
def test_the_second_of_two_processes_reads_nothing_and_has_the_same(tmp_path):
  saving = checkpointer.Checkpointer(tmp_path, keep=1, frozen=toy.FROZEN)
  saving.save(4, toy.fresh(toy.make_optimizer()[0], ema=True, width=256))
  saving.close()
  state = pathlib.Path(tmp_path, "checkpoints", "4", "state")
  size = sum(path.stat().st_size for path in state.rglob("d/*"))
  each = two_processes(tmp_path, fsdp=4, single=False)
  once = two_processes(tmp_path, fsdp=4, single=True)
  assert any("fsdp" in spec for spec in once[0]["split"])
  assert min(process["read"] for process in each) > size / 2, "as it was: both read all"
  assert once[0]["read"] > size / 2 and once[1]["read"] == 0
  for i in (0, 1):
    assert once[i]["own"] == each[i]["own"] and once[i]["params"] == each[i]["params"]
