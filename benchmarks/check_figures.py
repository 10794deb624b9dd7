"""Finds every figure that is claimed in a file of results: exit code 1 and FILE:LINE with those
that are in none.

python benchmarks/check_figures.py
Claims are made by README.md, the READMEs in como_jax, what the pages of benchmarks/results that
README links say under headings that begin with "What" or "Not", and the fixed sentences of
como_jax/report. A figure is a number with a unit (%, points, s, ms, minutes, MiB, times, tests,
pairs/s ..), a number with two decimals or more, and the limits of an interval. It is found where a
record (the other parts of the pages, their JSON files, tests/last_run.json) has that number,
rounded as it is claimed, with that unit, in a table's column or sentence. A paragraph that links
pages is looked up in those, what a page says in that page.

Sentences that compare (better, more than, helps ..) in README and the pages of COMPARED need a
number of runs, episodes or windows and an interval in the same paragraph or list item.

benchmarks/figures.md holds what is no measurement: one row each with file, figure or words, and
source. A source that begins with "=" is arithmetic on numbers of the records, for example "= 1 -
655.4 / 701.8".
"""

import argparse
import ast
import dataclasses
import decimal
import json
import operator
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator

ROOT = pathlib.Path(__file__).parent.parent
ALLOWED = "benchmarks/figures.md"
RESULTS = "benchmarks/results/"
COMPARED = (
  "README.md",
  RESULTS + "2026-11-25-co-training-cpu.md",
  RESULTS + "2026-11-22-variants-cpu.md",
  RESULTS + "2026-11-26-gripper.md",
)
PLAIN = "plain"
NAMES = "one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty sixty"
WORDS = dict(zip(NAMES.split(), [*range(1, 13), 15, 20, 30, 60], strict=False))
UNITS = {
  "%": "%|percent",
  "points": "points?",
  "s": "s|seconds?",
  "ms": "ms",
  "minutes": "minutes?|min",
  "hours": "hours?",
  "KiB": "KiB",
  "MiB": "MiB",
  "GiB": "GiB",
  "times": "times|x",
  "tests": "tests?|passed|skipped",
  "pairs/s": "pairs/s|pairs a second",
  "frames/s": "frames/s|frames a second",
  "images/s": "images/s",
  "GFLOP/s": "GFLOP/s",
  "GFLOP": "GFLOP",
  "TFLOP": "TFLOP",
}
NUMBER = rf"(?:\d[\d,]*\d|\d)(?:\.\d+)?(?:e-?\d+)?|\b(?:{'|'.join(WORDS)})\b"
UNIT = "|".join(f"(?P<u{i}>{words})" for i, words in enumerate(UNITS.values()))
FIGURE = re.compile(
  rf"(?<![\w.])(?:(?P<first>{NUMBER}) (?:to|and|or) )?(?P<number>{NUMBER})[ -]?(?:{UNIT})(?![\w/])"
)
LIMITS = re.compile(
  rf"\[[-+−]?(?P<low>{NUMBER}), [-+−]?(?P<high>{NUMBER})\]|± ?(?P<error>{NUMBER})"
)
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d\d+(?:e-?\d+)?(?![\w.]*\w)")
BARE = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
LINK = re.compile(r"\]\((benchmarks/results/[^)]+\.md)\)")
COMPARING = re.compile(
  r"\b(better|worse|best|worst|more than|beats?|helps?|as much as|as good as|equals?|lower|higher|"
  r"faster|slower|raises?|outperforms?|loses?)\b",
  re.I,
)
COUNTED = re.compile(
  rf"\bn = \d+|\b(?:{NUMBER}) (?:\w+ )?(?:seeds?|runs?|episodes|motions|windows|rounds)\b", re.I
)
INTERVAL = re.compile(rf"{LIMITS.pattern}|no interval|half width", re.I)


@dataclasses.dataclass(frozen=True)
class Claim:
  """A paragraph, list item or sentence of a program: file, line of its first word, text without
  code.
  """

  file: str
  line: int
  text: str


@dataclasses.dataclass(frozen=True)
class Figure:
  text: str  # as it is written
  value: decimal.Decimal
  unit: (
    # of UNITS; "" for a bare number, of a record: of a table that says no unit; PLAIN: of other
    # records
    str
  )

  def found(self, records: Iterable["Figure"], *, bare: bool) -> bool:
    """Whether a record has it, rounded to as many decimals; `bare`: numbers of tables that say no
    unit count too.
    """
    half = decimal.Decimal(1).scaleb(self.value.as_tuple().exponent) / 2
    return any(
      abs(one.value - self.value) <= half
      and one.value.as_tuple().exponent <= self.value.as_tuple().exponent
      and (not self.unit or one.unit == self.unit or bare and not one.unit)
      for one in records
    )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="the checkout to read")
  problems = check(parser.parse_args().root)
  print("\n".join(problems) or "every figure has its source")
  sys.exit(bool(problems))


