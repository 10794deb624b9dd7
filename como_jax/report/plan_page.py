"""Formats a plan as Markdown: the verdict, then tables of memory, operations and collectives."""

from typing import Any

_GIB = 2**30


def text(result: dict[str, Any]) -> str:
  """Formats the page of a plan (the dict that is written to plan.json)."""
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
  for program in result["programs"]:
    lines += (
      [f"## {program['program']} on {program['topology']}", "", verdict(program), ""]
      + _tables(program)
      + [""]
    )
  return "\n".join(lines)


def short(result: dict[str, Any]) -> str:
  """Formats a plan as one table, for pages with many plans; a row is a program.

  Sizes are those of one device.
  """
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
  for program in result["programs"]:
    lines += ["| " + " | ".join(_short_row(program)) + " |"]
    notes += _notes(program)
  return "\n".join(lines + [""] + [f"* {note}" for note in notes])


def _short_row(program: dict[str, Any]) -> list[str]:
  """Cells of a program in the table of `short`."""
  mesh = " x ".join(map(str, program["mesh"].values()))
  memory = program["memory"]
  fits = f"{memory['needed']:.2f}" + (
    f" of {memory['available']:.2f}" if memory["available"] else ""
  )
  fits += ", does not fit" if program["fits"] is False else ""
  row = [
    program["program"],
    f"{program['devices']} ({mesh})",
    f"{program['batch_per_device']:g} {program['unit']}",
    fits,
    f"{program['model_flops'] / program['devices'] / 1e12:.3f}",
    f"{program['flops'] / program['devices'] / 1e12:.3f}",
  ]
  if "roofline" in program:
    roofline = program["roofline"]
    row += [
      f"{roofline['seconds'] * 1e3:.2f} ({roofline['bound']})",
      f"{roofline['traffic_seconds'] * 1e3:.2f}",
      f"{roofline['mfu']:.0%}",
      f"{program['batch'] / roofline['seconds']:,.0f} {program['unit']}",
    ]
  else:
    row += [""] * 4
  row += [
    f"{sum(collective[key] for collective in program.get('collectives', ())) / 2**20:.1f}"
    for key in ("bytes", "ici", "dcn")
  ]
  return row


def _notes(program: dict[str, Any]) -> list[str]:
  """Notes on a program below the table of `short`."""
  kinds = ", ".join(
    f"{collective['count']} {collective['kind']} ({collective['bytes'] / 2**20:.1f} MiB)"
    for collective in program.get("collectives", ())
  )
  notes = [
    (
      f"{program['program']}: {program['parameters']:,} parameters, "
      f"{program['trainable']:,} trained; collectives: {kinds or 'none'}."
    )
  ]
  if "largest" in program:
    largest = program["largest"]
    notes += [
      (
        f"Largest batch of a device that fits (to 1/8): {largest['per_device']}, found with "
        f"{largest['compiles']} compiles."
      )
    ]
  return notes


def verdict(program: dict[str, Any]) -> str:
  """Whether a program fits into memory, and how much memory is free or missing."""
  memory = program["memory"]
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
  if program["fits"]:
    return f"**Fits**: {needed:.2f} of {available:.2f} GiB a device, {available - needed:.2f} free."
  return (
    f"**Does not fit**: {needed:.2f} of {available:.2f} GiB a device, {needed - available:.2f} "
    "too much."
  )


def _tables(program: dict[str, Any]) -> list[str]:
  mesh = ", ".join(f"{name} {size}" for name, size in program["mesh"].items())
  rows = [
    ("devices (mesh)", f"{program['devices']} ({mesh})"),
    ("batch, a device", f"{program['batch']}, {program['batch_per_device']:g} {program['unit']}"),
    ("parameters, trained", f"{program['parameters']:,}, {program['trainable']:,}"),
  ]
  memory = program["memory"]
  if not memory["refused"]:
    rows += [
      ("GiB a device: arguments (state, batch)", f"{memory['arguments']:.3f}"),
      ("GiB: temporaries", f"{memory['temporaries']:.3f}"),
      ("GiB: outputs beyond donated arguments", f"{memory['outputs'] - memory['aliased']:.3f}"),
      ("GiB: generated code", f"{memory['code']:.3f}"),
    ]
  model_flops, flops = program["model_flops"], program["flops"]
  rows += [
    (
      "TFLOP a step, a device (counted in the trace)",
      f"{model_flops / 1e12:.3f}, {model_flops / program['devices'] / 1e12:.4f}",
    ),
    (
      "with recomputation, a device",
      f"{flops / 1e12:.3f}, {flops / program['devices'] / 1e12:.4f}",
    ),
  ]
  if "hbm_bytes" in program:
    rows += [
      (
        "GiB this program passes through memory, a device (estimate)",
        f"{program['hbm_bytes'] / _GIB:.2f}",
      )
    ]
  if "roofline" in program:
    rows += _roofline(program)
  if program.get("loops_unknown"):
    rows += [("loops of unknown length, counted once", str(program["loops_unknown"]))]
  if "largest" in program:
    rows += [
      (
        "largest batch of a device that fits (to 1/8)",
        f"{program['largest']['per_device']} ({program['largest']['compiles']} compiles)",
      )
    ]
  rows += [("compile time here, s", f"{program['compile_seconds']:.0f}")]
  lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
  return lines + _collectives(program)


def _roofline(program: dict[str, Any]) -> list[tuple[str, str]]:
  """Rows about the time of a step: the bounds of the roofline model."""
  roofline = program["roofline"]
  parts = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in roofline["parts"].items())
  return [
    (
      "least time of a step, ms",
      f"{roofline['seconds'] * 1e3:.2f}, bound by {roofline['bound']} ({parts})",
    ),
    ("model FLOP utilization, at most", f"{roofline['mfu']:.0%}"),
    (f"{program['unit']}/s, at most", f"{program['batch'] / roofline['seconds']:,.0f}"),
    (
      "the same if all its memory traffic takes its time",
      f"{roofline['traffic_seconds'] * 1e3:.2f} ms, {roofline['traffic_mfu']:.0%}, "
      f"{program['batch'] / roofline['traffic_seconds']:,.0f} {program['unit']}/s",
    ),
  ]


def _collectives(program: dict[str, Any]) -> list[str]:
  """Lines of the table of collectives."""
  if program.get("collectives"):
    lines = [
      "",
      "| collectives | a step | MiB of arrays | MiB sent over ICI | MiB sent over DCN |",
      "| --- | --- | --- | --- | --- |",
    ]
    lines += [
      (
        f"| {row['kind']} | {row['count']} | {row['bytes'] / 2**20:.2f} | "
        f"{row['ici'] / 2**20:.2f} | {row['dcn'] / 2**20:.2f} |"
      )
      for row in program["collectives"]
    ]
    return lines
  return ["", "No collectives."] if "collectives" in program else []
