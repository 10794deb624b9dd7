"""What the pages say is true of the code: commands, links, tables, the map of the packages."""

import ast
import re
import shutil
import subprocess
import sys

import pytest

from como_jax import config, main, model_presets, objectives
from como_jax.data import sources
from como_jax.models.motion import bottleneck, inputs
from tests import test_architecture
from tests.docs import pages
from tests.end_to_end import program

MAP = [sys.executable, "docs/tools/package_map.py"]
ARCHITECTURE = pages.DOCS / "architecture.md"
# Files and config keys that the pages name and that are still to come: take them out once they are
# there.
SECTIONS = "collect data evaluation exam language model objectives policy shards source train"


def shown():
  """(place, arguments) of every command of ours on the pages."""
  for path in pages.files():
    for block in pages.blocks(path.read_text()):
      if block.language not in ("bash", "sh") or path.name == "extending.md":
        continue  # those of the recipes: test_recipes.py
      for line in block.commands:
        words = pages.words(line)
        if words is not None:
          yield pytest.param(words, id=f"{path.name}: {' '.join(words)[:60]}")


@pytest.mark.parametrize("words", shown())
def test_a_command_is_one_that_the_program_takes(words):
  assert config.parse(["main", *words]).config.task


def test_python_on_the_pages_imports_what_there_is():
  """And uses attributes of those modules that there are; names of the reader's own are free."""
  found = 0
  for path in pages.files():
    for block in pages.blocks(path.read_text()):
      if block.language != "python" or block.title:
        continue
      scope, tree = {}, ast.parse(block.text)
      begin = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
      exec(compile(ast.Module(begin, []), path.name, "exec"), scope)
      for node in ast.walk(tree):
        owner = getattr(getattr(node, "value", None), "id", None)
        if isinstance(node, ast.Attribute) and owner in scope:
          found += 1
          assert hasattr(scope[owner], node.attr), f"{path.name}: {owner}.{node.attr}"
  assert found >= 4


def links(path):
  text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
  return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("path", pages.files(), ids=lambda path: path.name)
def test_links_lead_to_files(path):
  for link in links(path):
    target, _, anchor = link.partition("#")
    if target.startswith("reference/"):  # made by docs/tools/site.py
      name = target.removeprefix("reference/").removesuffix(".md")
      assert name == "index" or name in test_architecture.ARROWS, link
      continue
    assert not anchor and (path.parent / target).exists(), link


def leaves(section, prefix=""):
  for key, value in section.items():
    yield prefix + key
    if hasattr(value, "items"):
      yield from leaves(value, f"{prefix}{key}.")


@pytest.fixture(name="keys", scope="module")
def _keys():
  """All keys of all configs, of the models that options choose too."""
  names = [path.stem for path in config.CONFIGS.glob("*.py")]
  names += ["policy:published,policy=gpt", "motion:published,bottleneck=vq"]
  return {key for name in names for key in leaves(config.load(name)[0])}


def named():
  """(page, config key) of all keys on the pages; `.depth` is a key beside the one before."""
  for path in pages.files():
    before = ""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    for word in re.findall(r"`(?:--config\.)?([a-z_]*(?:\.(?:[a-z_]+|\*))+)(?:=[^`]*)?`", text):
      key = before.rpartition(".")[0] + word if word.startswith(".") else word
      before = (
        key if key.split(".")[0] in SECTIONS.split() and not key.endswith((".py", ".json")) else ""
      )
      if before:
        yield path.name, key


def test_config_keys_named_on_the_pages_are_there(keys):
  found = set(named())
  assert len(found) > 60
  for page, key in sorted(found):
    pattern = re.escape(key).replace(r"\*", r"\w+") + "$"
    assert any(re.match(pattern, one) for one in keys), f"{page}: {key}"


