"""A plan as Markdown: the verdict first, then tables of memory, operations and collectives."""

from typing import Any

_GIB = 2**30


def text(result: dict[str, Any]) -> str:
  """The page of a plan (the dict that becomes plan.json)."""
  changes = f", {result['changes']}" if result["changes"] else ""
  lines = [
    f"# Plan: {result['of']}{changes} on {result['topology']}",
    "",
    f"`{result['command']}`",
    "",
    result["machine"],
    f"jax {result['versions']['jax']}, compiler effort {result['effort']:g}. Compiled, not run: "
    "no time here was measured but the compiler's.",
    "",
  ]
  for one in result["programs"]:
    lines += (
      [f"## {one['program']} on {one['topology']}", "", verdict(one), ""] + _numbers(one) + [""]
    )
  return "\n".join(lines)


def short(result: dict[str, Any]) -> str:
  """The plan in one table, a row a program, for pages with many plans; sizes are a device's."""
  changes = f", {result['changes']}" if result["changes"] else ""
  columns = (
    "program",
    "devices (mesh)",
    "batch a device",
    "GiB of",
    "TFLOP",
    "with recomputation",
    "least ms of a step (bound)",
    "ms if all memory traffic counts",
    "MFU at most",
    "a second at most",
    "arrays of collectives, MiB",
    "sent over ICI",
    "over DCN",
  )
  lines = [
    f"### {result['topology']}: {result['of']}{changes}",
    "",
    f"`{result['command']}`",
    "",
    "| " + " | ".join(columns) + " |",
    "|" + " --- |" * len(columns),
  ]
  notes = []
  for one in result["programs"]:
    mesh = " x ".join(map(str, one["mesh"].values()))
    memory = one["memory"]
    fits = f"{memory['needed']:.2f}" + (
      f" of {memory['available']:.2f}" if memory["available"] else ""
    )
    fits += ", does not fit" if one["fits"] is False else ""
    row = [
      one["program"],
      f"{one['devices']} ({mesh})",
      f"{one['batch_per_device']:g} {one['unit']}",
      fits,
      f"{one['model_flops'] / one['devices'] / 1e12:.3f}",
      f"{one['flops'] / one['devices'] / 1e12:.3f}",
    ]
    if "roofline" in one:
      roof = one["roofline"]
      row += [
        f"{roof['seconds'] * 1e3:.2f} ({roof['bound']})",
        f"{roof['traffic_seconds'] * 1e3:.2f}",
        f"{roof['mfu']:.0%}",
        f"{one['batch'] / roof['seconds']:,.0f} {one['unit']}",
      ]
    else:
      row += [""] * 4
    row += [
      f"{sum(each[key] for each in one.get('collectives', ())) / 2**20:.1f}"
      for key in ("bytes", "ici", "dcn")
    ]
    lines += ["| " + " | ".join(row) + " |"]
    kinds = ", ".join(
      f"{each['count']} {each['kind']} ({each['bytes'] / 2**20:.1f} MiB)"
      for each in one.get("collectives", ())
    )
    notes += [
      (
        f"{one['program']}: {one['parameters']:,} parameters, {one['trainable']:,} trained; "
        f"collectives: {kinds or 'none'}."
      )
    ]
    if "largest" in one:
      found = one["largest"]
      notes += [
        (
          f"Largest batch of a device that fits (to 1/8): {found['per_device']}, found with "
          f"{found['compiles']} compiles."
        )
      ]
  return "\n".join(lines + [""] + [f"* {note}" for note in notes])


def verdict(one: dict[str, Any]) -> str:
  """Whether it fits and by how much."""
  memory = one["memory"]
  needed, available = memory["needed"], memory["available"]
  if memory["refused"]:
    if not needed:
      return "**Does not fit**: more than the compiler allows."
    return (
      f"**Does not fit**: at least {needed:.2f} of {available:.2f} GiB a device, "
      f"{needed - available:.2f} too much."
    )
  if available is None:
    return f"Needs {needed:.2f} GiB a device; no limit is known for this machine."
  if one["fits"]:
    return f"**Fits**: {needed:.2f} of {available:.2f} GiB a device, {available - needed:.2f} free."
  return (
    f"**Does not fit**: {needed:.2f} of {available:.2f} GiB a device, {needed - available:.2f} "
    "too much."
  )


def _numbers(one: dict[str, Any]) -> list[str]:
  mesh = ", ".join(f"{name} {size}" for name, size in one["mesh"].items())
  rows = [
    ("devices (mesh)", f"{one['devices']} ({mesh})"),
    ("batch, a device", f"{one['batch']}, {one['batch_per_device']:g} {one['unit']}"),
    ("parameters, trained", f"{one['parameters']:,}, {one['trainable']:,}"),
  ]
  memory = one["memory"]
  if not memory["refused"]:
    rows += [
      ("GiB a device: arguments (state, batch)", f"{memory['arguments']:.3f}"),
      ("GiB: temporaries", f"{memory['temporaries']:.3f}"),
      ("GiB: outputs beyond donated arguments", f"{memory['outputs'] - memory['aliased']:.3f}"),
      ("GiB: generated code", f"{memory['code']:.3f}"),
    ]
  model, real = one["model_flops"], one["flops"]
  rows += [
    (
      "TFLOP a step, a device (counted in the trace)",
      f"{model / 1e12:.3f}, {model / one['devices'] / 1e12:.4f}",
    ),
    ("with recomputation, a device", f"{real / 1e12:.3f}, {real / one['devices'] / 1e12:.4f}"),
  ]
  if "hbm_bytes" in one:
    rows += [
      (
        "GiB this program passes through memory, a device (estimate)",
        f"{one['hbm_bytes'] / _GIB:.2f}",
      )
    ]
  if "roofline" in one:
    roof = one["roofline"]
    parts = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in roof["parts"].items())
    rows += [
      (
        "least time of a step, ms",
        f"{roof['seconds'] * 1e3:.2f}, bound by {roof['bound']} ({parts})",
      ),
      ("model FLOP utilization, at most", f"{roof['mfu']:.0%}"),
      (f"{one['unit']}/s, at most", f"{one['batch'] / roof['seconds']:,.0f}"),
      (
        "the same if all its memory traffic takes its time",
        f"{roof['traffic_seconds'] * 1e3:.2f} ms, {roof['traffic_mfu']:.0%}, "
        f"{one['batch'] / roof['traffic_seconds']:,.0f} {one['unit']}/s",
      ),
    ]
  if one.get("loops_unknown"):
    rows += [("loops of unknown length, counted once", str(one["loops_unknown"]))]
  if "largest" in one:
    rows += [
      (
        "largest batch of a device that fits (to 1/8)",
        f"{one['largest']['per_device']} ({one['largest']['compiles']} compiles)",
      )
    ]
  rows += [("compile time here, s", f"{one['compile_seconds']:.0f}")]
  lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
  if one.get("collectives"):
    lines += [
      "",
      "| collectives | a step | MiB of arrays | MiB sent over ICI | MiB sent over DCN |",
      "| --- | --- | --- | --- | --- |",
    ]
    lines += [
      (
        f"| {row['kind']} | {row['count']} | {row['bytes'] / 2**20:.2f} | "
        f"{row['ici'] / 2**20:.2f} | {row['dcn'] / 2**20:.2f} |"
      )
      for row in one["collectives"]
    ]
  elif "collectives" in one:
    lines += ["", "No collectives."]
  return lines
