"""The chips that topology.py knows, with their rates."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Chip:
  """Properties of one jax device: a chip, or half a chip of tpu7x, which has two devices per chip.

  Attributes:
    hbm: GiB that a program can use, according to the compiler (v5e: 15.75 of 16); inf for a CPU.
    tflops: peak of bfloat16 matrix products, 1e12/s.
    hbm_rate: memory bandwidth, GB/s.
    ici_rate: GB/s that a device can send over all its links inside a slice (half of Google's
      bidirectional figure).
    dcn_rate: GB/s that a device can send to other slices: its share of the host's network.
    per_chip: devices per chip.
    counts_cores: whether the N of a name counts cores, two per chip.
    max_chips: chips of the largest slice.
    config: libtpu's name of the chip configuration.
    flat: whether the chips of a slice form a two-dimensional mesh.
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


# Peak rates: cloud.google.com/tpu/docs, pages v4, v5e, v5p, v6e, tpu7x (read November 2026). There,
# ICI and DCN are in GB/s or Gb/s per chip, and for v5e and v6e DCN is in Tb/s per pod. v4's DCN is
# an assumption (v5p's hosts). HBM is measured: the "available" of libtpu 0.0.42's out-of-memory
# message. A CPU has no rates, so it has no roofline.
CHIPS = {
  "v4": Chip(30.75, 275, 1228, 300, 6.25, counts_cores=True, max_chips=2048, config="megacore"),
  "v5e": Chip(15.75, 197, 819, 200, 3.125, flat=True),
  "v5p": Chip(95.74, 459, 2765, 600, 6.25, counts_cores=True, max_chips=6144),
  "v6e": Chip(31.25, 918, 1638, 400, 12.5, flat=True),
  "tpu7x": Chip(94.75, 1153.5, 3690, 300, 6.25, per_chip=2, counts_cores=True, max_chips=9216),
  "cpu": Chip(math.inf, 0, 0, 0, 0, max_chips=1024),
}
