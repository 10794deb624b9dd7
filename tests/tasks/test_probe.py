"""A run of the probe over a model whose z is constant."""

import json

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import weights
from como_jax.tasks import probe
from tests.data import makers
from tests.end_to_end import program
from tests.models import tiny


@pytest.fixture(name="done", scope="module")
def _done(tmp_path_factory):
  """(metrics, columns of the held-out windows, what the page was given) of a model whose z is
  always 1.
  """
  root = tmp_path_factory.mktemp("probe")
  data = makers.shards(root / "s", (14,) * 12, task=lambda i: f"task {i}")
  params = tiny.made(tiny.MOTION)[1]
  flat = jax.tree.map(np.zeros_like, params["idm"]["bottleneck"])
  flat["down_1"]["bias"] = np.ones_like(flat["down_1"]["bias"])
  constant = {**params, "idm": {**params["idm"], "bottleneck": flat}}
  section = tiny.section(tiny.MOTION)
  run = {
    "path": data,
    "mixture": [],
    "offset_seconds": 0.2,
    "resize": "squash",
    "validation_fraction": 0.4,
  }
  weights.save(root / "m", constant, {"model": section, "data": run})
  pages = []
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      probe.report, "write", lambda folder, page: pages.append(page) or folder / "report.html"
    )
    words = [
      f"--config={program.ROOT}/configs/probe.py:debug",
      f"--workdir={root / 'p'}",
      f"--config.checkpoint={root / 'm'}",
      "--config.batch_size=8",
      "--config.pictures=3",
      "--config.windows=500",
      "--config.fit_windows=500",
    ]
    assert probe.run(config_lib.parse(["main", *words])) == 0
  with np.load(root / "p" / "latents.npz") as columns:
    return json.loads((root / "p" / probe.METRICS).read_text()), dict(columns), pages[0]


def test_a_constant_z_scores_what_the_mean_scores_and_the_untrained_row_is_the_other(done):
  summary, columns, _ = done
  rows = summary["rows"]
  assert list(rows) == [
    "trained",
    "untrained",
    "difference",
    "first-only",
    "second-only",
    "both-pictures",
    "true-state-change",
    "true-state",
    "copy-current-frame",
  ] and summary["offset_seconds"] == [0.2]
  np.testing.assert_allclose(columns["z"], 1, atol=1e-6)
  assert rows["trained"]["effective_rank"] == 0 and rows["untrained"]["effective_rank"] > 1
  assert rows["trained"]["s_pcfc"] == pytest.approx(1)
  # Every window of every episode, at 10 frames a second: pairs of frames t + 2 and t + 4, whose
  # mean action is (t + 2.5, episode, -t - 2.5).
  held = sorted(set(np.rint(columns["action"][:, 1, 1]).astype(int)))
  assert 2 <= len(held) <= 8 and summary["windows"] == 10 * len(held)

  def action(episodes):
    return np.array([(t + 2.5, e, -t - 2.5) for e in episodes for t in range(10)])

  fitted, scored = action(set(range(12)) - set(held)), action(held)
  expected = ((scored - fitted.mean(0)) ** 2).mean(0) / fitted.var(0)
  assert rows["trained"]["lp_mse"][0] == pytest.approx(expected.mean(), rel=1e-5)
  gain = rows["untrained"]["lp_mse"][0] - rows["trained"]["lp_mse"][0]
  assert (
    rows["trained"]["lp_gain"][0] == pytest.approx(gain)
    and "state_lp_gain" in rows["trained"]
    and "lp_gain" not in rows["untrained"]
  )
  gain = rows["difference"]["lp_mse"][0] - rows["trained"]["lp_mse"][0]
  assert rows["trained"]["lp_gain_difference"][0] == pytest.approx(gain) and set(
    rows["difference"]
  ) < set(rows["untrained"])
  # the state never changes
  assert rows["trained"]["kr_mse"][0] == pytest.approx(expected.mean(), rel=0.05) and set(
    rows["both-pictures"]
  ) == {"kr_mse"}
  gain = rows["first-only"]["lp_mse"][0] - rows["trained"]["lp_mse"][0]
  assert rows["trained"]["lp_gain_first"][0] == pytest.approx(gain) and set(
    rows["first-only"]
  ) == set(rows["second-only"]) > {"kr_mse", "lp_mse"}
  assert any(
    note == "motion score of action: withheld: there is one camera only"
    for note in summary["notes"]
  )
  # Frames are flat and 12 gray levels lighter after 2 frames of time.
  assert rows["copy-current-frame"]["reconstruction_mse"] == pytest.approx(
    (12 / 255) ** 2, rel=1e-4
  )
  assert rows["trained"]["copy_ratio"] == pytest.approx(
    rows["trained"]["reconstruction_mse"] / (12 / 255) ** 2, rel=1e-4
  )


def test_the_page_is_of_the_trained_model(done):
  summary, columns, page = done
  assert json.loads(json.dumps(page.metrics), parse_constant=str) == json.loads(
    json.dumps(summary["rows"]), parse_constant=str
  )
  np.testing.assert_array_equal(page.s_pcfc["trained"], np.ones(summary["windows"]))
  assert page.s_pcfc["untrained"].min() < 0.999
  assert page.reconstruction.current.shape == (3, 16, 16, 3) and page.reconstruction.captions[
    0
  ].endswith(", camera")
  # The motion of each pair is drawn onto the first frame of the one before it.
  np.testing.assert_array_equal(page.transfer.b_current, page.reconstruction.current[[2, 0, 1]])
  np.testing.assert_array_equal(page.transfer.a_future, page.reconstruction.target)
  assert list(page.probes) == ["action: a", "action: b", "action: c", "state: x", "state: y"]
  np.testing.assert_allclose(page.probes["action: a"].true, columns["action"][:, 1, 0])
  assert (
    set(page.pca.colors) == {"action: a", "action: b", "action: c"} and not page.pca.points.any()
  )
  assert page.metric_notes[0].startswith("Measured on the validation episodes of the training run")