def check(root: pathlib.Path) -> list[str]:
  """A line for each figure without a source, each comparing sentence without n or interval, and
  each row of figures.md that nothing needs.
  """
  sources = Sources(root)
  problems = [line for claim in sources.claims() for line in sources.missing(claim)]
  problems += [line for file in COMPARED for line in sources.uncertain(file)]
  unused = [row for row in sources.allowed if row not in sources.used]
  return problems + [
    f"{ALLOWED}: {row[0]}: {row[1]!r} is claimed nowhere, or is found elsewhere" for row in unused
  ]


class Sources:
  """The records of a checkout, and what figures.md allows."""

  def __init__(self, root: pathlib.Path):
    self.root, self.readme = root, (root / "README.md").read_text()
    self.pages = {
      RESULTS + one.name: one.read_text() for one in sorted((root / RESULTS).glob("*.md"))
    }
    self.records = {
      page: recorded(text) + _stored(root / page) for page, text in self.pages.items()
    }
    self.suite = list(_numbers(json.loads((root / "tests/last_run.json").read_text())))
    self.every = [one for found in self.records.values() for one in found if one.unit] + self.suite
    self.allowed, self.used = _allowed(root), set()

  def claims(self) -> Iterator[Claim]:
    """Everything that is looked up."""
    yield from paragraphs("README.md", self.readme)
    yield from _package(self.root)
    for page, text in self.pages.items():
      if page in self.readme:
        yield from paragraphs(page, text, said=True)

  def missing(self, claim: Claim) -> Iterator[str]:
    """Lines for its figures that have no source."""
    linked = []
    for page in LINK.findall(claim.text):
      linked += self.records.get(page, []) + _said(self.pages.get(page, ""))
    known = self.records.get(claim.file) or (linked + self.suite if linked else self.every)
    for figure in figures(re.sub(r"\]\([^)]*\)", "]", claim.text)):
      if not figure.found(known, bare=known is not self.every) and not self._excused(
        claim, figure.text
      ):
        yield (
          f"{claim.file}:{claim.line}: {figure.text}: in no file of results and not in {ALLOWED}"
        )

  def uncertain(self, file: str) -> Iterator[str]:
    """Lines for the comparing words of a file whose paragraph says no number or no interval."""
    for claim in paragraphs(file, self.readme if file == "README.md" else self.pages.get(file, "")):
      rules = (("n", COUNTED), ("interval", INTERVAL))
      missing = " and ".join(name for name, rule in rules if not rule.search(claim.text))
      for word in COMPARING.findall(claim.text) if missing else ():
        if not self._excused(claim, word):
          yield (
            f"{file}:{claim.line}: {word!r} compares without {missing}: {_around(claim.text, word)}"
          )

  def _excused(self, claim: Claim, text: str) -> bool:
    for row in self.allowed:
      file, words, source = row
      phrase = " " in words and words in claim.text and text.split()[0] in words
      if file == claim.file and (words == text or phrase):
        self.used.add(row)
        return not source.startswith("=") or _computed(
          source, text, self.records.get(file, self.every)
        )
    return False


def figures(text: str) -> list[Figure]:
  """Those of a claim."""
  found, taken = [], set()
  for match in FIGURE.finditer(text):
    unit = list(UNITS)[next(i for i in range(len(UNITS)) if match[f"u{i}"])]
    for group in ("first", "number"):
      if match[group] and not (unit == "times" and match[group] in WORDS and match[group] == "one"):
        found.append(Figure(f"{match[group]} {unit}", _value(match[group]), unit))
        taken.add(match.start(group))
  for match in LIMITS.finditer(text):
    for group in ("low", "high", "error"):
      if match[group] and match.start(group) not in taken:
        found.append(Figure(match[group], _value(match[group]), ""))
        taken.add(match.start(group))
  return found + [
    Figure(match[0], _value(match[0]), "")
    for match in DECIMAL.finditer(text)
    if match.start() not in taken
  ]


