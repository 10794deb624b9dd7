"""The chips that topology.py knows, with their rates."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Chip:
  """Properties of one jax device: a chip, or half a chip of tpu7x, which has two devices per chip.

  Attributes:
    hbm: GiB that a program can use, according to the compiler (v5e: 15.75 of 16), or of a GPU the
      share that JAX takes; inf for a CPU.
    tflops: peak of bfloat16 matrix products, 1e12/s.
    hbm_rate: memory bandwidth, GB/s.
    ici_rate: GB/s that a device can send over all its links inside a slice, or a node of GPUs
      (half of the published bidirectional figure).
    dcn_rate: GB/s that a device can send to other slices or nodes: its share of the host's network.
    per_chip: devices per chip.
    counts_cores: whether the N of a name counts cores, two per chip.
    max_chips: chips of the largest slice or node.
    config: libtpu's name of the chip configuration.
    flat: whether the chips of a slice form a two-dimensional mesh.
    gpu: whether it is a GPU, whose slices are nodes.
    devices: jax's names of the device (`device_kind`).
  """

  hbm: float
  tflops: float
  hbm_rate: float
  ici_rate: float
  dcn_rate: float
  per_chip: int = 1
  counts_cores: bool = False
  max_chips: int = 256
  config: str = "default"
  flat: bool = False
  gpu: bool = False
  devices: tuple[str, ...] = ()


# Peak rates: cloud.google.com/tpu/docs, pages v4, v5e, v5p, v6e, tpu7x (read November 2026). There,
# ICI and DCN are in GB/s or Gb/s per chip, and for v5e and v6e DCN is in Tb/s per pod. v4's DCN is
# an assumption (v5p's hosts). HBM is measured: the "available" of libtpu 0.0.42's out-of-memory
# message. A CPU has no rates, so it has no roofline.
# GPUs: NVIDIA's data sheets of the SXM modules, without sparsity. The network is that of a DGX: one
# adapter of 400 Gb/s (A100: 200 Gb/s) for each GPU; other machines have less. HBM: three quarters
# of what the driver reports (81559, 143771 and 81920 MiB), the share that JAX takes unless
# XLA_PYTHON_CLIENT_MEM_FRACTION says another.
CHIPS = {
  "v4": Chip(
    30.75,
    275,
    1228,
    300,
    6.25,
    counts_cores=True,
    max_chips=2048,
    config="megacore",
    devices=("TPU v4",),
  ),
  "v5e": Chip(15.75, 197, 819, 200, 3.125, flat=True, devices=("TPU v5 lite", "TPU v5e")),
  "v5p": Chip(
    95.74, 459, 2765, 600, 6.25, counts_cores=True, max_chips=6144, devices=("TPU v5", "TPU v5p")
  ),
  "v6e": Chip(31.25, 918, 1638, 400, 12.5, flat=True, devices=("TPU v6 lite", "TPU v6e")),
  "tpu7x": Chip(
    94.75,
    1153.5,
    3690,
    300,
    6.25,
    per_chip=2,
    counts_cores=True,
    max_chips=9216,
    devices=("TPU7x", "TPU v7x"),
  ),
  "h100": Chip(
    59.7, 989.4, 3350, 450, 50, max_chips=8, gpu=True, devices=("NVIDIA H100 80GB HBM3",)
  ),
  "h200": Chip(105.3, 989.4, 4800, 450, 50, max_chips=8, gpu=True, devices=("NVIDIA H200",)),
  "a100": Chip(60.0, 312, 2039, 300, 25, max_chips=8, gpu=True, devices=("NVIDIA A100-SXM4-80GB",)),
  "cpu": Chip(math.inf, 0, 0, 0, 0, max_chips=1024),
}


def kind(device: str) -> str:
  """The key of CHIPS of a device, "" where the table has none.

  Args:
    device: jax's name of it (`device_kind`), for example "NVIDIA H100 80GB HBM3".
  """
  return next((name for name, chip in CHIPS.items() if device in chip.devices), "")
