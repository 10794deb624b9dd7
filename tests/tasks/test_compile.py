"""Plans: of the small models on eight CPU devices, and of a TPU where libtpu is installed."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from como_jax import config as config_lib
from como_jax import main
from como_jax.assembly import programs
from como_jax.parallel import flops, topology
from como_jax.tasks import compile as task

ROOT = pathlib.Path(__file__).parent.parent.parent
SMALL = "model.image_size=16 data.image_size=16 model.idm.depth=1 model.fdm.depth=1 "


def words(tmp_path, *more):
  return [
    "main",
    f"--config={ROOT}/configs/compile.py:debug",
    f"--config.of={ROOT}/configs/motion.py:debug",
    "--workdir",
    str(tmp_path / "plan"),
    *more,
  ]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
  path = tmp_path_factory.mktemp("compile")
  changes = "--config.changes=" + SMALL + "train.mesh.data=2 train.mesh.fsdp=4 model.remat=full"
  assert (
    main.main(
      words(
        path,
        "--config.topology=cpu-4x2",
        changes,
        "--config.batch_per_device=2",
        "--config.extract_batch=2",
      )
    )
    == 0
  )
  return json.loads((path / "plan" / "plan.json").read_text()), (
    path / "plan" / "plan.md"
  ).read_text()


def test_a_plan_of_the_train_and_extract_steps(planned):
  result, page = planned
  train, extract = result["programs"]
  assert (train["program"], train["devices"], train["batch"], train["mesh"]) == (
    "train",
    8,
    16,
    {"data": 2, "fsdp": 4, "tensor": 1},
  )
  assert (extract["program"], extract["devices"], extract["batch"], extract["trainable"]) == (
    "extract",
    4,
    8,
    0,
  )
  assert train["fits"] is None and 0 < train["trainable"] < train["parameters"]
  memory = train["memory"]
  assert memory["needed"] == pytest.approx(
    memory["arguments"]
    + memory["temporaries"]
    + memory["code"]
    + memory["outputs"]
    - memory["aliased"]
  )
  assert memory["aliased"] > 0.9 * memory["outputs"]  # the state is donated
  # the fixed weights, spread over four devices but for small leaves, are not written
  frozen = 4 * (train["parameters"] - train["trainable"]) / 4
  assert 0.95 * frozen < memory["unchanged"] * 2**30 < 1.2 * frozen
  # The fixed weights of the encoder and the state of the rest, spread over four devices (small
  # leaves are whole).
  assert memory["arguments"] * 2**30 > 4 * (train["parameters"] + 2 * train["trainable"]) / 4
  assert train["flops"] > 1.05 * train["model_flops"] > 0  # remat=full computes the layers again
  assert extract["flops"] == extract["model_flops"]
  kinds = {row["kind"]: row for row in train["collectives"]}
  # the encoder's six layers are gathered one after the other
  assert "all-gather" in kinds and kinds["all-gather"]["count"] >= 6
  crossing = sum(row["dcn"] for row in train["collectives"])
  assert 4 * train["trainable"] / 4 * 0.9 < crossing  # the gradient's part of each device, at least
  assert train["hbm_bytes"] > 0 and not train["loops_unknown"] and "roofline" not in train
  for text in (
    "# Plan: ",
    "## train on cpu-4x2",
    "| all-gather |",
    "no limit is known",
    "`python -m como_jax.main",
  ):
    assert text in page
  short = task.plan_page.short(result)
  assert (
    result["command"] in short
    and "| train | 8 (2 x 4 x 1) | 2 clips |" in short
    and short.count("\n| ") == 4
  )


@pytest.mark.parametrize(
  "given, expected",
  [
    (["--config.topology=v5e-17"], "did you mean 'v5e-16'"),
    (["--config.programs=('trian',)"], "did you mean 'train'"),
    (["--config.programs=('policy',)"], "has only train, extract"),
    (["--config.batch_per_device=-1"], "expected a whole number of at least 0"),
    (["--config.changes=train.stesp=3"], "did you mean 'steps'"),
    (["--config.changes=train.mesh.fsdp=3 train.mesh.data=1"], "does not fill the 8 devices"),
    ([f"--config.of={ROOT}/configs/probe.py"], "trains nothing, one of motion, mae, policy"),
    (["--config.of=configs/motoin.py"], "exists neither in"),
    (["--config.calibration=runs/nowhere"], "config.calibration=runs/nowhere does not exist"),
  ],
)
def test_mistakes_are_one_line(tmp_path, capsys, given, expected):
  assert main.main(words(tmp_path, *given)) == 2
  error = capsys.readouterr().err
  assert expected in error and error.count("\n") == 1 and not (tmp_path / "plan").exists()


def test_the_verdict_of_a_refused_program():
  refused = dict(memory=dict(available=15.75, needed=31.0, refused=True))
  assert (
    task.plan_page.verdict(refused)
    == "**Does not fit**: at least 31.00 of 15.75 GiB a device, 15.25 too much."
  )


def test_a_plan_for_gpus(tmp_path):
  """Two nodes of four; the operations are those of the plan for CPUs."""
  rates = tmp_path / "rates.json"
  rates.write_text('{"chip": "h100", "source": "made up", "mfu": 0.25}')
  changes = "--config.changes=" + SMALL + "train.mesh.data=2 train.mesh.fsdp=4 model.dtype=bfloat16"
  given = words(
    tmp_path,
    "--config.topology=h100-4x2",
    changes,
    "--config.programs=('train',)",
    "--config.batch_per_device=2",
    f"--config.calibration={rates}",
  )
  assert main.main(given) == 0
  plan = json.loads((tmp_path / "plan" / "plan.json").read_text())
  (train,) = plan["programs"]
  assert train["estimated"] and train["fits"] and train["memory"]["available"] == 59.7
  assert "libtpu" not in plan["versions"] and train["hbm_bytes"] is None
  kinds = {row["kind"]: row for row in train["collectives"]}
  # bfloat16: two bytes of each trained weight that is spread are scattered
  assert 0.8 * 2 * train["trainable"] < kinds["reduce-scatter"]["bytes"] < 2 * train["trainable"]
  assert sum(row["dcn"] for row in train["collectives"]) > 0
  times = train["roofline"]
  assert times["likely"]["source"] == f"{rates}: made up"
  assert times["likely"]["seconds"][0] >= times["seconds"]
  ideal = train["model_flops"] / 8 / 989.4e12
  assert times["likely"]["seconds"][0] >= ideal / 0.25
  run = [f"--config.{word}" for word in SMALL.split()]
  config = config_lib.parse(
    ["main", f"--config={ROOT}/configs/motion.py:debug", *run, "--config.model.dtype=bfloat16"]
  ).config
  one = programs.train(config, topology.parse("cpu-1"), batch_size=16, useful=True)
  assert train["model_flops"] == pytest.approx(flops.count(one.trace().jaxpr))
  page = (tmp_path / "plan" / "plan.md").read_text()
  assert "2 nodes of 4 GPUs" in page and "CPU devices stood in" in page


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_a_plan_for_two_slices_of_a_tpu(tmp_path):
  given = words(
    tmp_path,
    "--config.topology=v5e-4x2",
    "--config.changes=" + SMALL + "train.mesh.data=2 train.mesh.fsdp=4",
    "--config.programs=('train',)",
    "--config.batch_per_device=2",
  )
  subprocess.run([sys.executable, "-m", "como_jax.main", *given[1:]], check=True, cwd=ROOT)
  plan = json.loads((tmp_path / "plan" / "plan.json").read_text())
  train = plan["programs"][0]
  assert plan["versions"]["libtpu"][0].isdecimal()
  frozen = 4 * (train["parameters"] - train["trainable"]) / 4  # over four devices
  assert 0.95 * frozen < train["memory"]["unchanged"] * 2**30 < 1.2 * frozen
  assert (
    train["fits"]
    and train["memory"]["available"] == 15.75
    and train["roofline"]["parts"]["dcn"] > 0
  )
