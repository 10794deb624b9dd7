"""The share of the devices' peak rate, and their memory."""

import types

import jax
import jax.numpy as jnp
import pytest

from como_jax.parallel import chips
from como_jax.train import utilization


def device(kind, **stats):
  return types.SimpleNamespace(device_kind=kind, platform="tpu", memory_stats=lambda: stats or None)


def trace():
  """A step of 2 * 64 * 32 * 16 operations."""
  return jax.jit(lambda a, b: a @ b).trace(jnp.ones((64, 32)), jnp.ones((32, 16)))


@pytest.mark.parametrize(
  "kind, name",
  [
    ("TPU v4", "v4"),
    ("TPU v5 lite", "v5e"),
    ("TPU v5", "v5p"),
    ("TPU v5p", "v5p"),
    ("TPU v6 lite", "v6e"),
    ("TPU7x", "tpu7x"),
  ],
)
def test_peak_rates(kind, name):
  assert utilization.peak(kind) == chips.CHIPS[name].tflops * 1e12


def test_devices_whose_rate_is_not_known_have_no_mfu_and_one_remark():
  assert utilization.peak("cpu") is None
  found = utilization.Utilization(trace, [device("Abacus 3000")])
  assert found.scalars(5.0) == {}
  assert found.remark == ("no MFU: the peak rate of 'Abacus 3000' is not known (parallel/chips.py)")


def test_mfu_is_the_share_of_the_peak_of_all_devices():
  found = utilization.Utilization(trace, [device("TPU v5 lite")] * 2, count=8)
  operations = 2 * 64 * 32 * 16
  assert found.remark == ""
  assert found.scalars(1000.0) == {"mfu": pytest.approx(operations * 1000 / (8 * 197e12))}
  assert found.scalars(0.0) == {}, "no window yet"


def test_memory_is_that_of_the_fullest_device():
  gib = 2**30
  devices = [
    device("a", bytes_in_use=1 * gib, peak_bytes_in_use=6 * gib),
    device("a", bytes_in_use=2 * gib, peak_bytes_in_use=5 * gib),
    device("a"),
  ]
  assert utilization.Utilization(trace, devices).scalars(1.0) == {
    "hbm_gib": 2.0,
    "hbm_peak_gib": 6.0,
  }
  assert utilization.Utilization(trace, [device("a", bytes_in_use=gib)]).scalars(1.0) == {
    "hbm_gib": 1.0
  }


def test_without_devices_nothing_is_measured():
  assert utilization.Utilization().scalars(1.0) == {} and utilization.Utilization().remark == ""
