"""Where devices go: slices outermost, a process's rows in one block, and what is refused."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from como_jax import errors
from como_jax.parallel import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class Device:
  """What the layout looks at; the real ones need a pod."""

  id: int
  process_index: int
  slice_index: int
  platform: str = "tpu"


@pytest.fixture(name="layout")
def layout_fixture(monkeypatch):
  """Axis sizes and devices -> (device ids in the mesh's shape, processes in the mesh's shape)."""

  class Plain:
    def __init__(self, devices, axes, axis_types):
      self.devices = devices

  monkeypatch.setattr(jax.sharding, "Mesh", Plain)

  def layout(devices, **sizes):
    placed = mesh_lib.make(devices=devices, **sizes).devices
    return (
      np.vectorize(lambda d: d.id)(placed),
      np.vectorize(lambda d: d.process_index)(placed),
      np.vectorize(lambda d: d.slice_index)(placed),
    )

  return layout


def pod(*, slices=1, processes=4, each=4, platform="tpu"):
  """Devices in the order jax gives them on a torus: neighboring processes take turns."""
  devices = []
  for s in range(slices):
    for pair in range(processes // 2):
      for _ in range(2):
        for p in (0, 1):
          first = s * processes + 2 * pair + p
          devices += [Device(len(devices) + i, first, s, platform) for i in range(each // 2)]
  return devices


@pytest.mark.parametrize(
  "sizes", [{}, dict(fsdp=16), dict(fsdp=4), dict(fsdp=8), dict(fsdp=2, tensor=2), dict(tensor=4)]
)
def test_a_process_holds_one_block_of_the_batch(layout, sizes):
  ids, processes, _ = layout(pod(), **{"data": 1 if sizes.get("fsdp") == 16 else -1, **sizes})
  assert sorted(ids.flatten()) == list(range(16))
  rows = processes.reshape(-1, sizes.get("tensor", 1))  # rows of the batch x tensor
  assert (rows == rows[:, :1]).all()  # one row's devices belong to one process
  assert (np.diff(rows[:, 0]) >= 0).all() and len(set(np.bincount(rows[:, 0]))) == 1


@pytest.mark.parametrize("sizes", [dict(fsdp=16), dict(fsdp=4, tensor=4), {}, dict(data=4, fsdp=8)])
def test_data_spans_the_slices(layout, sizes):
  _, _, slices = layout(pod(slices=2), **sizes)
  assert slices.shape[0] % 2 == 0
  half = slices.shape[0] // 2
  assert (slices[:half] == 0).all() and (slices[half:] == 1).all()


@pytest.mark.parametrize(
  "devices, sizes, expected",
  [
    (
      pod(slices=2),
      dict(data=1, fsdp=32),
      (
        r"data=1 does not divide by the 2 slices.*fsdp x tensor = 32 x 1 stays inside one of 16 "
        r"devices"
      ),
    ),
    (pod(slices=2)[:-2], {}, r"different numbers of devices: \{0: 16, 1: 14\}"),
    (pod()[:-1], {}, r"4 processes have different numbers"),
    (pod(), dict(tensor=8), r"tensor=8 does not divide the 4 devices of each of the 4 processes"),
    (pod(), dict(data=3, fsdp=5), r"data x fsdp x tensor = 3 x 5 x 1 does not fill the 16 devices"),
  ],
)
def test_what_does_not_fit_is_refused_with_its_sizes(devices, sizes, expected):
  with pytest.raises(errors.UserError, match=expected):
    mesh_lib.make(devices=devices, **sizes)


def test_hosts_of_gpus_are_no_slices(layout):
  ids, _, _ = layout(pod(slices=2, platform="gpu"), data=1, fsdp=32)  # fsdp may cross them
  assert ids.shape == (1, 32, 1)


def test_the_batch_of_a_single_process_is_its_own():
  mesh = mesh_lib.make(data=4, fsdp=2)
  batch = mesh_lib.put_batch(mesh, {"x": np.arange(16.0).reshape(8, 2)})
  assert batch["x"].shape == (8, 2) and batch["x"].sharding == mesh_lib.batch_sharding(mesh)
  np.testing.assert_array_equal(batch["x"], np.arange(16.0).reshape(8, 2))


@pytest.mark.parametrize(
  "accumulate, tensor, multiple", [(1, 1, 1), (8, 1, 8), (8, 2, 4), (6, 4, 3), (2, 8, 1)]
)
def test_rows_of_a_device_come_in_parts(accumulate, tensor, multiple):
  mesh = types.SimpleNamespace(shape={"tensor": tensor})
  assert mesh_lib.rows_multiple(mesh, accumulate=accumulate) == multiple
