"""A plan as Markdown: the verdict first, then tables of memory, operations and collectives."""

from typing import Any

_GIB = 2**30


def text(result: dict[str, Any]) -> str:
  """The page of a plan (the dict that becomes plan.json)."""
  changes = f", {result['changes']}" if result["changes"] else ""
  lines = [f"# Plan: {result['of']}{changes} on {result['topology']}", "", f"`{result['command']}`", "", result["machine"],
           f"jax {result['versions']['jax']}, compiler effort {result['effort']:g}. Compiled, not run: no time here was measured but the "
           "compiler's.", ""]
  for one in result["programs"]:
    lines += [f"## {one['program']} on {one['topology']}", "", verdict(one), ""] + _numbers(one) + [""]
  return "\n".join(lines)


def verdict(one: dict[str, Any]) -> str:
  """Whether it fits and by how much."""
  memory = one["memory"]
  needed, available = memory["needed"], memory["available"]
  if memory["refused"]:
    if not needed:
      return "**Does not fit**: more than the compiler allows."
    return f"**Does not fit**: at least {needed:.2f} of {available:.2f} GiB a device, {needed - available:.2f} too much."
  if available is None:
    return f"Needs {needed:.2f} GiB a device; no limit is known for this machine."
  if one["fits"]:
    return f"**Fits**: {needed:.2f} of {available:.2f} GiB a device, {available - needed:.2f} free."
  return f"**Does not fit**: {needed:.2f} of {available:.2f} GiB a device, {needed - available:.2f} too much."


def _numbers(one: dict[str, Any]) -> list[str]:
  mesh = ", ".join(f"{name} {size}" for name, size in one["mesh"].items())
  rows = [("devices (mesh)", f"{one['devices']} ({mesh})"), ("batch, a device", f"{one['batch']}, {one['batch_per_device']:g} {one['unit']}"),
          ("parameters, trained", f"{one['parameters']:,}, {one['trainable']:,}")]
  memory = one["memory"]
  if not memory["refused"]:
    rows += [("GiB a device: arguments (state, batch)", f"{memory['arguments']:.3f}"), ("GiB: temporaries", f"{memory['temporaries']:.3f}"),
             ("GiB: outputs beyond donated arguments", f"{memory['outputs'] - memory['aliased']:.3f}"),
             ("GiB: generated code", f"{memory['code']:.3f}")]
  model, real = one["model_flops"], one["flops"]
  rows += [("TFLOP a step, a device (counted in the trace)", f"{model / 1e12:.3f}, {model / one['devices'] / 1e12:.4f}"),
           ("with recomputation, a device", f"{real / 1e12:.3f}, {real / one['devices'] / 1e12:.4f}")]
  if "hbm_bytes" in one:
    rows += [("GiB this program passes through memory, a device (estimate)", f"{one['hbm_bytes'] / _GIB:.2f}")]
  if "roofline" in one:
    roof = one["roofline"]
    parts = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in roof["parts"].items())
    rows += [("least time of a step, ms", f"{roof['seconds'] * 1e3:.2f}, bound by {roof['bound']} ({parts})"),
             ("model FLOP utilisation, at most", f"{roof['mfu']:.0%}"), (f"{one['unit']}/s, at most", f"{one['batch'] / roof['seconds']:,.0f}"),
             ("the same if all its memory traffic takes its time", f"{roof['traffic_seconds'] * 1e3:.2f} ms, {roof['traffic_mfu']:.0%}, "
              f"{one['batch'] / roof['traffic_seconds']:,.0f} {one['unit']}/s")]
  if one.get("loops_unknown"):
    rows += [("loops of unknown length, counted once", str(one["loops_unknown"]))]
  if "largest" in one:
    rows += [("largest batch of a device that fits (to 1/8)", f"{one['largest']['per_device']} ({one['largest']['compiles']} compiles)")]
  rows += [("compile time here, s", f"{one['compile_seconds']:.0f}")]
  lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
  if one.get("collectives"):
    lines += ["", "| collectives | a step | MiB of arrays | MiB sent over ICI | MiB sent over DCN |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {row['kind']} | {row['count']} | {row['bytes'] / 2**20:.2f} | {row['ici'] / 2**20:.2f} | {row['dcn'] / 2**20:.2f} |"
              for row in one["collectives"]]
  elif "collectives" in one:
    lines += ["", "No collectives."]
  return lines
