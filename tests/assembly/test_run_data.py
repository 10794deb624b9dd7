"""What a probe takes from the training run of its model."""

from como_jax import config as config_lib
from como_jax.assembly import run_data
from tests.end_to_end import program

TRAINED = {
  "path": "trained",
  "mixture": [],
  "offset_seconds": 0.25,
  "validation_fraction": 0.5,
  "image_size": 99,
  "unknown": 1,
  "frames": 7,
}


def config_of(*words):
  return config_lib.parse(
    ["main", f"--config={program.ROOT}/configs/probe.py", "--config.checkpoint=RUN", *words]
  ).config


def test_what_the_probe_leaves_open_is_that_of_the_training(capsys):
  run = {"model": {"image_size": 48}, "data": TRAINED}
  section = run_data.with_run_data(config_of(), run).data
  assert (
    section.path,
    section.offset_seconds,
    section.validation_fraction,
    section.image_size,
    section.frames,
  ) == ("trained", 0.25, 0.5, 48, 7)
  assert "unknown" not in section and not capsys.readouterr().out
  given = config_of("--config.data.validation_fraction=0.125", "--config.data.path=trained")
  found = run_data.with_run_data(
    given, {**run, "data": {**TRAINED, "mixture": [{"path": "trained", "offset_seconds": 0.75}]}}
  ).data
  assert (found.validation_fraction, found.offset_seconds, tuple(found.mixture)) == (
    0.125,
    0.75,
    (),
  )
  assert (
    capsys.readouterr().out
    == "probe: trained: offset 0.75 s (as the model was trained on this data set)\n"
  )
  assert given.data.offset_seconds is None, "the config itself is left alone"


def test_the_section_of_a_run_with_what_replaces_it():
  of_run = {
    "path": "trained",
    "mixture": [{"path": "one", "weight": 2.0}],
    "offset_seconds": 0.25,
    "validation_fraction": 0.5,
    "image_size": 99,
    "unknown": 1,
  }
  run = {"model": {"image_size": 48}, "data": of_run}
  given = config_lib.ConfigDict({"path": None, "validation_fraction": None, "threads": None})
  section = run_data.section_of_run(given, run, offset_seconds=None)
  assert (section.path, section.validation_fraction, section.offset_seconds) == (
    "trained",
    0.5,
    0.25,
  )
  assert section.image_size == 48 and "unknown" not in section
  assert [dict(entry) for entry in section.mixture] == of_run["mixture"]
  section = run_data.section_of_run(given, run, offset_seconds=0.75)
  assert section.offset_seconds == 0.75
  assert [dict(entry) for entry in section.mixture] == [
    {"path": "one", "weight": 2.0, "offset_seconds": 0.75}
  ]
  given = config_lib.ConfigDict({"path": "own", "validation_fraction": 0.125, "threads": 3})
  section = run_data.section_of_run(given, run, offset_seconds=0.75)
  assert (section.path, section.offset_seconds, tuple(section.mixture)) == ("own", 0.75, ())
  assert (section.validation_fraction, section.threads) == (0.125, 3)
