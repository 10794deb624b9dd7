"""Command lines: what resolves, and what each mistake says."""

import json
import pathlib

import pytest

from como_jax import config as config_lib
from como_jax import errors

ROOT = pathlib.Path(__file__).parent.parent
MOTION = f"--config={ROOT}/configs/motion.py"
GOLDEN = pathlib.Path(__file__).parent / "golden" / "configs"
RESOLVED = [
  "mae",
  "mae:tiny",
  "mae:debug",
  "motion",
  "motion:fast",
  "motion:small",
  "motion:debug",
  "motion:small,bottleneck=vq",
  "motion:small,bottleneck=kl",
  "probe",
  "probe:exam",
  "probe:debug",
  "exam_set",
  "exam_set:large",
  "exam_set:debug",
  "extract",
  "extract:debug",
  "ingest",
  "quickstart",
  "quickstart:debug",
  "collect",
  "collect:debug",
  "collect:libero",
  "collect:fetch",
  "collect:pusht",
  "collect:video",
  "policy",
  "policy:small",
  "policy:debug",
  "policy:small,policy=gpt",
  "compile",
  "compile:debug",
  "serve",
  "serve:debug",
  "rollout",
  "rollout:libero",
  "rollout:pusht",
  "rollout:fetch",
  "rollout:debug",
]


def parse(*words):
  return config_lib.parse(["main", *words])


def test_values_are_typed_and_the_config_is_locked():
  command = parse(
    MOTION + ":debug",
    "--config.train.steps=7",
    "--config.data.offset_seconds=0.3",
    "--workdir",
    "runs/x",
  )
  assert (command.config.train.steps, command.config.data.offset_seconds, str(command.workdir)) == (
    7,
    0.3,
    "runs/x",
  )
  assert command.name == "motion-debug" and not command.resume
  with pytest.raises(AttributeError):
    command.config.new_key = 1


def test_options_choose_baselines():
  config = parse(MOTION + ":small,inputs=none,bottleneck=vq,tcl=off").config
  assert (
    config.model.idm.inputs,
    config.model.bottleneck.kind,
    config.objectives.contrastive.weight,
  ) == ("none", "vq", 0.0)
  assert config.objectives.quantization.weight == 1.0


@pytest.mark.parametrize(
  "words, expected",
  [
    ([], "--config is missing"),
    ([f"--config={ROOT}/configs/motoin.py"], "did you mean"),
    ([MOTION + ":smal"], "did you mean 'small'"),
    ([MOTION + ":small,input=none"], "did you mean 'inputs'"),
    ([MOTION + ":small,bottleneck=vqq"], "did you mean 'vq'"),
    ([MOTION, "--config.train.stesp=3"], "config.train has no 'stesp': did you mean 'steps'"),
    ([MOTION, "--config.trian.steps=3"], "did you mean 'train'"),
    ([MOTION, "--config.train.steps.more=3"], "--config.train.steps.more is unknown"),
    ([MOTION, "--config.train.steps=many"], "--config.train.steps=many"),
    ([MOTION, "--config.train.steps=1.5"], "--config.train.steps=1.5"),
    ([MOTION, "--config.train.tensorboard=perhaps"], "--config.train.tensorboard"),
    ([MOTION, "--workdri=x"], "did you mean '--workdir'"),
    ([MOTION, "--expect=gpus:8"], "as in gpu:8: did you mean 'gpu'"),
    ([MOTION, "--expect"], "--expect=: expected a kind of device"),
    ([MOTION, "--expect=gpu:0"], "--expect=gpu:0: expected a number"),
    ([MOTION, "runs/x"], "unexpected argument 'runs/x'"),
    ([MOTION, "--resume", "--overwrite"], "exclude each other"),
    ([MOTION, "--config.data.mixture[3].path=x"], "index 3 is too large"),
  ],
)
def test_mistakes_say_one_line_that_names_them(words, expected):
  with pytest.raises(errors.UserError) as caught:
    parse(*words)
  assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_config_file_that_fails_is_named(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("def get_config(arg=None):\n  return undefined\n")
  with pytest.raises(errors.UserError, match="mine.py.*NameError"):
    parse(f"--config={path}", "--config.a=1")


@pytest.mark.parametrize("name", RESOLVED)
def test_every_config_resolves_to_its_golden_json(name):
  file, _, arg = name.partition(":")
  command = parse(f"--config={ROOT}/configs/{file}.py" + (f":{arg}" if arg else ""))
  golden = GOLDEN / f"{name.replace(':', '-').replace(',', '-')}.json"
  resolved = json.loads(config_lib.to_json(command.config))
  assert golden.is_file(), f"no golden for {name}: write it with python -m tests.test_config"
  assert resolved == json.loads(golden.read_text()), (
    f"{golden.name} is not what the config resolves to: where the change is meant, write the files "
    "again with python -m tests.test_config"
  )


def test_every_config_file_has_a_golden():
  assert {path.stem for path in (ROOT / "configs").glob("*.py")} == {
    name.partition(":")[0] for name in RESOLVED
  }


def test_differences_name_dotted_keys():
  assert config_lib.differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 0}) == {
    "a.c": (2, 3),
    "d": (None, 0),
  }


if __name__ == "__main__":  # regenerates the goldens; say why in the commit
  GOLDEN.mkdir(parents=True, exist_ok=True)
  for name in RESOLVED:
    file, _, arg = name.partition(":")
    config = parse(f"--config={ROOT}/configs/{file}.py" + (f":{arg}" if arg else "")).config
    (GOLDEN / f"{name.replace(':', '-').replace(',', '-')}.json").write_text(
      config_lib.to_json(config) + "\n"
    )
