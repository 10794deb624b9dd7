"""What a run makes of its devices: the share of their peak rate (MFU), and their memory."""

from collections.abc import Callable, Sequence
from typing import Any

from como_jax.parallel import chips, flops
from como_jax.train import memory


def peak(device_kind: str) -> float | None:
  """Peak rate of a device in operations per second (bfloat16); None where it is unknown."""
  chip = chips.CHIPS.get(chips.kind(device_kind))
  return chip.tflops * 1e12 if chip is not None and chip.tflops else None


class Utilization:
  """MFU and memory of a run's devices.

  Attributes:
    remark: why there is no MFU; "" where there is one.
  """

  def __init__(
    self,
    trace: Callable[[], Any] | None = None,
    devices: Sequence[memory.Device] = (),
    *,
    count: int = 1,
  ):
    """Counts the operations of a step, where the peak rate of the devices is known.

    Args:
      trace: gives the `jax.stages.Traced` of a step that repeats no operation; None: nothing is
        counted.
      devices: of this process; (): nothing is measured.
      count: devices of all processes.
    """
    self._devices, self.remark = devices, ""
    self._seconds_at_peak: float | None = None  # of a step
    if trace is None or not devices:
      return
    rate = peak(devices[0].device_kind)
    if rate is None:
      self.remark = (
        f"no MFU: the peak rate of {devices[0].device_kind!r} is not known (parallel/chips.py)"
      )
      return
    self._seconds_at_peak = flops.count(trace().jaxpr) / (rate * count)

  def scalars(self, steps_per_s: float) -> dict[str, float]:
    """MFU at a speed, and the most memory in GiB that a device uses now and has used.

    Args:
      steps_per_s: 0 where it is not known yet; then the MFU is left out.
    """
    result = {}
    if self._seconds_at_peak is not None and steps_per_s:
      result["mfu"] = self._seconds_at_peak * steps_per_s
    stats = [stats for device in self._devices if (stats := device.memory_stats())]
    for name, key in (("hbm_gib", "bytes_in_use"), ("hbm_peak_gib", "peak_bytes_in_use")):
      used = [one[key] for one in stats if key in one]
      if used:
        result[name] = max(used) / memory.GIB
    return result
