"""Checks that every figure in the documentation has a source in a file of results.

python benchmarks/check_figures.py
Claims are made by README.md, the pages of docs/, the READMEs in como_jax, what the pages of
benchmarks/results that README or docs/ link say under headings that begin with "What" or "Not", and
the fixed sentences of como_jax/report. A figure is a number with a unit (%, points, s, ms, minutes,
MiB, times, tests, pairs/s ..), a number with two decimals or more, and the limits of an interval.
It is found where a record (the other parts of the pages, their JSON files, tests/last_run.json) has
that number, rounded as it is claimed, with that unit, in a table's column or sentence. A paragraph
that links pages is looked up in those, what a page says in that page.

Sentences that compare (better, more than, helps ..) in README, docs/ and the pages of COMPARED need
a number of runs, episodes or windows and an interval in the same paragraph or list item.

benchmarks/figures.md lists figures that are not measurements, one row each with file, figure or
words, and source. A source that begins with "=" is arithmetic on numbers of the records, for
example "= 1 - 655.4 / 701.8".
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
LINK = re.compile(r"\]\((?:\.\./)*(benchmarks/results/[^)]+\.md)\)")
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
  """A paragraph, a list item, or a sentence of a program.

  Attributes:
    file: path below the project.
    line: line number of the first word.
    text: without code.
  """

  file: str
  line: int
  text: str


@dataclasses.dataclass(frozen=True)
class Figure:
  """A number in a text or a record.

  Attributes:
    text: as it is written.
    value: of the number.
    unit: a key of UNITS. "" = a number without a unit in a text, or in a table without a unit;
      PLAIN = a number without a unit in another record.
  """

  text: str
  value: decimal.Decimal
  unit: str

  def found(self, records: Iterable["Figure"], *, bare: bool) -> bool:
    """Whether a record has the figure, rounded to the same number of decimals.

    Args:
      records: numbers of the records.
      bare: whether numbers of tables without a unit count for every unit.
    """
    half = decimal.Decimal(1).scaleb(self.value.as_tuple().exponent) / 2
    return any(
      abs(record.value - self.value) <= half
      and record.value.as_tuple().exponent <= self.value.as_tuple().exponent
      and (not self.unit or record.unit == self.unit or bare and not record.unit)
      for record in records
    )


def main() -> None:
  """Prints the problems; exits with 1 if there are any."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="the checkout to read")
  problems = check(parser.parse_args().root)
  print("\n".join(problems) or "every figure has its source")
  sys.exit(bool(problems))


def check(root: pathlib.Path) -> list[str]:
  """Lists the problems of a checkout.

  These are figures without a source, comparing sentences without n or an interval, and rows of
  figures.md that no text needs.
  """
  sources = Sources(root)
  problems = [line for claim in sources.claims() for line in sources.missing(claim)]
  problems += [line for file in (*sources.read, *COMPARED) for line in sources.uncertain(file)]
  unused = [row for row in sources.allowed if row not in sources.used]
  return problems + [
    f"{ALLOWED}: {row[0]}: {row[1]!r} is claimed nowhere, or is found elsewhere" for row in unused
  ]


class Sources:
  """The records of a checkout, and the rows of figures.md."""

  def __init__(self, root: pathlib.Path):
    self.root = root
    read = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    self.read = {path.relative_to(root).as_posix(): path.read_text() for path in read}
    self.pages = {
      RESULTS + path.name: path.read_text() for path in sorted((root / RESULTS).glob("*.md"))
    }
    self.records = {
      page: recorded(text) + _stored(root / page) for page, text in self.pages.items()
    }
    self.suite = list(_numbers(json.loads((root / "tests/last_run.json").read_text())))
    self.every = self.suite + [
      figure for records in self.records.values() for figure in records if figure.unit
    ]
    self.allowed, self.used = _allowed(root), set()

  def claims(self) -> Iterator[Claim]:
    """Everything that is looked up."""
    for file, text in self.read.items():
      yield from paragraphs(file, text)
    yield from _package(self.root)
    for page, text in self.pages.items():
      if any(page in words for words in self.read.values()):
        yield from paragraphs(page, text, said=True)

  def missing(self, claim: Claim) -> Iterator[str]:
    """Yields a line for each figure of a claim that has no source."""
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
    for claim in paragraphs(file, self.read.get(file, self.pages.get(file, ""))):
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
  """Extracts the figures of a text."""
  result, taken = [], set()
  for match in FIGURE.finditer(text):
    unit = list(UNITS)[next(i for i in range(len(UNITS)) if match[f"u{i}"])]
    for group in ("first", "number"):
      if match[group] and not (unit == "times" and match[group] in WORDS and match[group] == "one"):
        result.append(Figure(f"{match[group]} {unit}", _value(match[group]), unit))
        taken.add(match.start(group))
  for match in LIMITS.finditer(text):
    for group in ("low", "high", "error"):
      if match[group] and match.start(group) not in taken:
        result.append(Figure(match[group], _value(match[group]), ""))
        taken.add(match.start(group))
  return result + [
    Figure(match[0], _value(match[0]), "")
    for match in DECIMAL.finditer(text)
    if match.start() not in taken
  ]


