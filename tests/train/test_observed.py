"""One object for clock, ledger and devices; most processes have no ledger."""

import json

from como_jax.train import goodput, observed, step_clock


def test_a_process_without_a_ledger_only_times():
  seen = observed.Observed()
  seen.begun(1)
  seen.reached(2)
  seen.close()
  assert seen.clock.started and seen.goodput() == {}


def test_the_ledger_hears_of_the_first_step_and_the_end(tmp_path):
  seen = observed.Observed(step_clock.StepClock())
  seen.ledger = goodput.Ledger(tmp_path, seen.clock, step=3)
  seen.begun(4)
  seen.reached(9)
  seen.close()
  seen.close()
  lines = [json.loads(line) for line in (tmp_path / goodput.FILE).read_text().splitlines()]
  assert [(line["event"], line["step"]) for line in lines] == [
    ("start", 3),
    ("step", 4),
    ("step", 9),
    ("end", 9),
  ]
  starting = [line["seconds"]["starting"] for line in lines]
  assert starting[1] == starting[2] > 0 and seen.clock.seconds["logging"] > 0
  assert seen.goodput()["wall"] > 0
