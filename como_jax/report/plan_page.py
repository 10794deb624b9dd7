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
    f"{versions(result)}, compiler effort {result['effort']:g}. Compiled, not run: no time here "
    "was measured but the compiler's.",
    "",
  ]
  if any(program.get("estimated") for program in result["programs"]):
    lines[-1:] = [ESTIMATED, ""]
  for program in result["programs"]:
    lines += (
      [f"## {program['program']} on {program['topology']}", "", verdict(program), ""]
      + _tables(program)
      + _advice(program)
      + [""]
    )
  return "\n".join(lines)


ESTIMATED = (
  "CPU devices stood in for the GPUs, whose compiler is not here: temporaries are an estimate "
  "(from the compiler of CPUs), collectives are those of the partitioned program, before a GPU's "
  "compiler combines them, and the traffic through memory is unknown."
)
UNKNOWN = "unknown: no measured run of such a machine is given (config.calibration)"


def versions(result: dict[str, Any]) -> str:
  """The versions of jax, jaxlib and the compiler of TPUs that made a plan."""
  return ", ".join(
    f"{name} {result['versions'][name] or 'of unknown version'}"
    for name in ("jax", "jaxlib", "libtpu")
    if name in result["versions"]
  )


def likely(roofline: dict[str, Any]) -> str:
  """The likely time of a step, ms; "unknown" without a measured run."""
  if not roofline["likely"]:
    return "unknown"
  least, most = (f"{seconds * 1e3:.2f}" for seconds in roofline["likely"]["seconds"])
  return least if least == most else f"{least} to {most}"


def _shares(roofline: dict[str, Any]) -> str:
  """The likely share of the peak."""
  if not roofline["likely"]:
    return "unknown"
  least, most = (f"{share:.0%}" for share in roofline["likely"]["mfu"])
  return least if least == most else f"{least} to {most}"


def _rates(program: dict[str, Any]) -> str:
  """The likely number of examples a second."""
  if not program["roofline"]["likely"]:
    return "unknown"
  seconds = program["roofline"]["likely"]["seconds"]
  least, most = (f"{program['batch'] / second:,.0f}" for second in reversed(seconds))
  return least if least == most else f"{least} to {most}"


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
    "best ms of a step (bound)",
    "likely ms",
    "ms if all memory traffic counts",
    "MFU at best",
    "a second at best",
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
    traffic = roofline["traffic_seconds"]
    row += [
      f"{roofline['seconds'] * 1e3:.2f} ({roofline['bound']})",
      likely(roofline),
      "unknown" if traffic is None else f"{traffic * 1e3:.2f}",
      f"{roofline['mfu']:.0%}",
      f"{program['batch'] / roofline['seconds']:,.0f} {program['unit']}",
    ]
  else:
    row += [""] * 5
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
  return notes + program.get("warnings", [])


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
    fits = "Fits, by an estimate" if program.get("estimated") else "Fits"
    return (
      f"**{fits}**: {needed:.2f} of {available:.2f} GiB a device, {available - needed:.2f} free."
    )
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
      ("GiB: outputs that are arguments unchanged (not written)", f"{memory['unchanged']:.3f}"),
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
  if program.get("hbm_bytes") is not None:
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
  """Rows about the time of a step: the best by the roofline model, and the likely one."""
  roofline = program["roofline"]
  parts = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in roofline["parts"].items())
  found = roofline["likely"]
  rows = [
    (
      "best time of a step, ms (all parts overlap)",
      f"{roofline['seconds'] * 1e3:.2f}, bound by {roofline['bound']} ({parts})",
    ),
    (
      "likely time of a step, ms (all communication hidden, or none)",
      f"{likely(roofline)}, by {found['source']}"
      + (f" ({found['measured_mfu']:.1%} of the peak)" if found["measured_mfu"] else "")
      if found
      else UNKNOWN,
    ),
    ("model FLOP utilization", f"best {roofline['mfu']:.0%}, likely {_shares(roofline)}"),
    (
      f"{program['unit']}/s",
      f"best {program['batch'] / roofline['seconds']:,.0f}, likely {_rates(program)}",
    ),
  ]
  if roofline["traffic_seconds"] is not None:
    rows += [
      (
        "the best if all its memory traffic takes its time",
        f"{roofline['traffic_seconds'] * 1e3:.2f} ms, {roofline['traffic_mfu']:.0%}, "
        f"{program['batch'] / roofline['traffic_seconds']:,.0f} {program['unit']}/s",
      )
    ]
  return rows


def _advice(program: dict[str, Any]) -> list[str]:
  """The warnings of a program, and what was proposed against them."""
  lines = []
  for warning in program.get("warnings", ()):
    lines += ["", f"**{warning}**"]
  if program.get("proposals"):
    lines += ["", *_proposals(program["proposals"])]
  elif lines and program["program"] == "train":
    lines += [
      "",
      "`--config.proposals=true` compiles other batches, machines, meshes and clips beside it.",
    ]
  return lines


def _proposals(proposals: list[dict[str, Any]]) -> list[str]:
  """The table of proposals; another batch is another run, with another learning rate."""
  columns = ("one change", "devices (mesh)", "batch", "a device", "GiB of", "best ms (bound)")
  columns += ("likely ms", "utilization at most", "pairs or examples/s at best")
  rows = []
  for one in proposals:
    memory, row = one["memory"], [one["change"]]
    row += [
      f"{one['devices']} ({' x '.join(map(str, one['mesh'].values()))})",
      str(one["batch"]),
      f"{one['batch_per_device']:g}",
      f"{memory['needed']:.2f} of {memory['available']:.2f}"
      + (", does not fit" if one["fits"] is False else ""),
    ]
    if "roofline" in one:
      times = one["roofline"]
      row += [
        f"{times['seconds'] * 1e3:.2f} ({times['bound']})",
        likely(times),
        f"{one['utilization']:.0%}",
        f"{one['examples_per_s']:,.0f}",
      ]
    else:
      row += [""] * 4
    rows.append("| " + " | ".join(row) + " |")
  head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
  return [
    "What one change would give, compiled like the plan. Utilization is with the likely time, else "
    "with its memory traffic, else at best. Another batch needs another learning rate.",
    "",
    *head,
    *rows,
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
