"""Names of machines, and devices of machines that are not there."""

import importlib.util
import subprocess
import sys

import jax
import pytest

from como_jax import errors
from como_jax.parallel import chips, topology
from como_jax.parallel import mesh as mesh_lib


@pytest.mark.parametrize(
  "name, chips, slices, shape, count",
  [
    ("v5e-256", 256, 1, (16, 16), 256),
    ("v5e-1", 1, 1, (1, 1), 1),
    ("v5litepod-16", 16, 1, (4, 4), 16),
    ("v6e-8", 8, 1, (2, 4), 8),
    ("v4-8", 4, 1, (2, 2, 1), 4),
    ("v5p-8", 4, 1, (2, 2, 1), 4),
    ("v5p-128x2", 64, 2, (4, 4, 4), 128),
    ("V5P-128 x 2 slices", 64, 2, (4, 4, 4), 128),
    ("v5p-512", 256, 1, (4, 8, 8), 256),
    ("v5p-768", 384, 1, (4, 8, 12), 384),
    ("tpu7x-128", 64, 1, (4, 4, 4), 128),
    ("cpu-8", 8, 1, (8,), 8),
    ("cpu-2x4", 2, 4, (2,), 8),
  ],
)
def test_names(name, chips, slices, shape, count):
  machine = topology.parse(name)
  assert (machine.chips, machine.slices, machine.shape, machine.count) == (
    chips,
    slices,
    shape,
    count,
  )
  assert topology.parse(machine.name) == machine


def test_every_usual_name_parses_and_describes_itself():
  for kind in chips.CHIPS:
    for name in topology.names(kind):
      machine = topology.parse(name)
      assert machine.name == name and machine.describe().startswith(name + ":")
      assert machine.host().chips <= 4 and machine.one().chips == 1


@pytest.mark.parametrize(
  "name, expected",
  [
    ("v5e-255", "did you mean 'v5e-256'"),
    ("v5e_16", "did you mean 'v5e-16'"),
    ("v5-8", "did you mean 'v5p'"),
    ("v5p-3", "counts cores"),
    ("v5p-100", "did you mean 'v5p-128'"),
    ("v6e-512", "did you mean 'v6e-256'"),
    ("v5e-16x0", "no such slice"),
    ("h100-8", "valid: cpu, tpu7x"),
    ("", "for example v5p-128x2"),
    ("v5e-0", "did you mean 'v5e-1'"),
  ],
)
def test_mistakes_name_near_ones(name, expected):
  with pytest.raises(errors.UserError) as caught:
    topology.parse(name)
  assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_cpu_devices_and_their_imaginary_slices():
  machine = topology.parse("cpu-4x2")
  mesh = mesh_lib.make(data=2, fsdp=4, devices=topology.devices(machine))
  assert (
    mesh.devices.shape == (2, 4, 1)
    and topology.slice_numbers(machine, mesh).tolist() == [0] * 4 + [1] * 4
  )
  with pytest.raises(errors.UserError, match="COMO_JAX_CPU_DEVICES=16"):
    topology.devices(topology.parse("cpu-16"))
  assert len(jax.devices()) == 8


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_missing_libtpu_is_one_line():
  with pytest.raises(errors.UserError, match='pip install "libtpu==') as caught:
    topology.devices(topology.parse("v5e-4"))
  assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_libtpu_describes_each_kind():
  code = (
    "from como_jax.parallel import topology\n"
    "for name in ('v4-8', 'v5e-1', 'v5e-16', 'v5p-16x2', 'v6e-8', 'tpu7x-8'):\n"
    "  machine = topology.parse(name)\n"
    "  devices = topology.devices(machine)\n"
    "  assert len(devices) == machine.count, name\n"
    "  assert len({getattr(d, 'slice_index', None) for d in devices}) == machine.slices, name\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
