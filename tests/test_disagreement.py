"""Pairs of latents that the published metrics and the exam put in opposite order: on made tables of
runs.
"""

import argparse
import json
import types

import numpy as np
import pytest

from como_jax import errors
from tests.end_to_end import program

MODULES = (
  "disagreement",
  "disagreement_exam",
  "disagreement_pairs",
  "disagreement_picture",
  "disagreement_rows",
  "variants",
  "common",
)
STORED = {
  name: {
    "e_z": e_z,
    "e_z_low": e_z - 0.02,
    "e_z_high": e_z + 0.02,
    "width": 32.0,
    "e_single": 0.75,
    "e_both": 0.6,
  }
  for name, e_z in (("components of the difference", 0.9), ("components of the optical flow", 0.64))
}
JITTER = (0.004, -0.002, 0.0, 0.003, -0.005)


@pytest.fixture(name="load", scope="module")
def _load():
  with program.benchmarks(*MODULES) as load:
    yield load


@pytest.fixture(name="row")
def _row(load):
  """row(name, LP-MSE, S-PCFC or None, e_z, spread): five seeds about these values."""
  rows = load("disagreement_rows")

  def made(name, lp_mse, s_pcfc, e_z, spread=1.0, shift=0):
    def around(value, turn):
      return value + spread * np.roll(JITTER, turn + shift)

    values = [
      around(lp_mse, 0),
      [None] * 5 if s_pcfc is None else around(s_pcfc, 1),
      around(e_z, 2),
    ]
    runs = {
      seed: rows.Measured((lp, 0.05), e, s)
      for seed, (lp, s, e) in enumerate(zip(*values, strict=True))
    }
    return rows.Row(name, runs)

  return made


def test_a_clear_disagreement_is_found_and_named_in_order(load, row):
  pairs = load("disagreement_pairs")
  found = pairs.search([row("seen", 0.9, 0.3, 0.6), row("copies", 0.8, 0.1, 0.95, shift=2)], {})
  assert found.looked == 1 and len(found.clear) == 1
  one = found.clear[0]
  assert (one.published.name, one.exam.name, one.unit) == ("copies", "seen", "5 seeds")
  assert [round(one.gaps[metric].value, 3) for metric in ("lp_mse", "s_pcfc", "e_z")] == [
    -0.1,
    -0.2,
    0.35,
  ]


@pytest.mark.parametrize("noisy", [0, 1, 2])
def test_one_unclear_difference_is_no_disagreement(load, row, noisy):
  """The three gaps are equally large; one of them has forty times the spread over seeds."""
  pairs, rows = load("disagreement_pairs"), load("disagreement_rows")
  spread = [40.0 if noisy == metric else 1.0 for metric in range(3)]
  runs = {
    seed: rows.Measured(
      (0.8 + spread[0] * jitter, 0.05), 0.9 + spread[2] * jitter, 0.1 + spread[1] * jitter
    )
    for seed, jitter in enumerate(JITTER)
  }
  found = pairs.search([rows.Row("noisy", runs), row("steady", 0.9, 0.2, 0.8, shift=1)], {})
  assert len(found.pairs) == 1 and not found.clear
  gaps = found.pairs[0].gaps
  assert (
    found.pairs[0].p
    == max(gap.p for gap in gaps.values())
    > 0.05
    > min(gap.p for gap in gaps.values())
  )
  assert [not gap.clear for gap in gaps.values()] == [noisy == metric for metric in range(3)]


def test_a_latent_that_both_prefer_is_no_disagreement(load, row):
  found = load("disagreement_pairs").search(
    [row("good", 0.7, 0.1, 0.6), row("bad", 0.9, 0.3, 0.9, shift=2)], {}
  )
  assert found.looked == 1 and not found.pairs


def test_the_two_published_metrics_have_to_agree_unless_one_is_not_known(load, row):
  pairs, good = load("disagreement_pairs"), row("good", 0.9, 0.3, 0.6)
  assert not pairs.search([good, row("mixed", 0.8, 0.5, 0.9, shift=2)], {}).pairs
  alone = pairs.search([good, row("alone", 0.8, None, 0.9, shift=2)], {})
  assert len(alone.clear) == 1 and set(alone.clear[0].gaps) == {"lp_mse", "e_z"}


