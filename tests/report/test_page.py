"""The page holds what it was given, needs nothing but itself, and its plots show something."""

import dataclasses
import html.parser
import re

import numpy as np
import pytest
from PIL import Image

from como_jax import errors, report
from tests.report.pictures import frames

METRICS = {
  "trained": {
    "lp_mse": (0.4, 0.02),
    "s_pcfc": 0.6,
    "effective_rank": 7.0,
    "copy_ratio": 0.7,
    "my own": 3.0,
  },
  "untrained": {"lp_mse": (0.9, 0.01), "s_pcfc": 0.8, "effective_rank": 4.0, "ssim": float("nan")},
  "copy current frame": {"copy_ratio": 1.0},
}


def _full():
  rng = np.random.default_rng(0)
  steps = np.arange(40)
  return report.ReportData(
    title="Run <one> & only",
    summary="A summary.",
    metrics=METRICS,
    metric_notes=["split by episode"],
    curves={
      "loss": (steps, np.exp(-steps / 3.0)),
      "validation/loss": (steps[::8], np.exp(-steps[::8] / 3.0)),
    },
    reconstruction=report.Reconstruction(frames(0), frames(1), frames(2), ["open <drawer>"]),
    transfer=report.Transfer(frames(0), frames(1), frames(2), frames(3)),
    s_pcfc={"trained": rng.uniform(-1, 1, 50), "untrained": rng.uniform(0, 1, 50)},
    probes={"x": report.Scatter(rng.normal(size=50), rng.normal(size=50), 0.1, "cm")},
    pca=report.Projection(rng.normal(size=(50, 2)), {"x [cm]": rng.normal(size=50)}, (0.5, 0.2)),
    similarity=report.Similarity(
      np.array([[0.5, np.nan], [-0.1, 0.6]]), ["reach / top", "push / top"]
    ),
    rollouts=report.Rollouts(
      {"reach": (0.8, 0.6, 0.9), "push": (0.0, 0.0, 0.2)},
      20,
      {"reach, success": frames(4), "push, failure": frames(5)},
    ),
    config={"model": {"kind": "motion"}, "path": "<script>alert('x')</script>"},
    versions={"jax": "0.10"},
    hardware={"devices": "1 cpu"},
    time={"training": "3 min"},
    commands=["python -m como_jax.main --config 'a & b'"],
    quarantine=[("bad.mp4", "no video"), {"name": "worse.mp4", "reason": "truncated"}],
    notes=["one seed"],
  )


SECTIONS = {
  "verdict": "metrics",
  "metrics": "metrics",
  "rollouts": "rollouts",
  "curves": "curves",
  "reconstruction": "reconstruction",
  "transfer": "transfer",
  "s-pcfc": "s_pcfc",
  "probes": "probes",
  "pca": "pca",
  "similarity": "similarity",
  "notes": "notes",
  "quarantine": "quarantine",
  "commands": "commands",
  "run": "time",
  "config": "config",
}


class _Page(html.parser.HTMLParser):
  """Collects ids, links and tags, and checks that tags are closed in order."""

  def __init__(self, text):
    super().__init__()
    self.ids, self.references, self.tags, self.open = [], [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    for name, value in attrs:
      if name == "id":
        self.ids.append(value)
      if name in ("src", "href", "srcset"):
        self.references.append(value)
    if tag not in ("meta", "img", "source"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  page = report.write(tmp_path_factory.mktemp("report") / "run", _full())
  return page, page.read_text(encoding="utf-8")


def test_every_section_is_there_and_linked(written):
  page, text = written
  parsed = _Page(text)
  assert page.name == "report.html" and parsed.ids == list(SECTIONS)
  assert [ref for ref in parsed.references if ref.startswith("#")] == [
    "#" + anchor for anchor in SECTIONS
  ]
  for content in (
    "A summary.",
    "split by episode",
    "one seed",
    "worse.mp4",
    "truncated",
    "model.kind",
    "my own",
    "± 0.02",
  ):
    assert content in text


def test_nothing_outside_the_page_is_needed(written):
  _, text = written
  parsed = _Page(text)
  assert all(ref.startswith(("#", "data:image/png;base64,")) for ref in parsed.references)
  assert not re.search(r"https?://|url\(|@import", text) and not {"script", "link", "iframe"} & set(
    parsed.tags
  )


def test_text_is_escaped(written):
  _, text = written
  assert "<script" not in text and "&lt;script&gt;" in text and "<drawer>" not in text
  assert "<title>Run &lt;one&gt; &amp; only</title>" in text and "a &amp; b" in text


def test_images_exist_and_show_something(written):
  page, text = written
  names = {path.name for path in page.parent.glob("*.png")}
  drawn = {"curves", "s_pcfc", "probes", "pca", "similarity", "success"}
  assert names == {f"{n}{s}.png" for n in drawn for s in ("", "-dark")} | {
    "reconstruction.png",
    "transfer.png",
    "films.png",
  }
  for name in names:
    image = np.asarray(Image.open(page.parent / name).convert("RGB"))
    assert image.std() > 2 and min(image.shape[:2]) > 100, name
  for name in drawn:
    light, dark = (
      np.asarray(Image.open(page.parent / f"{name}{s}.png").convert("L")) for s in ("", "-dark")
    )
    assert light.shape == dark.shape and np.median(light) > 240 and np.median(dark) < 40


@pytest.mark.parametrize("anchor", [name for name in SECTIONS if name != "verdict"])
def test_a_missing_part_is_left_out(anchor, tmp_path, monkeypatch):
  monkeypatch.setattr("como_jax.report.markup.figure", lambda *_: "")  # drawing is tested above
  empty = report.ReportData(title="empty")
  fields = ("time", "hardware", "versions") if anchor == "run" else (SECTIONS[anchor],)
  data = dataclasses.replace(_full(), **{field: getattr(empty, field) for field in fields})
  ids = _Page(report.write(tmp_path / "page.html", data).read_text(encoding="utf-8")).ids
  gone = {anchor, "verdict"} if anchor == "metrics" else {anchor}
  assert ids == [name for name in SECTIONS if name not in gone]


def test_empty_report(tmp_path):
  page = report.write(tmp_path, report.ReportData(title="nothing yet"))
  assert _Page(page.read_text(encoding="utf-8")).ids == [] and not list(tmp_path.glob("*.png"))


def test_what_is_read_from_the_robots_own_numbers_is_not_the_best(tmp_path):
  rows = METRICS | {
    "true-state": {"lp_mse": 0.1},
    "true-state-change": {"lp_mse": 0.2},
    "both-pictures": {"lp_mse": 0.05},
  }
  text = report.write(tmp_path, report.ReportData(title="x", metrics=rows)).read_text(
    encoding="utf-8"
  )
  assert '<td class="best">0.400' in text and "<td>0.100" in text and "<td>0.200" in text


def test_unwritable_folder(tmp_path):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(errors.UserError, match="cannot be written"):
    report.write(tmp_path / "file" / "run", report.ReportData(title="x"))
