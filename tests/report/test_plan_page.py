"""The pages of a plan, word for word: one program that fits, one without a limit, one that the
compiler refuses.
"""

import pytest

from como_jax.report import plan_page

GIB = 2**30
TRAIN = dict(
  program="train",
  topology="v5e-4x2",
  devices=8,
  mesh={"data": 2, "fsdp": 4, "tensor": 1},
  batch=32,
  batch_per_device=4.0,
  unit="clips",
  parameters=12345678,
  trainable=1234567,
  flops=8e12,
  model_flops=6e12,
  compile_seconds=61.7,
  fits=True,
  hbm_bytes=3 * GIB,
  loops_unknown=2,
  memory=dict(
    available=15.75,
    needed=10.5,
    refused=False,
    arguments=4.0,
    temporaries=5.0,
    outputs=3.75,
    aliased=3.5,
    code=0.375,
    unchanged=1.25,
  ),
  collectives=[
    dict(kind="all-gather", count=6, bytes=3 * 2**20, ici=1.5 * 2**20, dcn=0.25 * 2**20),
    dict(kind="all-reduce", count=1, bytes=2**19, ici=2**18, dcn=0),
  ],
  roofline=dict(
    seconds=0.008,
    parts={"compute": 0.008, "memory": 0.002, "ici": 0.0005, "dcn": 0.0001},
    bound="compute",
    mfu=0.476,
    traffic_seconds=0.016,
    traffic_mfu=0.238,
    likely=None,
  ),
  largest=dict(per_device=12, compiles=7),
)
EXTRACT = dict(
  program="extract",
  topology="v5e-4",
  devices=4,
  mesh={"data": 4},
  batch=10,
  batch_per_device=2.5,
  unit="frames",
  parameters=1000,
  trainable=0,
  flops=4e9,
  model_flops=4e9,
  compile_seconds=1.2,
  fits=None,
  hbm_bytes=GIB,
  loops_unknown=0,
  collectives=[],
  memory=dict(
    available=None,
    needed=0.5,
    refused=False,
    arguments=0.125,
    temporaries=0.25,
    outputs=0.125,
    aliased=0.0,
    code=0.0,
    unchanged=0.0,
  ),
)
POLICY = dict(
  program="policy",
  topology="v5e-1",
  devices=1,
  mesh={"data": 1},
  batch=1,
  batch_per_device=1.0,
  unit="chunks",
  parameters=1000,
  trainable=0,
  flops=1e9,
  model_flops=1e9,
  compile_seconds=3.0,
  fits=False,
  memory=dict(available=15.75, needed=31.0, refused=True),
)
PLAN = dict(
  command="python -m como_jax.main --config=x",
  topology="v5e-4x2",
  machine="2 slices",
  of="configs/motion.py",
  changes="a=1",
  effort=-1.0,
  programs=[TRAIN, EXTRACT, POLICY],
  versions={"numpy": "2", "jax": "0.7", "jaxlib": "0.7.1", "libtpu": "0.0.42.1"},
)

