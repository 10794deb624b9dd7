"""Names of machines, and devices of machines that are not there."""

import importlib.metadata
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
    ("h100-8", 8, 1, (8,), 8),
    ("H200-8x4", 8, 4, (8,), 32),
    ("a100-1", 1, 1, (1,), 1),
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
      assert machine.host().chips <= (8 if machine.chip.gpu else 4) and machine.one().chips == 1


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
    ("h10-8", "did you mean 'h100'"),
    ("h100-16", "did you mean 'h100-8x2'? (usual: h100-1, h100-2, h100-4, h100-8)"),
    ("h100-9", "did you mean 'h100-8x2'"),
    ("h100-0", "did you mean 'h100-1'"),
    ("h100-8x129", "at most 1024 GPUs can be planned, these are 1032"),
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


def test_gpus_are_cpu_devices_node_by_node():
  machine = topology.parse("h100-4x2")
  mesh = mesh_lib.make(data=2, fsdp=4, devices=topology.devices(machine))
  assert {device.platform for device in mesh.devices.flat} == {"cpu"}
  assert topology.slice_numbers(machine, mesh).tolist() == [0] * 4 + [1] * 4
  assert machine.describe() == (
    "h100-4x2: 2 nodes of 4 GPUs; each 59.7 GiB usable, 989.4 bf16 TFLOP/s, 3350 GB/s HBM, 450 "
    "GB/s NVLink out, 50 GB/s network out"
  )
  assert topology.parse("h100-1").describe().startswith("h100-1: 1 GPU; each 59.7 GiB usable")
  with pytest.raises(errors.UserError, match="config.topology=h100-8x2: this process has 8 CPU"):
    topology.devices(topology.parse("h100-8x2"))


def test_the_version_of_the_compiler(monkeypatch):
  installed = {"libtpu-nightly": "0.1.dev"}

  def version(package):
    if package not in installed:
      raise importlib.metadata.PackageNotFoundError(package)
    return installed[package]

  monkeypatch.setattr(topology.importlib.metadata, "version", version)
  tpu = topology.parse("v5e-4")
  assert topology.compiler_versions(tpu) == {"libtpu": "0.1.dev"}
  installed["libtpu"] = "0.0.42.1"
  assert topology.compiler_versions(tpu) == {"libtpu": "0.0.42.1"}
  installed.clear()
  assert topology.compiler_versions(tpu) == {"libtpu": None}
  for name in ("cpu-4", "h100-4"):
    assert topology.compiler_versions(topology.parse(name)) == {}


def test_the_libtpu_that_is_missing_is_that_of_the_installed_jax(monkeypatch):
  requirements = ["numpy>=2", "x==1; extra == 'cuda'", 'libtpu==9.8.*; extra == "tpu"']
  monkeypatch.setattr(topology.importlib.metadata, "requires", lambda package: requirements)
  assert topology._libtpu() == "libtpu==9.8.*"
  requirements.pop()
  assert topology._libtpu() == "libtpu"


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