def recorded(page: str) -> list[Figure]:
  """Extracts the numbers of a page's tables and notes, without the sections that interpret them."""
  result, header = [], []
  for _, line, said in _lines(page):
    if line.startswith("|") and set(line) <= set("| -"):
      continue
    cells = (
      [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
    )
    # the header is the first row of a table
    header = header if cells and header else cells
    if said and not cells:
      continue
    for i, cell in enumerate(cells or [line]):
      title = header[i] if cells and i < len(header) else ""
      unit = next(
        (name for name, words in UNITS.items() if _names(words, title)), "" if cells else PLAIN
      )
      result += figures(cell)
      rest = FIGURE.sub(" ", cell)  # without the numbers that have their own unit
      result += [Figure(number, _value(number), unit) for number in BARE.findall(rest)]
  return result


def _names(words: str, title: str) -> bool:
  """Whether a column's title names a unit."""
  return re.search(rf"(?<![\w/])(?:{words})(?![\w/])", title) is not None


def paragraphs(file: str, text: str, *, said: bool = False) -> Iterator[Claim]:
  """Yields paragraphs and list items, without code and tables.

  Args:
    file: path below the project.
    text: of the file.
    said: whether to yield only the sections that interpret the records of a page of results.
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
  """Yields the lines outside of code blocks: (number, line, whether its section interprets)."""
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
  """Yields the claims of the package: its READMEs, and the sentences of como_jax/report."""
  for path in sorted((root / "como_jax").rglob("README.md")):
    yield from paragraphs(str(path.relative_to(root)), path.read_text())
  for path in sorted((root / "como_jax/report").glob("*.py")):
    tree = ast.parse(path.read_text())
    documented = [
      node
      for node in ast.walk(tree)
      if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
    ]
    docstrings = {id(node.body[0].value) for node in documented if ast.get_docstring(node)}
    for node in ast.walk(tree):
      text = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else None
      if isinstance(text, str) and text.count(" ") > 2 and "{" not in text:  # words, no style sheet
        yield Claim(str(path.relative_to(root)), node.lineno, text)


def _stored(page: pathlib.Path) -> list[Figure]:
  """Numbers of a page's JSON file."""
  file = page.with_suffix(".json")
  return list(_numbers(json.loads(file.read_text()))) if file.exists() else []


def _numbers(value: object, name: str = "") -> Iterator[Figure]:
  """Yields the numbers of a JSON value; `name` is its key."""
  if isinstance(value, dict):
    for key, item in value.items():
      yield from _numbers(item, key)
  elif isinstance(value, list):
    for item in value:
      yield from _numbers(item, name)
  elif isinstance(value, (int, float)) and not isinstance(value, bool):
    unit = "tests" if name in ("tests", "skipped") else name if name in UNITS else PLAIN
    yield Figure(str(value), decimal.Decimal(str(value)), unit)


def _value(text: str) -> decimal.Decimal:
  return decimal.Decimal(WORDS[text.lower()] if text.lower() in WORDS else text.replace(",", ""))


def _allowed(root: pathlib.Path) -> list[tuple[str, str, str]]:
  """Reads the rows of benchmarks/figures.md: (file, figure or words, source)."""
  lines = [line for line in (root / ALLOWED).read_text().splitlines() if line.startswith("|")]
  rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
  if wrong := [row for row in rows if len(row) != 3 or not all(row)]:
    sys.exit(f"error: {ALLOWED}: {wrong[0]}: expected file, figure and source")
  return [tuple(row) for row in rows[2:]]


def _computed(source: str, text: str, records: Iterable[Figure]) -> bool:
  """Whether arithmetic on recorded numbers gives the figure (a share of 1 where its unit is %)."""
  operators = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
  }
  records = list(records)

  def evaluate(node: ast.expr) -> decimal.Decimal:
    if isinstance(node, ast.BinOp) and type(node.op) in operators:
      return operators[type(node.op)](evaluate(node.left), evaluate(node.right))
    number = ast.unparse(node)
    operand = Figure(number, decimal.Decimal(number), "")
    if number not in ("1", "100") and not operand.found(records, bare=True):
      raise ValueError(f"{number} is in no record")
    return operand.value

  figure = (figures(text) or [Figure(text, _value(text), "")])[0]
  value = evaluate(ast.parse(source.removeprefix("=").strip(), mode="eval").body) * (
    100 if figure.unit == "%" else 1
  )
  return Figure("", figure.value, "").found([Figure("", value, "")], bare=True)


def _around(text: str, word: str) -> str:
  """The part of a sentence with a word, at most 120 characters."""
  parts = re.split(r"(?<=[.:;]) ", text)
  return next((part.strip() for part in parts if re.search(rf"\b{word}\b", part)), text)[:120]


if __name__ == "__main__":
  main()
