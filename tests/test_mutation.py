"""The mutants of a piece of source: what is changed, what is left alone, and how one is named."""

import sys
import tomllib

import pytest

from tests.end_to_end import program

SOURCE = '''"""Text with 1 number."""
LIMIT: int = 3


def first(values, *, size=8):
  """More text: 2."""
  if not values and size > LIMIT:
    raise ValueError(f"{size + 1} is too many")
  total = join(values, size, sep=",")
  total += 2.5
  assert total > 0
  return total
'''


@pytest.fixture(name="mutation", scope="module")
def _mutation():
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(program.ROOT / "benchmarks"))
    import mutation

    yield mutation
  del sys.modules["mutation"]


def test_every_place_of_a_file_that_is_computed(mutation):
  found = [one for one in mutation.candidates("a.py", SOURCE) if mutation.changes(one, SOURCE)]
  assert sorted((one.kind, one.after) for one in found) == sorted(
    [
      ("constant", "LIMIT: int = 4"),
      ("constant", "LIMIT: int = 2"),
      ("constant", "def first(values, *, size=9):"),
      ("constant", "def first(values, *, size=7):"),
      ("condition", "if (not (not values and size > LIMIT)):"),
      ("boolean", "if not values or size > LIMIT:"),
      ("unary", "if values and size > LIMIT:"),
      ("comparison", "if not values and size >= LIMIT:"),
      ("statement", "pass"),
      ("keyword", "total = join(values, size)"),
      ("arguments", 'total = join(size, values, sep=",")'),
      ("arithmetic", "total -= 2.5"),
      ("statement", "pass"),
      ("constant", "total += 3.5"),
      ("constant", "total += 1.5"),
      ("return", "return None"),
    ]
  )
  assert {one.function for one in found} == {"", "first"} and all(
    one.before in SOURCE for one in found
  )
  assert len({one.id for one in found}) == len(found)


def test_a_mutant_changes_its_place_only_and_keeps_its_name_elsewhere(mutation):
  one = next(one for one in mutation.candidates("a.py", SOURCE) if one.kind == "comparison")
  assert one.apply(SOURCE) == SOURCE.replace("size > LIMIT", "size >= LIMIT") and one.line == 7
  lower = "# ü\n\n" + SOURCE
  moved = next(other for other in mutation.candidates("a.py", lower) if other.kind == "comparison")
  assert (
    moved.id == one.id and moved.line == 9 and moved.apply(lower) == "# ü\n\n" + one.apply(SOURCE)
  )


def test_a_mutant_somebody_wrote_down(mutation):
  one = mutation.given("a.py", SOURCE, "size > LIMIT", "size >= LIMIT")
  assert (one.before, one.after, one.function) == (
    "if not values and size > LIMIT:",
    "if not values and size >= LIMIT:",
    "first",
  )
  assert one.apply(SOURCE) == SOURCE.replace("size > LIMIT", "size >= LIMIT")
  assert (
    mutation.given("a.py", SOURCE, "size", "x") is None
    and mutation.given("a.py", SOURCE, "nowhere", "x") is None
  )


@pytest.mark.parametrize(
  "line",
  [
    "chex.assert_shape(x, (2, 3))",
    "del first",
    "assert x > 3",
    "pairs = [a for a in zip(x, y, strict=True)]",
    "z = jax.eval_shape(init, rng.key(0, words))",
  ],
)
def test_what_only_asserts_or_forgets_is_left_alone(mutation, line):
  found = mutation.candidates("a.py", line + "\n")
  kinds = {
    "pairs = [a for a in zip(x, y, strict=True)]": ["arguments"],
    "z = jax.eval_shape(init, rng.key(0, words))": ["arguments"],
  }
  assert [one.kind for one in found] == kinds.get(line, [])


@pytest.mark.parametrize(
  "name,swapped",
  [
    ("max", False),
    ("np.maximum", False),
    ("math.gcd", False),
    ("np.subtract", True),
    ("isinstance", True),
  ],
)
def test_arguments_whose_order_does_not_matter_are_not_swapped(mutation, name, swapped):
  found = mutation.candidates("a.py", f"x = {name}(first, second)\n")
  assert [one.after for one in found] == [f"x = {name}(second, first)"] * swapped


def test_every_entry_of_the_list_is_about_a_line_that_is_there():
  """An entry whose text is gone would be skipped, and nobody would try that wrong line again."""
  entries = tomllib.loads((program.ROOT / "tests" / "mutants.toml").read_text())
  assert len(entries["given"]) > 10
  for entry in [*entries["given"], *entries["equivalent"]]:
    count = (program.ROOT / entry["file"]).read_text().count(entry["old"])
    assert count == 1, f"{entry['file']}: {entry['old']!r} stands there {count} times"
