"""The options of a plan, and which key is named when they cannot be read."""

import dataclasses

import pytest

from como_jax import config as config_lib
from como_jax.assembly import config_checks, plan_options
from como_jax.parallel import topology
from tests.refusals import text_of


def config(**changes):
  words = [f"--config.{key}={value}" for key, value in changes.items()]
  return config_lib.parse(["main", "--config=compile:debug", *words]).config


def test_options_are_those_of_the_config():
  given = config(
    changes="train.steps=9 data.path='a b'", memory=2.0, policy_batch=3, proposals=True
  )
  options = plan_options.from_config(given)
  assert options.machine == topology.parse("cpu-8")
  planned = options.planned
  assert (planned.task, planned.train.steps, planned.data.path) == ("motion", 9, "a b")
  values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
  del values["machine"], values["planned"]
  assert values == {name: given[name] for name in values} and len(values) == 9


@pytest.mark.parametrize(
  "changes, expected",
  [
    ({"topology": "v5e-17"}, "did you mean 'v5e-16'"),
    ({"of": "configs/motoin.py"}, "config.of=configs/motoin.py: "),
    (
      {"changes": "train.stesp=3"},
      "config.changes=train.stesp=3: config key --config.train.stesp is unknown",
    ),
    ({"changes": "'x"}, "config.changes='x: No closing quotation"),
    (
      {"of": "configs/probe.py"},
      "config.of: the task 'probe' trains nothing, one of motion, mae, policy is expected",
    ),
    (
      {"programs": "('trian',)"},
      "config.programs: 'trian' is unknown: did you mean 'train'? (valid: extract, policy, train)",
    ),
  ],
)
def test_what_cannot_be_planned_is_refused_before_a_task_begins(changes, expected):
  for read in (plan_options.from_config, config_checks.check):
    line = text_of(lambda read=read: read(config(**changes)))
    assert expected in line and "\n" not in line
