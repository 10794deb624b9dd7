"""Reads the README and the pages of docs/: blocks of code, the commands in them, the recipes."""

import dataclasses
import pathlib
import re
import shlex

from tests.end_to_end import program

DOCS = program.ROOT / "docs"
RUN = "bash"  # blocks that are run by tests/end_to_end/test_readme.py; "sh": parsed only
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.S | re.M)
_NEW = " (new file)"


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block: its language, its title ("" for none), its text."""

  language: str
  title: str
  text: str

  @property
  def commands(self) -> list[str]:
    """Its commands, each as one line."""
    whole = re.sub(r"\s*\\\n\s*", " ", self.text)
    return [line for line in whole.splitlines() if line.strip() and not line.startswith("#")]


def files() -> list[pathlib.Path]:
  """The README, then the pages in the order in which they are read."""
  first = [program.ROOT / "README.md", DOCS / "index.md", DOCS / "quickstart.md"]
  return first + [path for path in sorted(DOCS.rglob("*.md")) if path not in first]


def blocks(text: str) -> list[Block]:
  """All fenced blocks of a page with a language."""
  return [Block(*(part or "" for part in found)) for found in _BLOCK.findall(text)]


def lines(text: str, language: str) -> list[str]:
  """The commands in the blocks of a language, a line each."""
  return [line for one in blocks(text) if one.language == language for line in one.commands]


def commands() -> list[str]:
  """Every command that is run, once, in the order of the pages."""
  found = [line for path in files() for line in lines(path.read_text(), RUN)]
  return list(dict.fromkeys(found))


def words(line: str) -> list[str] | None:
  """The arguments of a command of ours; None for any other command."""
  parts = shlex.split(line, comments=True)
  for i in range(len(parts) - 1):
    if parts[i] == "-m" and parts[i + 1] in ("como_jax", "como_jax.main"):
      return parts[i + 2 :]
  return None


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A section of the page on extensions: its heading, and its blocks in order."""

  name: str
  blocks: list[Block]

  @property
  def tests(self) -> list[str]:
    """Paths of the tests that it adds."""
    return [one.title.removesuffix(_NEW) for one in self.blocks if one.title.startswith("tests/")]

  @property
  def commands(self) -> list[str]:
    return [line for one in self.blocks if one.language == "sh" for line in one.commands]

  def apply(self, root: pathlib.Path) -> None:
    """Makes its files and changes below a copy of the project.

    Raises:
      ValueError: a file that is there already, or lines that are not there exactly once.
    """
    for block in self.blocks:
      if block.title.endswith(_NEW):
        path = root / block.title.removesuffix(_NEW)
        if path.exists():
          raise ValueError(f"{self.name}: {path} is there already")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
      elif block.language == "diff":
        path = root / block.title
        path.write_text(change(path.read_text(), block.text, f"{self.name}: {block.title}"))


def recipes() -> list[Recipe]:
  """All recipes of docs/extending.md."""
  sections = re.split(r"^## ", (DOCS / "extending.md").read_text(), flags=re.M)[1:]
  return [Recipe(text.partition("\n")[0].strip(), blocks(text)) for text in sections]


def change(text: str, diff: str, where: str) -> str:
  """A text with the change of one block of differences made.

  Raises:
    ValueError: the lines that it changes are not there exactly once.
  """
  rows = diff.splitlines()
  old = "".join(f"{row[1:]}\n" for row in rows if not row.startswith("+"))
  new = "".join(f"{row[1:]}\n" for row in rows if not row.startswith("-"))
  if text.count(f"\n{old}") != 1:
    raise ValueError(
      f"docs/extending.md, {where}: expected once, found {text.count(old)} times (show the lines "
      f"that the file has now):\n{old}"
    )
  return text.replace(f"\n{old}", f"\n{new}")