PAGE = """\
# Plan: configs/motion.py, a=1 on v5e-4x2

`python -m como_jax.main --config=x`

2 slices
jax 0.7, jaxlib 0.7.1, libtpu 0.0.42.1, compiler effort -1. Compiled, not run: no time here was measured but the compiler's.

## train on v5e-4x2

**Fits**: 10.50 of 15.75 GiB a device, 5.25 free.

| | |
| --- | --- |
| devices (mesh) | 8 (data 2, fsdp 4, tensor 1) |
| batch, a device | 32, 4 clips |
| parameters, trained | 12,345,678, 1,234,567 |
| GiB a device: arguments (state, batch) | 4.000 |
| GiB: temporaries | 5.000 |
| GiB: outputs beyond donated arguments | 0.250 |
| GiB: outputs that are arguments unchanged (not written) | 1.250 |
| GiB: generated code | 0.375 |
| TFLOP a step, a device (counted in the trace) | 6.000, 0.7500 |
| with recomputation, a device | 8.000, 1.0000 |
| GiB this program passes through memory, a device (estimate) | 3.00 |
| best time of a step, ms (all parts overlap) | 8.00, bound by compute (compute 8.00, memory 2.00, ici 0.50, dcn 0.10) |
| likely time of a step, ms (all communication hidden, or none) | unknown: no measured run of such a machine is given (config.calibration) |
| model FLOP utilization | best 48%, likely unknown |
| clips/s | best 4,000, likely unknown |
| the best if all its memory traffic takes its time | 16.00 ms, 24%, 2,000 clips/s |
| loops of unknown length, counted once | 2 |
| largest batch of a device that fits (to 1/8) | 12 (7 compiles) |
| compile time here, s | 62 |

| collectives | a step | MiB of arrays | MiB sent over ICI | MiB sent over DCN |
| --- | --- | --- | --- | --- |
| all-gather | 6 | 3.00 | 1.50 | 0.25 |
| all-reduce | 1 | 0.50 | 0.25 | 0.00 |

## extract on v5e-4

Needs 0.50 GiB a device; no limit is known for this machine.

| | |
| --- | --- |
| devices (mesh) | 4 (data 4) |
| batch, a device | 10, 2.5 frames |
| parameters, trained | 1,000, 0 |
| GiB a device: arguments (state, batch) | 0.125 |
| GiB: temporaries | 0.250 |
| GiB: outputs beyond donated arguments | 0.125 |
| GiB: outputs that are arguments unchanged (not written) | 0.000 |
| GiB: generated code | 0.000 |
| TFLOP a step, a device (counted in the trace) | 0.004, 0.0010 |
| with recomputation, a device | 0.004, 0.0010 |
| GiB this program passes through memory, a device (estimate) | 1.00 |
| compile time here, s | 1 |

No collectives.

## policy on v5e-1

**Does not fit**: at least 31.00 of 15.75 GiB a device, 15.25 too much.

| | |
| --- | --- |
| devices (mesh) | 1 (data 1) |
| batch, a device | 1, 1 chunks |
| parameters, trained | 1,000, 0 |
| TFLOP a step, a device (counted in the trace) | 0.001, 0.0010 |
| with recomputation, a device | 0.001, 0.0010 |
| compile time here, s | 3 |
"""

SHORT = """\
### v5e-4x2: configs/motion.py, a=1

`python -m como_jax.main --config=x`

| program | devices (mesh) | batch a device | GiB of | TFLOP | with recomputation | best ms of a step (bound) | likely ms | ms if all memory traffic counts | MFU at best | a second at best | arrays of collectives, MiB | sent over ICI | over DCN |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| train | 8 (2 x 4 x 1) | 4 clips | 10.50 of 15.75 | 0.750 | 1.000 | 8.00 (compute) | unknown | 16.00 | 48% | 4,000 clips | 3.5 | 1.8 | 0.2 |
| extract | 4 (4) | 2.5 frames | 0.50 | 0.001 | 0.001 |  |  |  |  |  | 0.0 | 0.0 | 0.0 |
| policy | 1 (1) | 1 chunks | 31.00 of 15.75, does not fit | 0.001 | 0.001 |  |  |  |  |  | 0.0 | 0.0 | 0.0 |

* train: 12,345,678 parameters, 1,234,567 trained; collectives: 6 all-gather (3.0 MiB), 1 all-reduce (0.5 MiB).
* Largest batch of a device that fits (to 1/8): 12, found with 7 compiles.
* extract: 1,000 parameters, 0 trained; collectives: none.
* policy: 1,000 parameters, 0 trained; collectives: none."""


def test_the_page_of_a_plan():
  assert plan_page.text(PLAN) == PAGE
  assert (
    plan_page.text({**PLAN, "changes": ""}).splitlines()[0]
    == "# Plan: configs/motion.py on v5e-4x2"
  )


def test_the_table_of_a_plan():
  assert plan_page.short(PLAN) == SHORT
  assert (
    plan_page.short({**PLAN, "changes": ""}).splitlines()[0] == "### v5e-4x2: configs/motion.py"
  )


