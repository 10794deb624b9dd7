"""What JAX found, against what was expected."""

import jax
import pytest

from como_jax import errors
from como_jax.parallel import devices

COUNT = len(jax.devices())


@pytest.mark.parametrize("expected", ["", "cpu", f"cpu:{COUNT}"])
def test_expected_devices_pass(expected):
  devices.check(expected)


@pytest.mark.parametrize("expected", ["gpu", "tpu:4", f"cpu:{COUNT + 1}"])
def test_other_devices_are_refused(expected):
  found = rf"--expect={expected}, but JAX found {COUNT} x cpu: "
  with pytest.raises(errors.UserError, match=found):
    devices.check(expected)


def test_a_backend_that_does_not_start_is_told(monkeypatch):
  def fail():
    raise RuntimeError("Unable to initialize backend 'cuda'\nmore")

  monkeypatch.setattr(jax, "devices", fail)
  with pytest.raises(errors.UserError, match=r"no such device \(Unable .*'cuda'\)$"):
    devices.check("gpu")


def test_kinds_are_counted(monkeypatch):
  class Device:
    def __init__(self, device_kind, platform):
      self.device_kind, self.platform = device_kind, platform

  all_ = [Device("NVIDIA H100", "gpu")] * 2
  monkeypatch.setattr(jax, "devices", lambda: all_)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  assert devices.describe() == "2 x NVIDIA H100 (gpu), 2 processes"
  devices.check("gpu:2")
