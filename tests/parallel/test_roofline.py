"""The best and the likely time of a step, and what a plan warns of."""

import pytest

from como_jax.parallel import roofline, topology

GIB = 2**30
V5E = topology.parse("v5e-4")


def measured(**changes):
  one = dict(
    program="train",
    unit="clips",
    devices=4,
    batch=32,
    batch_per_device=8.0,
    flops=4e12,
    hbm_bytes=8.19e9,
    memory=dict(arguments=0.25, outputs=0.5, unchanged=0.0),
    collectives=[dict(ici=2e9, dcn=0.0), dict(ici=1e9, dcn=2.5e9)],
  )
  return {**one, **changes}


def finished(machine=V5E, *, calibration=None, **changes):
  one = measured(**changes)
  roofline.add(one, machine, model_flops=3e12, unit="clips", calibration=calibration)
  return one


def test_the_best_time_of_a_step():
  one = finished()
  roof = one["roofline"]
  parts = {
    "compute": 1e12 / 197e12,
    "memory": 0.75 * GIB / 819e9,
    "ici": 3e9 / 200e9,
    "dcn": 2.5e9 / 3.125e9,
  }
  assert (
    one["model_flops"] == 3e12
    and roof["parts"] == pytest.approx(parts)
    and (roof["bound"], roof["seconds"]) == ("dcn", pytest.approx(0.8))
  )
  assert roof["mfu"] == pytest.approx(3e12 / 4 / 197e12 / 0.8) == roof["traffic_mfu"] and roof[
    "clips_per_s"
  ] == pytest.approx(40)
  assert roof["traffic_seconds"] == roof["seconds"], "memory traffic takes less than the network"
  assert roof["likely"] is None, "nothing was measured"
  without = dict(devices=4, batch=32)
  roofline.add(without, V5E, model_flops=3e12, unit="clips")
  assert "roofline" not in without and without["model_flops"] == 3e12, "the compiler refused it"
  cpu = dict(devices=4, collectives=[])
  roofline.add(cpu, topology.parse("cpu-4"), model_flops=3e12, unit="clips")
  assert "roofline" not in cpu


def test_the_traffic_of_memory():
  near = dict(collectives=[dict(ici=2e8, dcn=0.0)])
  roof = finished(**near)["roofline"]
  assert (roof["bound"], roof["mfu"]) == ("compute", pytest.approx(0.75))
  assert roof["traffic_seconds"] == pytest.approx(0.01)
  assert roof["traffic_mfu"] == pytest.approx(3e12 / 4 / 197e12 / 0.01)
  unknown = finished(topology.parse("h100-4"), hbm_bytes=None, **near)["roofline"]
  assert unknown["traffic_seconds"] is None and unknown["traffic_mfu"] is None


def test_frozen_weights_are_read_but_not_written():
  """By hand: 3 GiB of state of which 2 are frozen are read, and 1 is written."""
  memory = dict(arguments=3.0, outputs=3.0, unchanged=2.0)
  roof = finished(memory=memory, collectives=[])["roofline"]
  assert roof["parts"]["memory"] == pytest.approx(4 * GIB / 819e9)


def test_the_likely_time_by_a_measured_utilization():
  """At 30 % of the peak, 3e12 / 4 operations take 12.7 ms; the network 1 ms, hidden or not."""
  calibration = roofline.Calibration("a run", "v5e", 0.3)
  near = dict(collectives=[dict(ici=2e8, dcn=0.0)])
  found = finished(calibration=calibration, **near)["roofline"]["likely"]
  compute = 3e12 / 4 / 197e12 / 0.3
  assert found == {
    "seconds": pytest.approx([compute, compute + 0.001]),
    "mfu": pytest.approx([0.3 * compute / (compute + 0.001), 0.3]),
    "source": "a run",
    "measured_mfu": 0.3,
  }
  # what is better than the best is the best
  higher = roofline.Calibration("a run", "v5e", 0.99)
  roof = finished(calibration=higher)["roofline"]
  assert roof["likely"]["seconds"][0] == roof["seconds"]


def test_the_likely_time_by_measured_rates():
  """Half of the published rates of computing and of the network: each takes twice as long."""
  rates = {"tflops": 197 / 2, "dcn_rate": 3.125 / 2}
  calibration = roofline.Calibration("rates", "v5e", rates=rates)
  roof = finished(calibration=calibration)["roofline"]
  found = roof["likely"]
  assert found["seconds"] == pytest.approx([1.6, 2e12 / 197e12 + 1.6 + 3e9 / 200e9])
  assert found["measured_mfu"] is None and roof["seconds"] == pytest.approx(0.8)


def test_what_is_expected_of_the_peak():
  roof = finished(collectives=[])["roofline"]
  assert roofline.utilization(roof) == roof["traffic_mfu"] < roof["mfu"]
  assert roofline.utilization({**roof, "traffic_mfu": None}) == roof["mfu"]
  assert roofline.utilization({**roof, "likely": {"mfu": [0.1, 0.2]}}) == 0.2


def test_low_utilization_is_said_with_its_cause():
  one = finished()  # the network between slices takes 800 ms, computing 5.08
  assert roofline.warnings(one) == [
    "Low utilization: at most 0% of the peak, with 8 clips a device; dcn takes 800.00 ms of it and "
    "computing 5.08. If that stays as it is, computing is as long from 1261 a device on."
  ]
  assert roofline.least_rows(one) == 1261  # 8 * 0.8 / (1e12 / 197e12) = 1260.8
  one = finished(collectives=[], hbm_bytes=16.38e9)
  assert roofline.warnings(one) == [
    "Low utilization: at most 19% of the peak, with 8 clips a device; computing takes 5.08 ms and "
    "all that this program passes through memory 20.00."
  ]
  assert not roofline.warnings(finished(collectives=[], hbm_bytes=7e9))
  assert roofline.warnings(finished(collectives=[], hbm_bytes=7.8e9))[0].startswith("Low")
  assert not roofline.warnings({**one, "program": "policy"})
  assert not roofline.warnings({"program": "train"})


def test_rows_that_are_enough_already():
  assert roofline.least_rows(finished(collectives=[])) == 8