def recorded(page: str) -> list[Figure]:
  """Numbers of a page's tables and notes, outside of what it says of them."""
  found, header = [], []
  for _, line, said in _lines(page):
    if line.startswith("|") and set(line) <= set("| -"):
      continue
    cells = (
      [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
    )
    # the row before the dashes, until the table ends
    header = header if cells and header else cells
    if said and not cells:
      continue
    for i, cell in enumerate(cells or [line]):
      title = header[i] if cells and i < len(header) else ""
      unit = next(
        (name for name, words in UNITS.items() if _names(words, title)), "" if cells else PLAIN
      )
      found += figures(cell)
      rest = FIGURE.sub(" ", cell)  # a number with a unit of its own counts with that
      found += [Figure(number, _value(number), unit) for number in BARE.findall(rest)]
  return found


def _names(words: str, title: str) -> bool:
  return re.search(rf"(?<![\w/])(?:{words})(?![\w/])", title) is not None


def paragraphs(file: str, text: str, *, said: bool = False) -> Iterator[Claim]:
  """Paragraphs and list items without code and tables; `said`: of a page of results, only what it
  says of its records.
  """
  begin, words = 0, []
  for number, line, saying in [*_lines(text), (0, "", True)]:
    new = not line.strip() or line.startswith(("|", "#")) or re.match(r"\s*([*-]|\d+\.) ", line)
    if new and words:
      yield Claim(file, begin, " ".join(words))
      words = []
    if line.strip() and not line.startswith(("|", "#")) and (saying or not said):
      begin = begin if words else number
      words.append(re.sub(r"`[^`]*`", "", line.strip()))


def _lines(text: str) -> Iterator[tuple[int, str, bool]]:
  """(number, line, whether it stands under a heading that interprets) of all lines outside of code
  blocks.
  """
  fenced, said = False, False
  for number, line in enumerate(text.splitlines(), 1):
    if line.startswith("```"):
      fenced = not fenced
    elif line.startswith("#") and not fenced:
      said = bool(re.match(r"##+ (What|Not) ", line))
    if not fenced and not line.startswith("```"):
      yield number, line, said


def _said(page: str) -> list[Figure]:
  return [figure for claim in paragraphs("", page, said=True) for figure in figures(claim.text)]


def _package(root: pathlib.Path) -> Iterator[Claim]:
  for path in sorted((root / "como_jax").rglob("README.md")):
    yield from paragraphs(str(path.relative_to(root)), path.read_text())
  for path in sorted((root / "como_jax/report").glob("*.py")):
    tree = ast.parse(path.read_text())
    holders = [
      node
      for node in ast.walk(tree)
      if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
    ]
    documentation = {id(node.body[0].value) for node in holders if ast.get_docstring(node)}
    for node in ast.walk(tree):
      text = (
        node.value if isinstance(node, ast.Constant) and id(node) not in documentation else None
      )
      if isinstance(text, str) and text.count(" ") > 2 and "{" not in text:  # words, no style sheet
        yield Claim(str(path.relative_to(root)), node.lineno, text)


def _stored(page: pathlib.Path) -> list[Figure]:
  """Numbers of a page's JSON file."""
  file = page.with_suffix(".json")
  return list(_numbers(json.loads(file.read_text()))) if file.exists() else []


def _numbers(value: object, name: str = "") -> Iterator[Figure]:
  if isinstance(value, dict):
    for key, one in value.items():
      yield from _numbers(one, key)
  elif isinstance(value, list):
    for one in value:
      yield from _numbers(one, name)
  elif isinstance(value, (int, float)) and not isinstance(value, bool):
    unit = "tests" if name in ("tests", "skipped") else name if name in UNITS else PLAIN
    yield Figure(str(value), decimal.Decimal(str(value)), unit)


def _value(text: str) -> decimal.Decimal:
  return decimal.Decimal(WORDS[text.lower()] if text.lower() in WORDS else text.replace(",", ""))


def _allowed(root: pathlib.Path) -> list[tuple[str, str, str]]:
  """(file, figure or words, source) of the rows of benchmarks/figures.md."""
  lines = [line for line in (root / ALLOWED).read_text().splitlines() if line.startswith("|")]
  rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
  if wrong := [row for row in rows if len(row) != 3 or not all(row)]:
    sys.exit(f"error: {ALLOWED}: {wrong[0]}: expected file, figure and source")
  return [tuple(row) for row in rows[2:]]


def _computed(source: str, text: str, records: Iterable[Figure]) -> bool:
  """Whether arithmetic on recorded numbers gives the figure (a share of 1 where its unit is %)."""
  tools = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
  }
  records = list(records)

  def of(node: ast.expr) -> decimal.Decimal:
    if isinstance(node, ast.BinOp) and type(node.op) in tools:
      return tools[type(node.op)](of(node.left), of(node.right))
    number = ast.unparse(node)
    one = Figure(number, decimal.Decimal(number), "")
    if number not in ("1", "100") and not one.found(records, bare=True):
      raise ValueError(f"{number} is in no record")
    return one.value

  figure = (figures(text) or [Figure(text, _value(text), "")])[0]
  value = of(ast.parse(source.removeprefix("=").strip(), mode="eval").body) * (
    100 if figure.unit == "%" else 1
  )
  return Figure("", figure.value, "").found([Figure("", value, "")], bare=True)


def _around(text: str, word: str) -> str:
  return next(
    (one.strip() for one in re.split(r"(?<=[.:;]) ", text) if re.search(rf"\b{word}\b", one)), text
  )[:120]


if __name__ == "__main__":
  main()