def test_the_correction_is_over_all_pairs_looked_at(load, row):
  """A disagreement that one look would call clear; further rows agree with everything and only add
  looks.
  """
  pairs = load("disagreement_pairs")
  two = [row("one", 0.80, None, 0.82, 4.0), row("other", 0.84, None, 0.78, 4.0, shift=2)]
  alone = pairs.search(two, {})
  more = pairs.search(
    [*two, *(row(f"far {i}", 2.0 + i, None, 2.0 + i, shift=i) for i in range(6))], {}
  )
  assert alone.clear and alone.pairs[0].p < 0.05 and not more.clear and more.looked == 28
  assert more.pairs[0].holm == pytest.approx(min(1.0, 28 * alone.pairs[0].p))


def test_single_runs_are_compared_by_bounds_that_hold_whatever_the_correlation(load):
  pairs, rows = load("disagreement_pairs"), load("disagreement_rows")
  one = rows.Measured((0.70, 0.08), 0.6, gains=((0.8, 0.01), (0.9, 0.3)))
  same, other = (
    rows.Measured((0.75, 0.08), 0.7, gains=((0.8, 0.015),)),
    rows.Measured((0.75, 0.08), 0.7, gains=((0.81, 0.015),)),
  )

  def reach(gap):
    return (gap.high - gap.low) / 2 / 1.959964

  assert reach(pairs.lp_mse(one, same)) == pytest.approx(0.025) and pairs.lp_mse(one, same).clear
  assert (
    reach(pairs.lp_mse(one, other)) == pytest.approx(0.16) and not pairs.lp_mse(one, other).clear
  )
  assert (
    str(pairs.s_pcfc(rows.Measured((1, 1), 1, 0.5), rows.Measured((1, 1), 1, 0.2)))
    == "+0.300, no interval"
  )


