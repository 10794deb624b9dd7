"""The time of a step of a compiled program: bounds by the roofline model, and what is likely.

The best time is that of the slowest part (computing, memory, a network) at the published rates,
with all the others hidden behind it. Arguments are read once, results written once. Real programs
move more. What is likely needs a measured run.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from como_jax.parallel import topology

GIB = topology.GIB
# model FLOP utilization below which a plan warns
LOW = 0.4
_RATES = {"tflops": "compute", "hbm_rate": "memory", "ici_rate": "ici", "dcn_rate": "dcn"}
_UNITS = {"tflops": 1e12, "hbm_rate": 1e9, "ici_rate": 1e9, "dcn_rate": 1e9}


@dataclasses.dataclass(frozen=True)
class Calibration:
  """What was measured on a machine.

  Attributes:
    source: file that says so, and what was measured.
    kind: key of CHIPS.
    mfu: model FLOPs a second of a train step, as a share of the published peak; 0 if not measured.
    rates: measured rates, by the names of Chip's attributes (tflops, hbm_rate, ici_rate, dcn_rate).
  """

  source: str
  kind: str
  mfu: float = 0.0
  rates: Mapping[str, float] = dataclasses.field(default_factory=dict)


def add(
  result: dict[str, Any],
  machine: topology.Topology,
  *,
  model_flops: float,
  unit: str,
  calibration: Calibration | None = None,
) -> None:
  """Adds the operations without recomputation, and times of a step.

  The times are added only if the rates of the machine are known. With low effort (-1) the compiler
  of TPUs keeps nothing on the chip, so "traffic_seconds" is an upper estimate of what memory takes.
  It is None where the traffic is unknown.

  Args:
    result: result of `compiled.measure`, which is changed.
    machine: the machine.
    model_flops: operations without recomputation.
    unit: unit of the examples.
    calibration: of a machine of this kind.
  """
  result["model_flops"] = model_flops
  chip, devices = machine.chip, result["devices"]
  if not chip.tflops or "collectives" not in result:
    return
  published = {name: getattr(chip, name) for name in _RATES}
  amounts = _amounts(result)
  parts = _parts(amounts, published)
  seconds = max(parts.values())
  ideal = model_flops / devices / (chip.tflops * 1e12)  # seconds at the peak
  traffic = (
    max(seconds, result["hbm_bytes"] / (chip.hbm_rate * 1e9))
    if result["hbm_bytes"] is not None
    else None
  )
  result["roofline"] = {
    "seconds": seconds,
    "parts": parts,
    "bound": max(parts, key=lambda name: parts[name]),
    "mfu": ideal / seconds,
    f"{unit}_per_s": result["batch"] / seconds,
    "traffic_seconds": traffic,
    "traffic_mfu": None if traffic is None else ideal / traffic,
    "likely": _likely(amounts, published, ideal, calibration) if calibration else None,
  }


def _amounts(result: dict[str, Any]) -> dict[str, float]:
  """Operations, and bytes through memory and over each network, of a device in a step."""
  memory = result["memory"]
  touched = memory["arguments"] + memory["outputs"] - memory.get("unchanged", 0.0)
  return {
    "compute": result["flops"] / result["devices"],
    "memory": touched * GIB,
    **{wire: sum(row[wire] for row in result["collectives"]) for wire in ("ici", "dcn")},
  }


def _parts(amounts: Mapping[str, float], rates: Mapping[str, float]) -> dict[str, float]:
  """Seconds of each part at these rates."""
  return {part: amounts[part] / (rates[name] * _UNITS[name]) for name, part in _RATES.items()}


def _likely(
  amounts: Mapping[str, float],
  published: Mapping[str, float],
  ideal: float,
  calibration: Calibration,
) -> dict[str, Any]:
  """Range of the time of a step at measured rates, and at the measured utilization if there is one.

  Args:
    amounts: of a device in a step.
    published: rates of the chip.
    ideal: seconds of the operations without recomputation, at the published peak.
    calibration: what was measured.

  Returns:
    {"seconds": [all communication hidden, none hidden], "mfu": [of the second, of the first],
    "source", "measured_mfu"}.
  """
  parts = _parts(amounts, {**published, **calibration.rates})
  if calibration.mfu:  # includes what memory takes
    parts["compute"] = max(parts["compute"], ideal / calibration.mfu)
  wires = parts["ici"] + parts["dcn"]
  seconds = [max(parts.values()), max(parts["compute"], parts["memory"]) + wires]
  return {
    "seconds": seconds,
    "mfu": [ideal / second for second in reversed(seconds)],
    "source": calibration.source,
    "measured_mfu": calibration.mfu or None,
  }


def utilization(roofline: Mapping[str, Any]) -> float:
  """Share of the peak that a step can reach: as measured, else with its traffic, else at best."""
  if roofline["likely"]:
    return roofline["likely"]["mfu"][-1]
  known = roofline["traffic_mfu"]
  return roofline["mfu"] if known is None else known


def warnings(program: Mapping[str, Any]) -> list[str]:
  """What is wrong with the time of a step of a plan; [] where nothing is.

  Args:
    program: a program of a plan. Acting for one robot uses a chip little, so "policy" has none.
  """
  if "roofline" not in program or program["program"] == "policy":
    return []
  roofline, rows = program["roofline"], program["batch_per_device"]
  share = utilization(roofline)
  if share >= LOW:
    return []
  text = (
    f"Low utilization: at most {share:.0%} of the peak, with {rows:g} {program['unit']} a device"
  )
  parts = roofline["parts"]
  others = {name: value for name, value in parts.items() if name != "compute"}
  if roofline["bound"] != "compute":
    enough = least_rows(program)
    text += (
      f"; {roofline['bound']} takes {others[roofline['bound']] * 1e3:.2f} ms of it and computing "
      f"{parts['compute'] * 1e3:.2f}. If that stays as it is, computing is as long from {enough} "
      "a device on"
    )
  elif roofline["traffic_seconds"] and roofline["traffic_seconds"] > roofline["seconds"]:
    text += (
      f"; computing takes {parts['compute'] * 1e3:.2f} ms and all that this program passes through "
      f"memory {roofline['traffic_seconds'] * 1e3:.2f}"
    )
  return [text + "."]


def least_rows(program: Mapping[str, Any]) -> int:
  """Rows of a device from which on computing takes as long as every other part does now."""
  parts = program["roofline"]["parts"]
  longest = max(value for name, value in parts.items() if name != "compute")
  rows = program["batch_per_device"]
  return max(math.ceil(rows), math.ceil(rows * longest / parts["compute"] - 1e-9))
