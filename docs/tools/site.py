"""Hooks of mkdocs: pages that lie elsewhere in the repository, and the API reference.

Pages link to files outside of docs/ as they lie in a clone (`../benchmarks/results/PAGE.md`), which
works where the repository is browsed. In the site those pages are copies at the same paths.
"""

import ast
import pathlib
import re
from typing import Any

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OUTSIDE = (
  "benchmarks/results/*.md",
  "benchmarks/results/*.png",
  "benchmarks/results/*.json",
  "como_jax/assets/*/README.md",
  "launch/README.md",
  "CONTRIBUTING.md",
  "CHANGELOG.md",
)
UP = re.compile(r"\]\(\.\./(?!\.\.)")


def parts() -> dict[str, list[str]]:
  """Part of the package -> names of its modules."""
  found: dict[str, list[str]] = {}
  for path in sorted((ROOT / "como_jax").rglob("*.py")):
    names = path.relative_to(ROOT).with_suffix("").parts
    if names[-1] == "__init__":
      names = names[:-1]
    if len(names) > 1 and not names[-1].startswith("_"):
      found.setdefault(names[1], []).append(".".join(names))
  return found


def summary(module: str) -> str:
  """The first sentence of a module's docstring."""
  path = ROOT / module.replace(".", "/")
  path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
  text = ast.get_docstring(ast.parse(path.read_text())) or ""
  return " ".join(text.split("\n\n")[0].split())


def on_files(files: Any, config: Any) -> Any:
  """Adds the pages outside of docs/ and one page of reference for each part."""
  for pattern in OUTSIDE:
    for path in sorted(ROOT.glob(pattern)):
      name = str(path.relative_to(ROOT))
      files.append(
        File.generated(
          config, name, content=path.read_text() if path.suffix == ".md" else path.read_bytes()
        )
      )
  index = ["# API reference", "", "Made from the docstrings. One page for each part.", ""]
  index += ["| part | what it holds |", "| --- | --- |"]
  for part, modules in parts().items():
    text = "\n\n".join([f"# `{part}`", *(f"::: {module}" for module in modules)])
    files.append(File.generated(config, f"reference/{part}.md", content=text + "\n"))
    index.append(f"| [`{part}`]({part}.md) | {summary(modules[0]).replace('|', '/')} |")
  files.append(File.generated(config, "reference/index.md", content="\n".join(index) + "\n"))
  return files


def on_page_markdown(markdown: str, page: Any, **unused: Any) -> str:
  """Links of pages of docs/ that leave it lead to the copies."""
  return UP.sub("](", markdown) if "/" not in page.file.src_uri else markdown
