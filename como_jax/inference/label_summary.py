"""What there is to say of a finished label set."""

from collections.abc import Mapping
from typing import Any

from como_jax.data import shards


def text(manifest: Mapping[str, Any], speed: Mapping[str, Any], *, folder: str) -> str:
  """Describes a label set: damage, frames without a motion, counts, speed.

  Args:
    manifest: of the label set.
    speed: as measured; {} = nothing was labeled.
    folder: of the label set.
  """
  lines = [
    f"damaged: {shards.shard_name(damage['shard'])} clip {damage['clip']} camera "
    f"{damage['camera']}: {damage['frames']} frames cannot be read: {damage['reason']}"
    for damage in manifest["damaged"]
  ]
  lost = {
    f"{manifest['at_end']} at the end of a segment": manifest["at_end"],
    (
      f"{manifest['left_out']} left out (no frame is near enough to "
      f"{manifest['offset_seconds']:g} s later)"
    ): manifest["left_out"],
    f"{manifest['unreadable']} lost with damaged frames": manifest["unreadable"],
  }
  lines.append(
    "frames without a motion (valid = 0): "
    + (", ".join(reason for reason, count in lost.items() if count) or "none")
  )
  measured = speed.get("frames_per_s")
  rate = f", {measured:.1f} frames/s, waited for data {speed['wait_share']:.1%}" if measured else ""
  lines.append(
    f"labels: {manifest['valid']} motions of {manifest['size']} numbers for {manifest['frames']} "
    f"frames, cameras {', '.join(manifest['cameras'])}{rate} -> {folder}"
  )
  return "\n".join(lines)
