"""What was measured on a machine, for the plans of machines of this kind.

A calibration is a run of mae, motion or policy (its folder, or its metrics.jsonl), a page of
benchmarks/train_step.py, or a JSON file with measured rates:

  {"chip": "h100", "source": "...", "mfu": 0.4, "tflops": 700, "hbm_rate": 3000}

of which all numbers are optional: mfu (model FLOPs a second of a train step, as a share of the
published peak), tflops (1e12/s), hbm_rate, ici_rate, dcn_rate (GB/s).
"""

import json
import pathlib
import re
from typing import Any

from como_jax import config as config_lib
from como_jax import errors
from como_jax.assembly import programs
from como_jax.parallel import chips, flops, roofline, topology

_RATES = ("tflops", "hbm_rate", "ici_rate", "dcn_rate")
_DEVICES = re.compile(r"(\d+) x (.+?) \((?:gpu|tpu|cpu)\)")
_UNIT = "_per_s"


def read(path: str, machine: topology.Topology) -> roofline.Calibration:
  """Reads a calibration.

  Args:
    path: of the file or the folder of a run.
    machine: that is planned.

  Raises:
    errors.UserError: it does not say what was measured, or on another kind of device.
  """
  where = f"config.calibration={path}"
  file = pathlib.Path(path)
  if file.is_dir() or file.name == "metrics.jsonl":
    found = _run(file if file.is_dir() else file.parent, where)
  elif file.suffix == ".md":
    found = _page(file, where)
  elif file.suffix == ".json":
    found = _rates(file, where)
  else:
    raise errors.UserError(
      f"{where}: the folder of a run, its metrics.jsonl, a page of benchmarks/train_step.py (.md) "
      "or a .json is expected"
    )
  if found.kind != machine.kind:
    raise errors.UserError(
      f"{where}: it was measured on {found.kind}, the plan is for {machine.kind}"
    )
  return found


def _kind(text: str, where: str) -> tuple[int, str]:
  """Number of devices and their key of CHIPS, of a text like "8 x NVIDIA H200 (gpu), ..."."""
  match = _DEVICES.search(text)
  kind = chips.kind(match[2]) if match else ""
  if not match or not kind:
    known = [device for chip in chips.CHIPS.values() for device in chip.devices]
    raise errors.UserError(
      f"{where}: no peak is known of the devices {match[2] if match else text.strip()[:100]!r} "
      f"that it was measured on: {errors.nearest(match[2] if match else text[:100], known)}"
    )
  return int(match[1]), kind


def _run(folder: pathlib.Path, where: str) -> roofline.Calibration:
  """The utilization of a run: its last logged rate, without the time spent waiting for data."""
  texts = {}
  for name in ("versions.json", "config.json", "metrics.jsonl"):
    try:
      texts[name] = (folder / name).read_text()
    except OSError as error:
      raise errors.UserError(
        f"{where}: {folder} has no readable {name}: no run's folder"
      ) from error
  try:
    hardware = json.loads(texts["versions.json"])["hardware"]["devices"]
    config = config_lib.ConfigDict(json.loads(texts["config.json"]))
    rows = [json.loads(line) for line in texts["metrics.jsonl"].splitlines() if line.strip()]
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(f"{where}: the run's files cannot be read: {error!r}") from error
  count, kind = _kind(hardware, where)
  programs.check(config)
  logged = [row for row in rows if row.get("kind") == "train" and _rate(row)]
  if not logged:
    raise errors.UserError(f"{where}: metrics.jsonl has no row of training with a rate")
  name, rate = _rate(logged[-1])
  waited = min(0.999, logged[-1].get("wait_share", 0.0))
  try:
    pairs = config.data.frames - 1 if config.task == "motion" else 1
    batch = config.train.batch_size
    config.train.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    one = topology.parse("cpu-1")
    useful = programs.train(config, one, batch_size=batch, useful=True).trace().jaxpr
  except (AttributeError, KeyError, TypeError) as error:
    raise errors.UserError(
      f"{where}: config.json is not of this version of the program: {error}"
    ) from error
  steps_per_s = rate / (batch * pairs) / (1 - waited)
  mfu = flops.count(useful) * steps_per_s / count / (chips.CHIPS[kind].tflops * 1e12)
  return roofline.Calibration(
    f"{folder}: step {logged[-1]['step']}, {rate:,.1f} {name.removesuffix(_UNIT)}/s on {hardware}, "
    f"{waited:.0%} of the time spent waiting for data not counted",
    kind,
    mfu,
  )


def _rate(row: dict[str, Any]) -> Any:
  """Name and value of the rate of a row of metrics; None without one."""
  return next(((key, row[key]) for key in row if key.endswith(_UNIT) and row[key]), None)


def _page(file: pathlib.Path, where: str) -> roofline.Calibration:
  """The best bfloat16 row of ours on a page of benchmarks/train_step.py, and matrix products."""
  text = file.read_text()
  count, kind = _kind(
    next((line for line in text.splitlines() if _DEVICES.search(line)), ""), where
  )
  best, products = 0.0, 0.0
  for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
    lines = section.splitlines()
    match = re.search(r"Matrix products reach ([\d.,]+) GFLOP/s in jax", section)
    header = next((line for line in lines if "| GFLOP/s |" in line), "")
    row = next((line for line in lines if line.startswith("| como_jax |")), "")
    if not lines[0].startswith("bfloat16") or not header or not row:
      continue
    column = [cell.strip() for cell in header.split("|")].index("GFLOP/s")
    best = max(best, float(row.split("|")[column].replace(",", "")))
    products = max(products, float(match[1].replace(",", "")) if match else 0.0)
  if not best:
    raise errors.UserError(
      f"{where}: no row 'como_jax' with GFLOP/s in a section of bfloat16: a page of "
      "benchmarks/train_step.py is expected"
    )
  peak = chips.CHIPS[kind].tflops
  return roofline.Calibration(
    f"{file}: {best:,.0f} GFLOP/s of a train step in bfloat16 on one of {count} x {kind}",
    kind,
    best / 1e3 / peak,
    {"tflops": products / 1e3} if products else {},
  )


def _rates(file: pathlib.Path, where: str) -> roofline.Calibration:
  """Rates of a JSON file."""
  try:
    given = json.loads(file.read_text())
  except ValueError as error:
    raise errors.UserError(f"{where}: no JSON: {error}") from error
  keys = ("chip", "source", "mfu", *_RATES)
  for key in given if isinstance(given, dict) else ["a list"]:
    if key not in keys:
      raise errors.UserError(f"{where}: {key!r} is unknown: {errors.nearest(str(key), keys)}")
  kind = given.get("chip")
  if kind not in chips.CHIPS:
    raise errors.UserError(
      f"{where}: chip {kind!r} is unknown: {errors.nearest(str(kind), chips.CHIPS)}"
    )
  numbers = {key: given[key] for key in ("mfu", *_RATES) if key in given}
  for key, value in numbers.items():
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
      raise errors.UserError(f"{where}: {key}={value!r}, expected a number above 0")
  mfu = numbers.pop("mfu", 0.0)
  if mfu > 1 or not (mfu or numbers):
    raise errors.UserError(
      f"{where}: expected mfu of at most 1, or a rate ({', '.join(_RATES)}); found mfu={mfu}"
    )
  return roofline.Calibration(f"{file}: {given.get('source', 'no source')}", kind, mfu, numbers)
