"""Draws the map of the packages and writes it into the page on the architecture.

python docs/tools/package_map.py [--check]

The arrows are the imports that the source really has. Each of them must stand in the table of
tests/test_architecture.py, which says what is allowed. The drawing leaves out what every part may
import (errors, trees) and each arrow that a longer way implies; the table on the page has all of
them.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PICTURE, PAGE = ROOT / "docs/assets/packages.svg", ROOT / "docs/architecture.md"
BEGIN, END = "<!-- package map: begin -->", "<!-- package map: end -->"
COMMON = ("errors", "trees")
NOTES = {
  "__main__": "python -m como_jax",
  "main": "flags, exit codes",
  "tasks": "what a config can run",
  "assembly": "from a config to objects",
  "config": "configs, flags",
  "settings": "what a key may hold",
  "model_presets": "sizes of models",
  "interrupt": "Ctrl-C, SIGTERM",
  "data": "formats, batches",
  "models": "Flax modules",
  "objectives": "losses",
  "evaluate": "metrics",
  "exam": "motion or appearance?",
  "parallel": "meshes, processes",
  "train": "step, loop, checkpoints",
  "sim": "simulators",
  "report": "pages, plots",
  "serve": "policy server, client",
  "language": "instructions to vectors",
  "convert": "published weights",
  "weights": "safetensors files",
  "chunks": "temporal ensemble",
  "cli": "como-jax",
  "commands": "names of commands",
  "inference": "labels, evaluators",
  "quickstart": "stages and products",
  "observations": "names of observations",
  "stages": "resumable stages",
  "storage": "files and objects",
  "units": "work shared by leases",
  "errors": "one-line messages",
  "trees": "named pytrees",
}
WIDTH, HEIGHT, GAP, RISE, MARGIN = 140, 46, 34, 44, 12
MOST = 5  # boxes beside each other

Arrows = Mapping[str, set[str]]


def real_arrows() -> dict[str, set[str]]:
  """Part -> parts that it imports, read from the source.

  Raises:
    SystemExit: an import that the table of the tests does not allow.
  """
  sys.path.insert(0, str(ROOT))
  from tests import test_architecture as table

  found: dict[str, set[str]] = {name: set() for name in table.ARROWS}
  for path in table.FILES:
    here = table.part(path)
    for name in table.imports(path):
      top, _, rest = name.partition(".")
      target = rest.partition(".")[0]
      if top == "como_jax" and target in table.ARROWS and target != here:
        found[here].add(target)
  for here, targets in found.items():
    if targets - table.ARROWS[here]:
      sys.exit(f"error: {here} imports {sorted(targets - table.ARROWS[here])}: not allowed")
  return found


def drawn(arrows: Arrows) -> list[tuple[str, str]]:
  """The arrows of the picture: those that no longer way implies, without the common parts."""
  kept = {name: targets - set(COMMON) for name, targets in arrows.items() if name not in COMMON}
  reach: dict[str, set[str]] = {}

  def below(name: str) -> set[str]:
    if name not in reach:
      reach[name] = set().union(kept[name], *(below(one) for one in kept[name]))
    return reach[name]

  return sorted(
    (name, target)
    for name, targets in kept.items()
    for target in targets
    if not any(target in below(other) for other in targets - {target})
  )


def layers(arrows: list[tuple[str, str]], names: list[str]) -> list[list[str]]:
  """Parts by the longest way from the top, topmost first; a long row becomes two."""
  depth: dict[str, int] = {}

  def of(name: str) -> int:
    if name not in depth:
      depth[name] = 1 + max((of(a) for a, b in arrows if b == name), default=-1)
    return depth[name]

  rows: list[list[str]] = []
  for level in range(1 + max(map(of, names))):
    row = [name for name in names if of(name) == level]
    # those that import others stand in the lower half
    row.sort(key=lambda name: any(a == name for a, _ in arrows))
    count = -(-len(row) // MOST)
    size = -(-len(row) // count)
    rows += [row[i : i + size] for i in range(0, len(row), size)]
  return rows


def order(rows: list[list[str]], arrows: list[tuple[str, str]]) -> list[list[str]]:
  """The same rows, each part near those that it is joined with."""
  joined: dict[str, list[str]] = {name: [] for row in rows for name in row}
  for a, b in arrows:
    joined[a].append(b)
    joined[b].append(a)
  place = {name: i - (len(row) - 1) / 2 for row in rows for i, name in enumerate(row)}
  for _ in range(8):
    for number, row in enumerate(rows):
      center = {
        name: sum(place[one] for one in joined[name]) / max(1, len(joined[name])) for name in row
      }
      rows[number] = sorted(row, key=lambda name, center=center: (center[name], name))
      place |= {name: i - (len(row) - 1) / 2 for i, name in enumerate(rows[number])}
  return rows


def places(rows: list[list[str]], arrows: list[tuple[str, str]]) -> dict[str, tuple[float, int]]:
  """Part -> (center in boxes from the middle, row).

  Short rows move by half a box, or more, where an arrow that passes them would else run through one
  of their boxes.
  """
  level = {name: number for number, row in enumerate(rows) for name in row}
  jumps = [(a, b) for a, b in arrows if level[b] - level[a] > 1]

  def at(shifts: Sequence[float]) -> dict[str, tuple[float, int]]:
    return {
      name: (i - (len(row) - 1) / 2 + shifts[number], number)
      for number, row in enumerate(rows)
      for i, name in enumerate(row)
    }

  def cost(shifts: Sequence[float]) -> float:
    place = at(shifts)
    through = sum(
      abs(place[b][0] - place[name][0]) < 0.5
      for a, b in jumps
      for number in range(level[a] + 1, level[b])
      for name in rows[number]
    )
    return through + 0.01 * sum(map(abs, shifts))

  choices = [(0.0, -0.5, 0.5) if len(row) < MOST else (0.0,) for row in rows]
  best = list(min(itertools.product(*choices), key=cost))
  for number, row in enumerate(rows):  # then each alone, as far as the page is wide
    further = [step / 2 for step in range(len(row) - MOST, MOST - len(row) + 1)]
    tried = [[*best[:number], shift, *best[number + 1 :]] for shift in further]
    best = min([best, *tried], key=cost)
  return at(best)


def picture(arrows: Arrows) -> str:
  """The map as SVG, readable on a light and on a dark page."""
  shown = drawn(arrows)
  rows = order(layers(shown, [name for name in arrows if name not in COMMON]), shown)
  rows.append(list(COMMON))
  total = 2 * MARGIN + MOST * WIDTH + (MOST - 1) * GAP
  high = 2 * MARGIN + len(rows) * HEIGHT + (len(rows) - 1) * RISE
  place = places(rows, shown)
  corner = {
    name: (total / 2 + x * (WIDTH + GAP) - WIDTH / 2, MARGIN + row * (HEIGHT + RISE))
    for name, (x, row) in place.items()
  }
  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {high}" role="img" '
    'font-family="Helvetica, Arial, sans-serif">',
    "<title>The packages of como_jax and their imports</title>",
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#7c8aa5"/></marker></defs>',
    '<g fill="none" stroke="#7c8aa5" stroke-width="1.4" marker-end="url(#tip)">',
  ]
  for name, target in shown:
    x1, y1 = corner[name][0] + WIDTH / 2, corner[name][1] + HEIGHT
    x2, y2 = corner[target][0] + WIDTH / 2, corner[target][1] - 2
    y = y1 + RISE - 4  # all of the way aside is made above the next row
    lines.append(
      f'<path data-from="{name}" data-to="{target}" d="M{x1:g} {y1:g} C{x1:g} {y1 + 24:g} '
      f'{x2:g} {y - 26:g} {x2:g} {y:g} V{y2:g}"/>'
    )
  lines.append("</g>")
  for name, (x, y) in corner.items():
    fill = "#fdebc8" if name in COMMON else "#dbe7ff"
    lines += [
      f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="{fill}" '
      'stroke="#4a5b80"/>',
      f'<text x="{x + WIDTH / 2:g}" y="{y + 20:g}" text-anchor="middle" font-size="15" '
      f'font-weight="bold" fill="#16213a">{name}</text>',
      f'<text x="{x + WIDTH / 2:g}" y="{y + 36:g}" text-anchor="middle" font-size="11" '
      f'fill="#33415f">{NOTES[name]}</text>',
    ]
  return "\n".join([*lines, "</svg>", ""])


def table(arrows: Arrows) -> str:
  """The table of all arrows, as the page has it."""
  rows = ["| part | holds | imports |", "| --- | --- | --- |"]
  for name in sorted(arrows):
    imported = ", ".join(f"`{one}`" for one in sorted(arrows[name])) or "nothing"
    rows.append(f"| `{name}` | {NOTES[name]} | {imported} |")
  return "\n".join(rows)


def page(text: str, arrows: Arrows) -> str:
  """The page with its table made anew."""
  before, _, rest = text.partition(BEGIN)
  _, _, after = rest.partition(END)
  return f"{before}{BEGIN}\n\n{table(arrows)}\n\n{END}{after}"


def main() -> None:
  """Draws the map, or checks it."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--check", action="store_true", help="writes nothing, 1 where it would")
  check = parser.parse_args().check
  arrows = real_arrows()
  wanted = {PICTURE: picture(arrows), PAGE: page(PAGE.read_text(), arrows)}
  old = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
  for path in old:
    print(f"{path.relative_to(ROOT)}: {'is old' if check else 'written'}")
    if not check:
      path.write_text(wanted[path])
  sys.exit(check and bool(old))


if __name__ == "__main__":
  main()
