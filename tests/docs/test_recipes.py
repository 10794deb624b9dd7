"""The recipes of docs/extending.md are applied to a copy of the project: their tests pass there.

Their commands are accepted there and not here.
"""

import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from tests import limits
from tests.docs import pages
from tests.end_to_end import program

RECIPES = {one.name: one for one in pages.recipes()}
# What a command line is asked before a task begins, for each command of the recipes.
COMMANDS = """
import sys
import pytest
from como_jax import config, errors
from como_jax.assembly import config_checks

@pytest.mark.parametrize("words", {words!r})
def test_command(words):
  command = config.parse(["main", *words])
  config_checks.check(command.config)
"""


def copy(root):
  """A copy of the program without its data."""
  for name in ("como_jax", "configs"):
    shutil.copytree(
      program.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "assets")
    )
  (root / "como_jax" / "assets").symlink_to(program.ROOT / "como_jax" / "assets")
  (root / "pytest.ini").write_text("[pytest]\n")


@pytest.fixture(name="outcomes", scope="module")
def _outcomes(tmp_path_factory):
  """File of a test -> {name of the test: what went wrong, "" for nothing}, in one process.

  A recipe that does not fit the code is an entry of its own name; the others are tried.
  """
  root = tmp_path_factory.mktemp("extended")
  copy(root)
  found = {}
  for recipe in RECIPES.values():
    try:
      recipe.apply(root)
    except ValueError as error:
      found[recipe.name] = {"apply": str(error)}
    words = [pages.words(line) for line in recipe.commands]
    (root / f"test_{slug(recipe)}.py").write_text(COMMANDS.format(words=words))
  command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
  done = subprocess.run(
    [*command, "--import-mode=importlib", "--junit-xml=results.xml", str(root)],
    cwd=root,
    env=program.environment(PYTHONPATH=str(root)),
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
  )
  assert (root / "results.xml").exists(), done.stdout + done.stderr
  for case in xml.etree.ElementTree.parse(root / "results.xml").iter("testcase"):
    wrong = [part.text or "failed" for part in case if part.tag in ("failure", "error")]
    found.setdefault(case.get("classname"), {})[case.get("name")] = "\n".join(wrong)
  return found


def slug(recipe):
  return recipe.name.lower().replace(" ", "_")


def test_there_is_a_recipe_for_each_kind_of_extension():
  assert list(RECIPES) == [
    "An objective",
    "A backbone",
    "A bottleneck",
    "A motion input",
    "An action head",
    "A data format",
    "A simulator",
  ]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works(name, outcomes):
  recipe = RECIPES[name]
  assert recipe.tests and recipe.commands
  assert name not in outcomes, outcomes[name]["apply"]
  for path in recipe.tests:
    results = outcomes[path.removesuffix(".py").replace("/", ".")]
    assert results and not any(results.values()), results
  accepted = outcomes[f"test_{slug(recipe)}"]
  assert len(accepted) == len(recipe.commands) and not any(accepted.values()), accepted


@pytest.mark.parametrize("name", RECIPES)
def test_without_it_its_command_is_refused(name):
  from como_jax import config, errors
  from como_jax.assembly import config_checks

  for line in RECIPES[name].commands:
    with pytest.raises((errors.UserError, KeyError)) as raised:
      config_checks.check(config.parse(["main", *pages.words(line)]).config)
    assert "\n" not in str(raised.value)


def test_a_change_that_finds_nothing_or_two_places_is_an_error():
  text = "a\nb\nc\nb\n"
  assert pages.change("a\nb\nc\n", " b\n+d\n", "x") == "a\nb\nd\nc\n"
  for diff in (" d\n+e\n", "-b\n+e\n"):
    with pytest.raises(ValueError, match="expected once"):
      pages.change(text, diff, "x")


def test_files_of_recipes_are_written_once(tmp_path):
  recipe = RECIPES["A data format"]
  new = [one for one in recipe.blocks if one.title.endswith("(new file)")]
  made = pages.Recipe("again", new)
  made.apply(tmp_path)
  assert pathlib.Path(tmp_path / "como_jax/data/sources/npz.py").read_text() == new[0].text
  with pytest.raises(ValueError, match="is there already"):
    made.apply(tmp_path)