def test_a_single_runs_s_pcfc_is_compared_over_motions(load, tmp_path):
  pairs, rows = load("disagreement_pairs"), load("disagreement_rows")
  rng, found = np.random.default_rng(0), []
  ids = {name: np.arange(60) // 3 for name in ("dataset", "episode", "time", "camera", "group")}
  for name, noise in (("one", 0.1), ("two", 1.5)):
    past = rng.normal(size=(60, 8))
    (tmp_path / name / "probe").mkdir(parents=True)
    np.savez(
      tmp_path / name / "probe" / "latents.npz",
      past=past,
      future=past + noise * rng.normal(size=past.shape),
      **ids,
    )
    found.append(rows.Measured((1.0, 0.1), 0.5, 0.9, folder=tmp_path / name))
  gap = pairs.s_pcfc(*found)
  assert gap.low > 0.1 and gap.unit == "20 held-out motions" and gap.p < 1e-6
  assert pairs.s_pcfc(found[1], found[0]).value == pytest.approx(-gap.value)
  ids["time"] = ids["time"] + 1  # other windows: nothing to pair
  np.savez(tmp_path / "two" / "probe" / "latents.npz", past=past, future=past, **ids)
  assert str(pairs.s_pcfc(*found)) == "+0.000, no interval"


def test_ranks_of_few_rows_are_not_spoken_of(load, row):
  pairs, page = load("disagreement_pairs"), load("disagreement")
  rows = [row(f"row {i}", 0.5 + 0.1 * i, 0.9 - 0.1 * i, 0.4 + 0.1 * i) for i in range(6)]
  few, whole = pairs.correlation(rows[:3], "lp_mse"), pairs.correlation(rows, "lp_mse")
  assert "n = 3 rows, too few" in page.rank_sentence(few, "lp_mse")
  assert (whole.spearman, whole.kendall, whole.n) == (pytest.approx(1), pytest.approx(1), 6)
  assert whole.p_spearman == pytest.approx(
    2 / 720
  ) and "alike more than chance" in page.rank_sentence(whole, "lp_mse")
  assert "in opposite order more than chance" in page.rank_sentence(
    pairs.correlation(rows, "s_pcfc"), "s_pcfc"
  )
  four = pairs.correlation(rows[:4], "lp_mse")  # 2 of 24 orders are as extreme
  assert four.p_spearman == pytest.approx(
    2 / 24
  ) and "not told from no relation" in page.rank_sentence(four, "lp_mse")


def written(folder, *, lp_mse=0.7, e_z=0.6, windows=600, components_of="flow", **more):
  """A run's files."""
  rows = {
    "trained": {
      "lp_mse": [lp_mse, 0.05],
      "s_pcfc": 0.2,
      "lp_gain": [0.1, 0.02],
      "lp_gain_difference": [0.2, 0.03],
    },
    "untrained": {"lp_mse": [lp_mse + 0.1, 0.06], "s_pcfc": -0.3},
    "difference": {"lp_mse": [lp_mse + 0.2, 0.07]},
  }
  taken = {"trained": {"e_z": e_z, "width": 32.0, "excess/scene": 0.3}, **STORED} | more
  motion = {
    "encoder_weights": "bundled",
    "model": {"idm": {"components": 32, "components_of": components_of}},
  }
  for name, content in (
    (
      "probe/metrics",
      {"rows": rows, "windows": windows, "data": ["bundled"], "offset_seconds": [0.15]},
    ),
    ("exam/exam", {"tier": "hand", "rows": taken}),
    ("motion/config", motion),
  ):
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
  return folder


def test_folders_are_read_as_rows_and_what_cannot_be_used_is_named(load, tmp_path):
  rows = load("disagreement_rows")
  good = [written(tmp_path / f"Td---Tcl-350-{seed}") for seed in range(2)]
  other = written(tmp_path / "none--w-o-VQ--350-0", components_of="features")
  bare, windows = written(tmp_path / "VQ-350-0"), written(tmp_path / "KL-350-0", windows=7)
  foreign = written(tmp_path / "Td-350-0", **{"components of the difference": {"e_z": 0.91}})
  (bare / "exam" / "exam.json").unlink()
  found = rows.read([*good, other, bare, windows, foreign, tmp_path / "nowhere"], STORED)
  assert [(row.name, sorted(row.runs)) for row in found.rows if row.trained] == [
    ("Td + Tcl, 350 steps", [0, 1]),
    ("none (w/o VQ), 350 steps", [0]),
  ]
  assert [line.partition(":")[0] for line in found.left] == [
    "VQ-350-0",
    "KL-350-0",
    "Td-350-0",
    "nowhere",
  ]
  assert (
    "exam/exam.json is missing" in found.left[0]
    and "7 held-out windows" in found.left[1]
    and "another set" in found.left[2]
  )
  (flow,) = (
    row.first for row in found.rows if row.name.startswith("components of the optical flow")
  )
  assert flow.lp_mse[0] == pytest.approx(0.8) and flow.s_pcfc == -0.3 and flow.e_z == 0.64
  with pytest.raises(errors.UserError, match="exam/exam.json is missing"):
    rows.read([bare], STORED)


def test_rows_without_training_are_paired_only_where_they_are_the_same_latent(load, tmp_path):
  rows = load("disagreement_rows")

  def names(found):
    return [row.name for row in found.rows if not row.trained]

  one = written(tmp_path / "a", components_of="features")
  assert names(rows.read([one], STORED)) == ["components of the difference (no training)"]
  wide = written(tmp_path / "b", trained={"e_z": 0.6, "width": 128.0, "excess/scene": 0.3})
  found = rows.read([wide], STORED)
  assert names(found) == [] and len(found.untrained) == 2 and "no run" in found.untrained[0]


@pytest.fixture(name="exam")
def _exam(load):
  """What the page reads of a set."""
  exams = load("disagreement_exam")
  made = types.SimpleNamespace(
    stored=STORED,
    chains=np.repeat(np.arange(5), 2),
    set=types.SimpleNamespace(
      rows=lambda part: np.arange(10), target=np.ones((10, 3)), variance=np.ones(3)
    ),
  )
  return types.SimpleNamespace(**vars(made), s=lambda e_z: exams.Exam.s(made, e_z))


def test_the_page_says_what_is_shown_and_that_nothing_is(load, row, exam):
  page, pairs = load("disagreement"), load("disagreement_pairs")
  rows = [row("seen", 0.9, 0.3, 0.6), row("copies", 0.8, 0.1, 0.95, shift=2)]
  found = load("disagreement_rows").Found(rows, [], ["a row: a reason"], "600 windows")
  text = "\n".join(page.page(found, pairs.search(rows, {}), exam, given=False))
  assert (
    "LP-MSE and S-PCFC prefer **copies** to **seen**" in text
    and "Of 1 pair looked at" in text
    and "5 seeds" in text
  )
  assert (
    "| seen | 5 | 0.900 [0.895, 0.905] | 0.300 [0.295, 0.305] | 0.600 [0.595, 0.605] | 1.00 |"
    in text
  )
  nothing = [rows[0], row("worse", 1.0, 0.5, 0.95, shift=2)]
  text = "\n".join(page.page(found, pairs.search(nothing, {}), exam, given=False))
  assert "**No clear disagreement.** Of 1 pair looked at, 0 have values in opposite order" in text


def test_latents_that_do_not_fit_leave_a_difference_without_an_interval(load, tmp_path, exam):
  """Where they are missing, and where they are of another set; else the chains are drawn again."""
  pairs, rows = load("disagreement_pairs"), load("disagreement_rows")
  rng, values = np.random.default_rng(1), {}

  def failing(one):
    if one not in values:
      raise errors.UserError("of another set")
    return values[one]

  exam.errors, measured = failing, []
  for name, scale in (("one", 0.2), ("two", 0.6), ("bare", 0.4), ("foreign", 0.4)):
    measured.append(rows.Measured((1.0, 0.1), scale, folder=written(tmp_path / name)))
    if name != "bare":
      np.savez(tmp_path / name / "exam" / "latents.npz", z=np.zeros((2, 2)))
    if name != "foreign":
      values[measured[-1]] = scale * rng.uniform(0.5, 1.5, size=(10, 3))
  gap = pairs.e_z(exam, measured[0], measured[1])
  assert gap.high < -0.1 and gap.unit == "5 test chains" and gap.p < 0.001
  for other in measured[2:]:
    assert str(pairs.e_z(exam, measured[0], other)) == "-0.200, no interval"


def test_a_row_that_is_not_there_has_a_near_name(load, tmp_path, monkeypatch, exam):
  page = load("disagreement")
  monkeypatch.setattr(page, "Exam", lambda folder: exam)
  options = argparse.Namespace(
    runs=[written(tmp_path / "one")],
    pair=["one", "components of the flow"],
    set="bundled",
    out=None,
  )
  with pytest.raises(errors.UserError, match="did you mean 'components of the optical flow"):
    page.report(options)


def test_the_picture_is_small_and_has_the_arrows_colors(load, tmp_path):
  """Gray pictures: all that has a color are the arrows."""
  picture = load("disagreement_picture")
  gray = np.full((128, 128, 3), 128, np.uint8)
  move = picture.Move(
    3,
    (gray, gray),
    np.zeros((2, 2)),
    np.array([0.1, 0.0]),
    (np.array([0.0, 0.1]), np.array([-0.1, 0.0])),
  )
  picture.draw([move] * 6, ("A", "B"), tmp_path / "p.png")
  assert (tmp_path / "p.png").stat().st_size < 400_000
  with picture.Image.open(tmp_path / "p.png") as image:
    pixels = np.asarray(image.convert("RGB"))
  panel = pixels[30:200, 395:565].astype(int)  # the third of the first row

  def where(color):
    return np.argwhere(
      (np.abs(panel - np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])) < 12).all(axis=-1)
    ).mean(axis=0)

  truth, first, second = (where(color) for color in (picture.TRUTH, picture.FIRST, picture.SECOND))
  assert (
    first[0] > truth[0] + 20 and second[1] < truth[1] - 40 and abs(second[0] - truth[0]) < 8
  )  # down; left; right
