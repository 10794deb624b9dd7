"""A report with every part, and what is on its page."""

import html.parser

import numpy as np

from como_jax import report
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


def full_report():
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
    goodput=report.Goodput(
      100.0,
      {"productive": 61.5, "restarting": 30.0, "lost": 8.0},
      0.5,
      7,
      [
        {"began": "2026-11-02 03:04:05", "from_step": 0, "to_step": 12_345, "seconds": 50.0},
        {"began": "2026-11-02 04:04:05", "from_step": 5, "to_step": 20, "seconds": 50.0},
      ],
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
  "goodput": "goodput",
  "run": "time",
  "config": "config",
}


class Page(html.parser.HTMLParser):
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