def test_files_named_in_code_are_there():
  """`models/motion/como.py` and the like, of the package or of the repository."""
  found = 0
  for path in pages.files():
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    for name in re.findall(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|md|sh|txt|json|toml))`", text):
      if name.startswith("runs/") or name.split("/")[0].isupper():
        continue
      found += 1
      assert any((root / name).exists() for root in (program.ROOT, test_architecture.PACKAGE)), name
  assert found > 40


def test_the_map_is_that_of_the_imports():
  done = subprocess.run([*MAP, "--check"], cwd=program.ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr


def real():
  found = {name: set() for name in test_architecture.ARROWS}
  for path in test_architecture.FILES:
    here = test_architecture.part(path)
    for name in test_architecture.imports(path):
      top, _, rest = name.partition(".")
      target = rest.partition(".")[0]
      if top == "como_jax" and target in found and target != here:
        found[here].add(target)
  return found


def test_the_table_on_the_page_is_that_of_the_imports():
  rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", ARCHITECTURE.read_text(), flags=re.M)
  assert {name: set(re.findall(r"`(\w+)`", imports)) for name, imports in rows} == real()


def test_the_picture_implies_every_import_and_no_other():
  """Its arrows with all that follows from them, against the imports with all that follows."""
  text = (pages.DOCS / "assets" / "packages.svg").read_text()
  arrows = re.findall(r'data-from="(\w+)" data-to="(\w+)"', text)
  names = set(re.findall(r'font-weight="bold" fill="#16213a">(\w+)<', text))
  assert names == set(test_architecture.ARROWS)

  def closed(pairs):
    pairs = set(pairs)
    while more := {(a, d) for a, b in pairs for c, d in pairs if b == c} - pairs:
      pairs |= more
    return pairs

  common = {"errors", "trees"}
  imports = {(a, b) for a, targets in real().items() for b in targets if not {a, b} & common}
  assert closed(arrows) == closed(imports) and set(arrows) <= imports


def test_an_import_that_is_not_drawn_is_found(tmp_path):
  root = tmp_path / "clone"
  for name in ("como_jax", "tests", "docs"):
    shutil.copytree(
      program.ROOT / name,
      root / name,
      ignore=shutil.ignore_patterns("__pycache__", "*.npz", "*.mp4"),
    )
  file = root / "como_jax" / "report" / "style.py"
  file.write_text(file.read_text() + "\nfrom como_jax import trees  # noqa\n")
  done = subprocess.run([*MAP, "--check"], cwd=root, capture_output=True, text=True)
  assert done.returncode == 1 and "report imports ['trees']: not allowed" in done.stderr
  table = root / "tests" / "test_architecture.py"
  table.write_text(table.read_text().replace('"report": {"errors"}', '"report": BASE'))
  done = subprocess.run([*MAP, "--check"], cwd=root, capture_output=True, text=True)
  assert (done.returncode, done.stdout) == (1, "docs/architecture.md: is old\n")


def test_no_arrow_of_the_map_runs_through_a_box():
  text = (pages.DOCS / "assets" / "packages.svg").read_text()
  boxes = re.findall(r'<rect x="([^"]+)" y="([^"]+)" width="([^"]+)" height="([^"]+)"', text)
  ways = re.findall(r"C[^Z]*? (-?[\d.]+) (-?[\d.]+) V(-?[\d.]+)", text)  # down to the tip
  assert len(boxes) > 20 and len(ways) > 20
  for x, top, tip in (map(float, way) for way in ways):
    for left, up, width, height in (map(float, box) for box in boxes):
      assert not (left <= x <= left + width and top < up + height and tip > up), (x, top, tip)


def test_reading_order_is_eight_files_that_exist():
  text = (pages.DOCS / "reading.md").read_text()
  rows = re.findall(r"^\| (\d) \| `([^`]+)` \| [^|]+\? ?[^|]* \|$", text, flags=re.M)
  assert [number for number, _ in rows] == list("12345678")
  assert all((program.ROOT / name).is_file() for _, name in rows)


def test_exit_codes_are_those_of_the_program():
  text = (pages.DOCS / "troubleshooting.md").read_text()
  listed = set(re.findall(r"^\| (\d+) \|", text, flags=re.M))
  said = set(re.findall(r"^  (\d{1,3})  +\S", main.__doc__, flags=re.M))
  assert len(said) == 9 and said <= listed


def test_configs_and_variants_are_all_listed():
  text = (pages.DOCS / "quickstart.md").read_text()
  listed = re.findall(r"^\| `(\w+)` \| [^|]+ \| ", text, flags=re.M)
  assert sorted(listed) == sorted(path.stem for path in config.CONFIGS.glob("*.py"))


def test_choices_named_on_the_method_page_are_in_the_tables():
  text = (pages.DOCS / "method.md").read_text()
  options = re.findall(r"`motion:published(?:,([\w=,]+))?`", text)
  assert len(options) >= 7
  for option in options:
    name = f"motion:published,{option}" if option else "motion:published"
    section = config.load(name)[0]
    assert section.model.idm.inputs in inputs.INPUTS
    assert section.model.bottleneck.kind in bottleneck.BOTTLENECKS
    assert set(section.objectives) <= set(objectives.OBJECTIVES)
  assert model_presets.preset("motion", "published")["idm"]["inputs"] == "feature_diff"


def test_formats_named_on_the_data_page_are_read():
  text = (pages.DOCS / "data.md").read_text()
  assert "LeRobot v2.0, v2.1, v3.0" in text and set(sources.SOURCES) == {
    "lerobot",
    "video_folder",
    "shards",
    "tfds",
  }
