"""The table of chips."""

import pytest

from como_jax.parallel import chips


def test_ici_is_one_direction_over_all_links():
  """Links and GB/s of one: four in a plane, six in a torus of three dimensions; tpu7x halves a
  chip's.
  """
  links = {"v4": (6, 50), "v5e": (4, 50), "v5p": (6, 100), "v6e": (4, 100), "tpu7x": (6, 100)}
  for kind, (count, rate) in links.items():
    assert chips.CHIPS[kind].ici_rate == count * rate / chips.CHIPS[kind].per_chip, kind


@pytest.mark.parametrize(
  "device, kind",
  [
    ("TPU v4", "v4"),
    ("TPU v5 lite", "v5e"),
    ("TPU v5e", "v5e"),
    ("TPU v5", "v5p"),
    ("TPU v5p", "v5p"),
    ("TPU v6 lite", "v6e"),
    ("TPU7x", "tpu7x"),
    ("NVIDIA H100 80GB HBM3", "h100"),
    ("NVIDIA H100 PCIe", ""),  # slower than the module in the table
    ("NVIDIA H200", "h200"),
    ("NVIDIA H200 NVL", ""),
    ("NVIDIA A100-SXM4-80GB", "a100"),
    ("NVIDIA A100-SXM4-40GB", ""),
    ("cpu", ""),
  ],
)
def test_a_device_is_found_by_its_name(device, kind):
  assert chips.kind(device) == kind


def test_gpus_have_the_peaks_of_their_data_sheets():
  """TFLOP/s, GB/s of memory, of NVLink in both directions, Gb/s of the network for each GPU."""
  sheets = {
    "h100": (989.4, 3350, 900, 400),
    "h200": (989.4, 4800, 900, 400),
    "a100": (312, 2039, 600, 200),
  }
  for kind, (tflops, memory, nvlink, network) in sheets.items():
    chip = chips.CHIPS[kind]
    found = (chip.tflops, chip.hbm_rate, 2 * chip.ici_rate, 8 * chip.dcn_rate)
    assert found == (tflops, memory, nvlink, network), kind
  reported = {"h100": 81559, "h200": 143771, "a100": 81920}  # MiB
  for kind, mebibytes in reported.items():
    assert chips.CHIPS[kind].hbm == pytest.approx(0.75 * mebibytes / 1024, abs=0.05)