@pytest.mark.parametrize(
  "memory, fits, text",
  [
    (
      dict(available=15.75, needed=0.0, refused=True),
      False,
      "**Does not fit**: more than the compiler allows.",
    ),
    (
      dict(available=2.0, needed=3.5, refused=False),
      False,
      "**Does not fit**: 3.50 of 2.00 GiB a device, 1.50 too much.",
    ),
  ],
)
def test_verdicts(memory, fits, text):
  assert plan_page.verdict(dict(memory=memory, fits=fits)) == text


LIKELY = {
  "seconds": [0.01, 0.02],
  "mfu": [0.19, 0.38],
  "source": "runs/a: 5 clips/s",
  "measured_mfu": 0.4,
}


def with_likely(**changes):
  return {**TRAIN, "roofline": {**TRAIN["roofline"], "likely": {**LIKELY, **changes}}}


def test_what_a_measured_run_makes_likely():
  page = plan_page.text({**PLAN, "programs": [with_likely()]})
  assert (
    "(all communication hidden, or none) | 10.00 to 20.00, by runs/a: 5 clips/s (40.0% of the "
    "peak) |\n| model FLOP utilization | best 48%, likely 19% to 38% |\n"
    "| clips/s | best 4,000, likely 1,600 to 3,200 |\n"
  ) in page
  one = with_likely(seconds=[0.01, 0.01], mfu=[0.38, 0.38], measured_mfu=None)
  page = plan_page.text({**PLAN, "programs": [one]})
  assert "or none) | 10.00, by runs/a: 5 clips/s |\n" in page
  assert "| best 48%, likely 38% |" in page and "| best 4,000, likely 3,200 |" in page
  short = plan_page.short({**PLAN, "programs": [with_likely()]})
  assert "| 8.00 (compute) | 10.00 to 20.00 | 16.00 | 48% |" in short


def test_a_plan_for_gpus_says_what_is_an_estimate():
  times = {**TRAIN["roofline"], "traffic_seconds": None, "traffic_mfu": None}
  one = {**TRAIN, "estimated": True, "hbm_bytes": None, "roofline": times}
  plan = {**PLAN, "programs": [one], "versions": {"jax": "1", "jaxlib": "2"}}
  page = plan_page.text(plan)
  assert plan_page.ESTIMATED in page and "**Fits, by an estimate**: 10.50" in page
  assert "passes through memory" not in page and "memory traffic takes" not in page
  assert "\njax 1, jaxlib 2, compiler effort" in page
  assert "| unknown | unknown | 48% |" in plan_page.short(plan)
  assert plan_page.ESTIMATED not in plan_page.text(PLAN)
  nobody_knows = {"jax": "1", "jaxlib": "2", "libtpu": None}
  assert plan_page.versions({"versions": nobody_knows}).endswith("libtpu of unknown version")


def test_warnings_and_proposals():
  one = {**TRAIN, "warnings": ["Low utilization: of it."]}
  page = plan_page.text({**PLAN, "programs": [one]})
  assert "\n\n**Low utilization: of it.**\n\n`--config.proposals=true` compiles" in page
  assert plan_page.short({**PLAN, "programs": [one]}).endswith("\n* Low utilization: of it.")
  extract = {**EXTRACT, "warnings": ["Low."]}
  assert "proposals" not in plan_page.text({**PLAN, "programs": [extract]})
  row = dict(
    change="as planned",
    topology="v5e-4x2",
    devices=8,
    mesh=TRAIN["mesh"],
    batch=32,
    batch_per_device=4.0,
    unit="clips",
    fits=True,
    memory=TRAIN["memory"],
    roofline=TRAIN["roofline"],
    utilization=0.238,
    examples_per_s=28000.0,
  )
  refused = dict(needed=20.0, available=15.75, refused=True)
  larger = {**row, "change": "64 a device", "fits": False, "memory": refused}
  del larger["roofline"]
  page = plan_page.text({**PLAN, "programs": [{**one, "proposals": [row, larger]}]})
  assert (
    "| as planned | 8 (2 x 4 x 1) | 32 | 4 | 10.50 of 15.75 | 8.00 (compute) | unknown | 24% | "
    "28,000 |\n| 64 a device | 8 (2 x 4 x 1) | 32 | 4 | 20.00 of 15.75, does not fit |  |  |  |  "
    "|\n"
  ) in page
  assert "--config.proposals=true" not in page
