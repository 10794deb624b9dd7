"""The offset at which a trained model is used, by extraction and by the probe."""

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.assembly import data_folders, offsets, run_data
from tests.end_to_end import program

SEVERAL = {
  "path": "bundled",
  "offset_seconds": 0.5,
  "mixture": [{"path": "x", "offset_seconds": 0.1}, {"path": "y"}],
}


def choose(path, trained_on, given=None):
  return offsets.choose(
    path, trained_on, given=given, option="--config.offset_seconds", checkpoint="RUN"
  )


def test_the_offset_of_the_data_set_then_of_the_whole_training():
  assert choose("./x", SEVERAL).seconds == 0.1 and choose("y", SEVERAL).seconds == 0.5
  assert str(choose("y", SEVERAL)) == "offset 0.5 s (as the model was trained on this data set)"
  same = {
    "offset_seconds": 0.5,
    "mixture": [{"path": "x", "offset_seconds": 0.2}, {"path": "y", "offset_seconds": 0.2}],
  }
  # not the section's 0.5: no data set was trained with it
  assert choose("elsewhere", same).seconds == 0.2
  assert (
    str(choose("elsewhere", same)) == "offset 0.2 s (as the model was trained, on x and others)"
  )
  assert (
    choose("elsewhere", {"path": "bundled", "offset_seconds": 0.4, "mixture": ()}).seconds == 0.4
  )
  assert (
    str(choose("elsewhere", SEVERAL, given=0.7))
    == "offset 0.7 s (given with --config.offset_seconds)"
  )
  bundled = {
    "offset_seconds": 0.5,
    "mixture": [{"path": "bundled", "offset_seconds": 0.1}, {"path": "y"}],
  }
  assert (
    choose(str(data_folders.BUNDLED), bundled).seconds == choose("bundled", bundled).seconds == 0.1
  )


@pytest.mark.parametrize(
  "path, trained_on, message",
  [
    (
      "elsewhere",
      SEVERAL,
      r"model RUN was not trained on elsewhere and was trained at several offsets "
      r"\(0.1 s on x, 0.5 s on y\): say which with --config.offset_seconds=0.1",
    ),
    (
      "x",
      {"mixture": [{"path": "x", "offset_seconds": 0.1}, {"path": "x", "offset_seconds": 0.2}]},
      "was trained on x at several offsets",
    ),
    ("x", {"path": "x"}, "--config.offset_seconds is missing: the checkpoint 'RUN' does not say"),
    ("x", {}, "--config.offset_seconds is missing: the checkpoint 'RUN' does not say"),
  ],
)
def test_what_cannot_be_told_is_refused_in_one_line(path, trained_on, message):
  with pytest.raises(errors.UserError, match=message) as caught:
    choose(path, trained_on)
  assert "\n" not in str(caught.value)


def probed(*words, trained_on):
  config = config_lib.parse(
    [
      "main",
      f"--config={program.ROOT}/configs/probe.py",
      "--workdir=unused",
      "--config.checkpoint=RUN",
      *words,
    ]
  ).config
  return run_data.with_run_data(config, {"model": {"image_size": 16}, "data": trained_on}).data


def test_the_probe_takes_the_trained_offset_of_the_data_that_is_given(capsys):
  default = config_lib.data().offset_seconds
  section = probed("--config.data.path=x", trained_on=SEVERAL)
  assert (section.path, section.offset_seconds, tuple(section.mixture)) == (
    "x",
    0.1,
    (),
  ) and default != 0.1
  assert (
    "probe: x: offset 0.1 s (as the model was trained on this data set)" in capsys.readouterr().out
  )
  with pytest.raises(errors.UserError, match="--config.data.offset_seconds=0.1"):
    probed("--config.data.path=elsewhere", trained_on=SEVERAL)
  assert (
    probed(
      "--config.data.path=elsewhere", "--config.data.offset_seconds=0.3", trained_on=SEVERAL
    ).offset_seconds
    == 0.3
  )
  section = probed(trained_on=SEVERAL)  # the training's own data, each at its own offset
  assert [
    dict(entry).get("offset_seconds", section.offset_seconds) for entry in section.mixture
  ] == [0.1, 0.5]
  # what is given counts for all of them
  section = probed("--config.data.offset_seconds=0.3", trained_on=SEVERAL)
  assert [dict(entry)["offset_seconds"] for entry in section.mixture] == [0.3, 0.3]


def test_data_to_label_are_the_given_ones_or_those_of_the_training():
  def chosen(path, trained_on, offset_seconds=None):
    return offsets.choose_data(path, trained_on, offset_seconds=offset_seconds, checkpoint="RUN")

  def missing(trained_on):
    with pytest.raises(errors.UserError) as caught:
      chosen(None, trained_on)
    return str(caught.value)

  start = "config.data.path is missing: the model was trained on "
  assert missing({}) == missing({"path": None, "mixture": ()}) == start + "unknown data"
  assert missing({"mixture": [{"path": "x"}, {"path": "y"}, {"path": "x"}]}) == start + "x, y"
  assert missing(SEVERAL) == start + "x, y"
  assert chosen(None, {"path": "p", "offset_seconds": 0.5}) == (
    "p",
    offsets.Offset(0.5, "as the model was trained on this data set"),
  )
  path, offset = chosen(
    None, {"path": "p", "offset_seconds": 0.5, "mixture": [{"path": "x"}, {"path": "x"}]}
  )
  assert (path, offset.seconds) == ("x", 0.5)
  path, offset = chosen("./x", SEVERAL)
  assert (path, offset.seconds) == ("./x", 0.1) and "trained on this data set" in str(offset)
  assert chosen("y", SEVERAL)[1].seconds == 0.5
  path, offset = chosen("y", SEVERAL, 0.7)
  assert (path, offset.seconds) == ("y", 0.7)
  assert "given with --config.offset_seconds" in str(offset)
  with pytest.raises(errors.UserError, match="say which with --config.offset_seconds=0.1"):
    chosen("elsewhere", SEVERAL)
  with pytest.raises(errors.UserError) as caught:
    chosen("p", {})
  assert str(caught.value).startswith("--config.offset_seconds is missing: the checkpoint ")
