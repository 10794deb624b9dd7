"""The devices of a run: what they are, and whether they are what the user expects.

JAX goes on with the CPU where a GPU's or TPU's library does not load, so a run can train a hundred
times too slowly without an error.
"""

import collections
import os

import jax

from como_jax import errors


def check(expected: str) -> None:
  """Refuses devices that are not the expected ones.

  Args:
    expected: a kind of device and, after a colon, how many of all processes: "gpu:8", "tpu", "cpu";
      "" = any.

  Raises:
    errors.UserError: names what JAX found.
  """
  if not expected:
    return
  kind, _, count = expected.partition(":")
  try:
    found = jax.devices()
  except RuntimeError as error:
    raise errors.UserError(
      f"--expect={expected}: JAX finds no such device ({str(error).splitlines()[0]})"
    ) from error
  if found[0].platform != kind or count not in ("", str(len(found))):
    raise errors.UserError(
      f"--expect={expected}, but JAX found {describe()}: look for a warning above, at the driver, "
      f"at what is installed, and at JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}"
    )


def describe() -> str:
  """The devices of all processes, for example "8 x NVIDIA H100 80GB HBM3 (gpu), 2 processes"."""
  kinds = collections.Counter((device.device_kind, device.platform) for device in jax.devices())
  parts = [
    f"{count} x {kind}" + (f" ({platform})" if platform != kind.lower() else "")
    for (kind, platform), count in sorted(kinds.items())
  ]
  processes = jax.process_count()
  return ", ".join(parts) + (f", {processes} processes" if processes > 1 else "")
