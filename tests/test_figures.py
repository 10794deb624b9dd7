"""Every figure that the project claims stands in a file of results; comparing sentences say n and
an interval.
"""

import subprocess
import sys

import pytest

from tests.end_to_end import program

PAGE = "benchmarks/results/2026-11-25-co-training-cpu.md"
RECORDS = """# Runs

The table took 12.5 s of 4 tries, 3.30 GiB.

| row | success | labels, pairs/s | error |
| --- | --- | --- | --- |
| a | 47.3 % [42.8, 51.9] | 344.7 | 0.407 |
| b | 57.6 % [52.9, 62.0] | 88 | 0.435 |

```
hidden 71.25 s
```

## What it says

"""
README = f"Of it [a page]({PAGE}) says that 48.5 points hold.\n"
FIGURES = "| file | figure | source |\n| --- | --- | --- |\n"


@pytest.fixture(name="figures", scope="module")
def _figures():
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(program.ROOT / "benchmarks"))
    import check_figures

    yield check_figures
  del sys.modules["check_figures"]


@pytest.fixture(name="check")
def _check(figures, tmp_path):
  """Problems of a small checkout: what its page says, its README, allowed rows, a sentence of its
  report.
  """

  def run(
    said="", *, readme=f"[a page]({PAGE})\n", allowed="", report="nothing to see here", docs=""
  ):
    files = {
      PAGE: RECORDS + said,
      "docs/more/page.md": docs,
      "README.md": readme,
      "benchmarks/figures.md": FIGURES + allowed,
      "tests/last_run.json": '{"minutes": 13.3, "tests": 3982}',
      "como_jax/report/page.py": f'"""More than 99.25 s."""\nTEXT = "{report}"\n',
      "como_jax/assets/README.md": "A card.\n",
    }
    for name, text in files.items():
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      (tmp_path / name).write_text(text)
    return figures.check(tmp_path)

  return run


def test_the_project_claims_what_is_recorded():
  done = subprocess.run(
    [sys.executable, "benchmarks/check_figures.py"],
    cwd=program.ROOT,
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stdout.strip()) == (0, "every figure has its source"), (
    done.stdout + done.stderr
  )


def test_a_wrong_figure_ends_with_1_and_its_place(check, tmp_path):
  check("From 47 to 58 % in 12.5 s.\n\nIt took 99 s.\n")
  command = [sys.executable, "benchmarks/check_figures.py", "--root", str(tmp_path)]
  done = subprocess.run(command, cwd=program.ROOT, capture_output=True, text=True)
  line = len(RECORDS.splitlines()) + 3
  assert done.returncode == 1
  assert (
    done.stdout == f"{PAGE}:{line}: 99 s: in no file of results and not in benchmarks/figures.md\n"
  )


@pytest.mark.parametrize(
  "said",
  [
    "From 47 to 58 %: 57.6 [52.9, 62.0].",
    "345 pairs/s, 88 pairs a second",
    "an error of 0.41 against 0.435",
    "3.3 GiB, 12.5 seconds",
    "`--config.rate=0.123` and ViT-L/16",
    "four tries",
  ],
)
def test_figures_that_are_recorded(check, said):
  assert check(said) == []


@pytest.mark.parametrize(
  "said, figure",
  [
    ("46 %", "46 %"),  # 47.3 is no 46
    ("from 46 to 58 %", "46 %"),
    ("57.65 %", "57.65 %"),  # more than is recorded
    ("88.0 pairs/s", "88.0 pairs/s"),  # recorded as a whole number
    ("12.5 ms", "12.5 ms"),  # seconds
    ("47.3 points", "47.3 points"),  # percent
    ("88 frames/s", "88 frames/s"),  # of a column of pairs
    ("0.999", "0.999"),
    ("[42.8, 99.9]", "99.9"),
    ("0.407 ± 0.3", "0.3"),
    ("71.25 s", "71.25 s"),  # a command is no record
    ("eleven minutes", "eleven minutes"),
    ("five times the success", "five times"),
  ],
)
def test_figures_that_are_not(check, said, figure):
  found = check(said)
  assert [line.split(": ")[1] for line in found] == [figure], found


def test_what_a_page_says_is_no_record_of_itself(check):
  assert len(check("1.25 s of work.\n\n## What more\n\nAs said, 1.25 s.")) == 2


def test_the_readme_is_looked_up_in_the_pages_that_it_links(check):
  assert check(readme=f"[a page]({PAGE}) has 57.6 %.\n") == []
  assert check(readme="57.6 %, and 3,982 tests in 13.3 minutes.\n") == []
  assert check(readme=f"[a page]({PAGE}) has 57.9 %.\n") != []
  assert check(readme="Of 0.98 %.\n")[0].startswith("README.md:1: 0.98 %: in no file")


def test_the_pages_of_docs_are_looked_up_and_what_they_link(check):
  assert check(docs=f"[a page](../../{PAGE}) has 57.6 %: better, n = 3, [52.9, 62.0].\n") == []
  assert check(docs=f"[a page](../../{PAGE}) has 57.9 %.\n")[0].startswith(
    "docs/more/page.md:1: 57.9 %: in no file"
  )
  assert check(docs="A is better.\n") == [
    "docs/more/page.md:1: 'better' compares without n and interval: A is better."
  ]
  # what only docs/ links is looked up too
  said = "It took 99 s.\n"
  assert check(said, readme="Nothing.\n") == []
  assert "99 s" in check(said, readme="Nothing.\n", docs=f"[a page](../../{PAGE})\n")[0]


def test_the_report_is_looked_up_and_docstrings_are_not(check):
  assert check(report="in 12.5 s all of it") == []
  assert check(report="in 99 s all of it")[0].startswith("como_jax/report/page.py:2: 99 s")


def test_what_is_allowed_is_used_and_arithmetic_is_done_again(check):
  row = f"| {PAGE} | 10.3 points | {{}} |\n"
  assert check("by 10.3 points", allowed=row.format("= 57.6 - 47.3")) == []
  assert check("by 10.3 points", allowed=row.format("= 57.6 - 42.8")) != []
  assert check("by 7 %", allowed=f"| {PAGE} | 7 % | = 0.435 / 0.407 - 1 |\n") == []
  with pytest.raises(ValueError, match="0.9 is in no record"):
    check("by 7 %", allowed=f"| {PAGE} | 7 % | = 0.435 / 0.9 - 1 |\n")
  assert check("by hand, 9.87 s.", allowed=f"| {PAGE} | by hand, 9.87 s | as it says |\n") == []
  assert check("", allowed=row.format("a goal")) == [
    f"benchmarks/figures.md: {PAGE}: '10.3 points' is claimed nowhere, or is found elsewhere"
  ]
  with pytest.raises(SystemExit, match="expected file, figure and source"):
    check("", allowed=f"| {PAGE} | 7 % | |\n")


@pytest.mark.parametrize(
  "said, missing",
  [
    ("a is better than b.", "n and interval"),
    ("a is better than b (n = 3).", "interval"),
    ("a is higher, 57.6 [52.9, 62.0].", "n"),
    ("* a is as good as b.\n* n = 3, [52.9, 62.0].", "n and interval"),  # another item
    ("a beats b, [52.9, 62.0], three runs.", None),
    ("a helps: one seed, no interval.", None),
    ("More than a goal: a is slower than b in 3 trained episodes, 57.6 [52.9, 62.0].", None),
  ],
)
def test_comparing_sentences_say_n_and_interval(check, said, missing):
  found = check(said)
  assert [line.split("without ")[1].split(":")[0] for line in found] == [missing] * bool(missing), (
    found
  )
