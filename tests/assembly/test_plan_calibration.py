"""What a calibration says, and what is refused."""

import json

import pytest

from como_jax import config as config_lib
from como_jax.assembly import plan_calibration, programs
from como_jax.parallel import flops, topology
from tests.refusals import text_of

V5E = topology.parse("v5e-16")
H100 = topology.parse("h100-8")
RUN = (
  "motion:debug",
  "--config.model.image_size=16",
  "--config.data.image_size=16",
  "--config.data.frames=3",
  "--config.train.batch_size=8",
)


def a_run(folder, *, devices="16 x TPU v5 lite (tpu)", rows=None):
  """The folder of a run: 8 clips of 3 frames a step."""
  config = config_lib.parse(["main", f"--config={RUN[0]}", *RUN[1:]]).config
  (folder / "config.json").write_text(config_lib.to_json(config))
  (folder / "versions.json").write_text(json.dumps({"hardware": {"devices": devices}}))
  rows = rows or [
    {"step": 10, "kind": "train", "pairs_per_s": 20.0, "wait_share": 0.0},
    {"step": 20, "kind": "train", "pairs_per_s": 40.0, "wait_share": 0.2},
    {"step": 20, "kind": "validation", "psnr": 3.0},
  ]
  (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return config


def test_the_utilization_of_a_run(tmp_path):
  """By hand: 40 pairs/s are 2.5 steps/s of 16 pairs; without the fifth that waited, 3.125."""
  config = a_run(tmp_path)
  found = plan_calibration.read(str(tmp_path), V5E)
  one = programs.train(config, topology.parse("cpu-1"), batch_size=8, useful=True)
  step = flops.count(one.trace().jaxpr)
  assert found.kind == "v5e" and not found.rates
  assert found.mfu == pytest.approx(step * 3.125 / 16 / 197e12)
  assert found.source == (
    f"{tmp_path}: step 20, 40.0 pairs/s on 16 x TPU v5 lite (tpu), 20% of the time spent waiting "
    "for data not counted"
  )
  assert plan_calibration.read(str(tmp_path / "metrics.jsonl"), V5E) == found


def test_runs_that_say_nothing(tmp_path):
  where = f"config.calibration={tmp_path}: "
  assert "has no readable versions.json" in text_of(
    lambda: plan_calibration.read(str(tmp_path), V5E)
  )
  a_run(tmp_path, devices="1 x cpu (cpu)")
  line = text_of(lambda: plan_calibration.read(str(tmp_path), V5E))
  assert line.startswith(f"{where}no peak is known of the devices 'cpu' that it was measured on: ")
  a_run(tmp_path, devices="8 x NVIDIA H100 80GB HBM3 (gpu)")
  assert text_of(lambda: plan_calibration.read(str(tmp_path), V5E)) == (
    f"{where}it was measured on h100, the plan is for v5e"
  )
  a_run(tmp_path, rows=[{"step": 1, "kind": "train", "pairs_per_s": 0.0}])
  assert "has no row of training with a rate" in text_of(
    lambda: plan_calibration.read(str(tmp_path), V5E)
  )
  (tmp_path / "config.json").write_text('{"task": "motion"}')
  a_rate = '{"step": 1, "kind": "train", "pairs_per_s": 1.0}'
  (tmp_path / "metrics.jsonl").write_text(a_rate)
  assert "is not of this version" in text_of(lambda: plan_calibration.read(str(tmp_path), V5E))
  (tmp_path / "versions.json").write_text("{}")
  assert "cannot be read: KeyError" in text_of(lambda: plan_calibration.read(str(tmp_path), V5E))


PAGE = """# What a train step costs, beside torch

2026-11-27, 1 x NVIDIA H100 80GB HBM3 (gpu), 16 cores

## float32, 64 pairs a step

Matrix products reach 50,000.0 GFLOP/s in jax and 50,000 in torch.

|  | pairs/s | GFLOP a pair | GFLOP/s |
| --- | --- | --- | --- |
| como_jax | 1 | 655.4 | 900000 |

## bfloat16, 64 pairs a step

Matrix products reach 700,000.5 GFLOP/s in jax and 600,000 in torch.

|  | pairs/s | GFLOP a pair | GFLOP/s |
| --- | --- | --- | --- |
| como_jax | 300 | 655.4 | 196,620 |
| torch eager | 900 | 655.4 | 600,000 |

## bfloat16, 9 clips of 8 frames a step

|  | pairs/s | GFLOP a pair | GFLOP/s |
| --- | --- | --- | --- |
| como_jax | 540 | 549.9 | 296,820 |
"""


def test_the_best_row_of_a_page(tmp_path):
  """By hand: 296.82 of 989.4 TFLOP/s are 30 %. Rows of float32 and of torch do not count."""
  file = tmp_path / "page.md"
  file.write_text(PAGE)
  found = plan_calibration.read(str(file), H100)
  assert found.mfu == pytest.approx(0.3) and found.kind == "h100"
  assert found.rates == {"tflops": pytest.approx(700.0005)}
  assert found.source.startswith(f"{file}: 296,820 GFLOP/s of a train step in bfloat16")
  file.write_text(PAGE.partition("## bfloat16")[0])
  line = text_of(lambda: plan_calibration.read(str(file), H100))
  assert "no row 'como_jax' with GFLOP/s in a section of bfloat16" in line
  file.write_text("nothing")
  assert "no peak is known of the devices ''" in text_of(
    lambda: plan_calibration.read(str(file), H100)
  )


def test_rates(tmp_path):
  file = tmp_path / "rates.json"
  given = {"chip": "h100", "source": "by hand", "mfu": 0.4, "hbm_rate": 3000}
  file.write_text(json.dumps(given))
  found = plan_calibration.read(str(file), H100)
  assert (found.source, found.mfu, found.rates) == (f"{file}: by hand", 0.4, {"hbm_rate": 3000})


@pytest.mark.parametrize(
  "text, says",
  [
    ("{", "no JSON"),
    ("[]", "'a list' is unknown"),
    ('{"chip": "h100", "hbm": 3}', "'hbm' is unknown: did you mean 'hbm_rate'?"),
    ('{"chip": "h10", "mfu": 0.1}', "chip 'h10' is unknown: did you mean 'h100'?"),
    ('{"chip": "h100", "mfu": 0}', "mfu=0, expected a number above 0"),
    ('{"chip": "h100", "tflops": "fast"}', "tflops='fast', expected a number above 0"),
    ('{"chip": "h100", "tflops": true}', "tflops=True, expected a number above 0"),
    ('{"chip": "h100", "mfu": 40}', "expected mfu of at most 1"),
    ('{"chip": "h100"}', "expected mfu of at most 1, or a rate"),
    ('{"chip": "h200", "mfu": 0.4}', "it was measured on h200, the plan is for h100"),
  ],
)
def test_rates_that_are_refused(tmp_path, text, says):
  file = tmp_path / "rates.json"
  file.write_text(text)
  line = text_of(lambda: plan_calibration.read(str(file), H100))
  assert says in line and line.startswith(f"config.calibration={file}: ") and "\n" not in line


def test_another_file_is_refused(tmp_path):
  line = text_of(lambda: plan_calibration.read(str(tmp_path / "x.csv"), H100))
  assert "the folder of a run, its metrics.jsonl, a page" in line
