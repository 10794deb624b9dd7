"""What is refused before a task begins: tables, folders and configs that do not go together."""

import dataclasses
from typing import ClassVar

import pytest

from como_jax import config as config_lib
from como_jax import errors, models, objectives
from como_jax.assembly import config_checks, data_folders, motion_data
from como_jax.settings import locations
from tests.refusals import text_of


def refused(*words):
  with pytest.raises(errors.UserError) as caught:
    config_checks.check(config_lib.parse(["main", *words]).config)
  return str(caught.value)


@pytest.mark.parametrize(
  "words, expected",
  [
    (
      ["--config=motion:debug", "--config.objectives={'sparsity': {'weight': 1.0}}"],
      "config.objectives has no 'sparsity': valid: contrastive, features,",
    ),
    (
      ["--config=motion:debug", "--config.objectives={'contrastiv': {'weight': 1.0}}"],
      "did you mean 'contrastive'",
    ),
    (
      ["--config=motion:debug", "--config.objectives={'kl': {}}"],
      "config.objectives.kl.weight is None, expected a number",
    ),
    (
      ["--config=motion:debug", "--config.objectives={'kl': 0.1}"],
      "config.objectives.kl=0.1, expected a section",
    ),
    (
      ["--config=motion:debug", "--config.objectives={'contrastive': {'tempreature': 1.0}}"],
      "did you mean 'temperature'",
    ),
    (
      ["--config=motion:debug", "--config.objectives={'kl': {'weight': 0.1}}"],
      "it needs --config.model.bottleneck.kind=kl",
    ),
    (
      ["--config=motion:debug", "--config.objectives={'mae': {'weight': 0.1}}"],
      "a model of kind 'motion' has no such loss",
    ),
    (
      ["--config=motion:debug", "--config.objectives.features.weight=1"],
      "it needs --config.model.fdm.features=direct or residual",
    ),
    (
      ["--config=motion:debug", "--config.model.fdm.features=direct"],
      "has a loss without a weight",
    ),
    (
      ["--config=motion:debug", "--config.model.bottleneck.kind=vq"],
      "{'quantization': {'weight': 1.0}}",
    ),
    (
      [
        "--config=motion:small,bottleneck=vq",
        "--config.model.bottleneck={'kind': 'continuous', 'latent_dim': 8}",
      ],
      "bottleneck.kind=vq or pre_vq",
    ),
    (
      ["--config=mae:debug", "--config.objectives={'contrastive': {'weight': 1.0}}"],
      "a model of kind 'mae' has no such loss (its own: mae)",
    ),
    (
      ["--config=policy:debug", "--config.policy.objectives={'actoin': {'weight': 1.0}}"],
      "did you mean 'action'",
    ),
    (
      ["--config=policy:debug", "--config.policy.objectives.action={'wieght': 1.0}"],
      "action.wieght; did you mean 'weight'",
    ),
    (
      ["--config=policy:debug", "--config.policy.objectives={'action': 0.1}"],
      (
        "config.policy.objectives.action=0.1, expected a section: {'key': value} with the keys "
        "weight"
      ),
    ),
    (
      ["--config=policy:debug", "--config.policy.objectives={'action': {'weight': None}}"],
      "config.policy.objectives.action.weight",
    ),
    (
      [
        "--config=motion:debug",
        "--config.model.encoder={'kind': 'mae_vit', 'size': 'debug/8', 'epsilom': 1.0}",
      ],
      "did you mean 'epsilon'",
    ),
    (
      ["--config=motion:fast", "--config.train.frozen=('encoder/position',)"],
      "config.model.encoder.param_dtype=bfloat16 needs a frozen encoder",
    ),
    (
      ["--config=motion:debug", "--config.model.kind=mae"],
      "this config trains a model of kind 'motion'",
    ),
    (
      ["--config=quickstart", "--config.probe=configs/mae.py"],
      "is a config of task 'mae', one of task 'probe' is expected",
    ),
    (
      [
        "--config=policy:debug",
        (
          "--config.data.mixture=({'path': 'bundled', 'robot': 'a'}, {'path': 'bundled', "
          "'labels': 'no/labels'})"
        ),
      ],
      "mixture[1]['labels']=no/labels does not exist",
    ),
  ],
)
def test_what_does_not_go_together(words, expected):
  try:
    line = refused(*words)
  except errors.UserError as error:  # already when the line is read
    line = str(error)
  assert expected in line and "\n" not in line


def test_losses_that_go_together():
  for words in (
    ["--config=policy:small,policy=gpt", "--config.policy.objectives={'gripper': {'weight': 0.5}}"],
    [
      "--config=motion:debug",
      "--config.model.fdm.features=direct",
      "--config.objectives.features.weight=1",
    ],
    [
      "--config=motion:debug",
      "--config.model.bottleneck.kind=vq",
      "--config.objectives={'quantization': {'weight': 1.0}}",
    ],
    ["--config=motion:small,bottleneck=kl", "--config.objectives.kl.weight=0"],
    ["--config=motion:debug", "--config.objectives.contrastive.weight=0"],
    ["--config=motion:fast", "--config.train.frozen=('encoder/.*','fdm/.*')"],
    ["--config=motion", "--config.train.frozen=('encoder/position',)"],
  ):
    config_checks.check(config_lib.parse(["main", *words]).config)


@dataclasses.dataclass
class Toy:
  """An encoder without keys of its own."""

  patch: int
  image_size: int
  width: ClassVar[int] = 128
  grid: ClassVar[int] = 8


def test_a_section_of_another_kind_says_how_to_give_it(monkeypatch):
  monkeypatch.setitem(models.ENCODERS, "toy", Toy)
  line = refused("--config=motion:debug", "--config.model.encoder.kind=toy")
  assert (
    "unknown key model.encoder.epsilon; this kind has no keys of its own; for another kind give "
    "the section whole: --config.model.encoder="
  ) in line
  config_checks.check(
    config_lib.parse(
      ["main", "--config=motion:debug", "--config.model.encoder={'kind': 'toy', 'size': 'debug/8'}"]
    ).config
  )


@pytest.mark.parametrize(
  "path, expected, never",
  [
    ("videso", "did you mean 'videos'? (valid: bundled, videos)", ".git"),
    ("zzz", "valid: bundled, videos", "notes"),
    ("lerobot/pusht", "data sets of a hub are not downloaded: give a local folder", "valid"),
    ("./videso", "./videos", ".git"),
    ("", "does not exist", ".git"),
  ],
)
def test_a_data_path_that_is_not_there(tmp_path, monkeypatch, path, expected, never):
  monkeypatch.chdir(tmp_path)
  for name in (".git", "notes", "videos"):
    (tmp_path / name).mkdir()
  (tmp_path / "videos" / "a.MP4").write_bytes(b"")
  (tmp_path / ".git" / "a.mp4").write_bytes(b"")
  with pytest.raises(errors.UserError) as caught:
    data_folders.resolve(path)
  assert expected in str(caught.value) and never not in str(caught.value)


def test_all_inputs_are_looked_for_before_the_first_is_worked_on(tmp_path, monkeypatch):
  monkeypatch.setattr(
    data_folders.ingest, "ensure_shards", lambda *a, **k: pytest.fail("converted")
  )
  config = config_lib.parse(
    [
      "main",
      "--config=motion:debug",
      f"--config.data.mixture=({{'path': 'bundled'}}, {{'path': '{tmp_path}/no'}})",
    ]
  ).config
  for function in (motion_data.data_sets, config_checks.check):
    with pytest.raises(errors.UserError, match="/no"):
      function(config)


@pytest.mark.parametrize(
  "variant, key",
  [
    ("probe", "checkpoint"),
    ("policy:debug", "init"),
    ("motion:debug", "encoder_weights"),
    ("policy:debug", "language.weights"),
    ("policy:debug", "data.labels"),
    ("motion:debug", "objectives.perceptual.weights_path"),
  ],
)
def test_missing_inputs_are_named_with_their_key(tmp_path, variant, key):
  (tmp_path / "run1").mkdir()
  assert (
    refused(f"--config={variant}", f"--config.{key}={tmp_path}/rum1")
    == f"config.{key}={tmp_path}/rum1 does not exist: did you mean '{tmp_path}/run1'?"
  )


def test_a_value_at_a_dotted_key():
  config = config_lib.ConfigDict({"a": {"b": 3}, "c": 4})
  assert (
    config_checks._value(config, "a.b"),
    config_checks._value(config, "c"),
    config_checks._value(config, "a.x"),
    config_checks._value(config, "c.x"),
  ) == (3, 4, None, None)


def command(workdir, **config):
  return config_lib.CommandLine(
    config_lib.ConfigDict(config), "name", workdir, resume=False, overwrite=False
  )


def test_folders_that_cannot_be_written_are_named_with_what_is_in_the_way(tmp_path, monkeypatch):
  file = tmp_path / "file"
  file.write_text("")
  config_checks.places(command(tmp_path / "new" / "deep", task="motion"))
  assert not (tmp_path / "new").exists()
  assert (
    text_of(lambda: config_checks.places(command(file, task="motion")))
    == f"--workdir {file} is a file, a directory is expected"
  )
  assert (
    text_of(lambda: config_checks.places(command(file / "a" / "b", task="motion")))
    == f"--workdir {file}/a/b cannot be made: {file} is no directory"
  )
  (tmp_path / "link").symlink_to(tmp_path / "nowhere")
  assert text_of(lambda: config_checks.places(command(tmp_path / "link" / "a", task="motion"))) == (
    f"--workdir {tmp_path}/link/a cannot be made: {tmp_path}/link is no directory"
  )
  config_checks.places(command(file, task="serve"))  # writes nothing
  for key in ("output", "lerobot"):
    assert (
      text_of(
        lambda key=key: config_checks.places(command(tmp_path, task="extract", **{key: str(file)}))
      )
      == f"config.{key} {file} is a file, a directory is expected"
    )
    config_checks.places(command(tmp_path, task="extract", **{key: ""}))
  # ingest with an output does not use the workdir
  for task, refused in (("ingest", False), ("collect", True)):

    def call(task=task):
      return config_checks.places(command(file, task=task, output=str(tmp_path / "out")))

    assert text_of(call).startswith("--workdir") if refused else call() is None
  assert text_of(lambda: config_checks.places(command(file, task="ingest", output=""))).startswith(
    "--workdir"
  )
  asked = []
  monkeypatch.setattr(
    locations.os, "access", lambda path, how: asked.append(how) or path != tmp_path
  )
  assert text_of(lambda: config_checks.places(command(tmp_path / "a" / "b", task="motion"))) == (
    f"--workdir {tmp_path}/a/b cannot be written: no permission for {tmp_path}; choose another "
    "directory"
  )
  assert asked == [locations.os.W_OK | locations.os.X_OK] and text_of(
    lambda: config_checks.places(command(tmp_path, task="motion"))
  )
  monkeypatch.chdir(tmp_path)
  assert (
    text_of(lambda: config_checks.places(command("file", task="motion")))
    == "--workdir file is a file, a directory is expected"
  )


def test_the_words_for_losses_that_do_not_go_together():
  assert refused("--config=motion:debug", "--config.objectives={'mae': {'weight': 0.5}}") == (
    "config.objectives.mae.weight=0.5: a model of kind 'motion' has no such loss (its own: "
    f"{', '.join(name for name in objectives.OBJECTIVES if name != 'mae')})"
  )
  assert refused("--config=motion:debug", "--config.model.bottleneck.kind=vq") == (
    "config.model.bottleneck.kind=vq has a loss without a weight, so that part would never be "
    "trained: add --config.objectives=\"{'quantization': {'weight': 1.0}}\""
  )
  assert refused("--config=motion:debug", "--config.objectives={'kl': {'weight': 0.5}}") == (
    "config.objectives.kl.weight=0.5: it needs --config.model.bottleneck.kind=kl"
  )
  config_checks.check(
    config_lib.parse(
      ["main", "--config=motion:debug", "--config.objectives={'kl': {'weight': 0}}"]
    ).config
  )


def test_a_policy_gives_every_loss_a_weight_and_names_an_encoder_of_instructions_that_there_is():
  config = config_lib.ConfigDict(
    config_lib.parse(["main", "--config=policy:debug"]).config.to_dict()
  )
  whole = config.policy.objectives.to_dict()
  for name in ("action", "latent", "gripper"):
    config.policy.objectives = config_lib.ConfigDict(
      {key: value for key, value in whole.items() if key != name}
    )
    assert text_of(lambda: config_checks.check(config)) == (
      f"config.policy.objectives gives the loss {name!r} of this policy no weight: add "
      f"--config.policy.objectives=\"{{'{name}': {{'weight': 1.0}}}}\" (0.0 leaves it out)"
    )
  config.policy.objectives = config_lib.ConfigDict(whole)
  for key, value in (("kind", "hush"), ("dtype", "float33")):
    old = config.language[key]
    config.language[key] = value
    assert text_of(lambda: config_checks.check(config)).startswith(
      f"config.language.{key}={value!r} is unknown: did you mean "
    )
    config.language[key] = old


@pytest.mark.parametrize(
  "words, expected",
  [
    (
      ["--config=ingest", "--config.source.path=bundled", "--config.source.format=lerobt"],
      "config.source.format='lerobt' is unknown: did you mean 'lerobot'?",
    ),
    (
      ["--config=ingest", "--config.source.path=bundled", "--config.shards.codec=jpg"],
      "config.shards.codec='jpg' is unknown: did you mean 'jpeg'?",
    ),
    (
      ["--config=rollout", "--config.simulator=metawold"],
      "config.simulator='metawold' is unknown: did you mean 'metaworld'?",
    ),
    (
      ["--config=collect", "--config.collect.simulator=metawold"],
      "config.collect.simulator='metawold' is unknown: did you mean 'metaworld'?",
    ),
    (
      ["--config=quickstart", "--config.source=nowhere/at/all"],
      "config.source 'nowhere/at/all' does not exist",
    ),
    (
      ["--config=quickstart", "--config.motion=configs/motoin.py"],
      "config.motion=configs/motoin.py: ",
    ),
    (
      ["--config=motion:debug", "--config.data.path=nowhere/at/all"],
      "config.data.path 'nowhere/at/all' does not exist",
    ),
  ],
)
def test_names_that_no_table_has(words, expected):
  assert refused(*words).startswith(expected) or (
    expected.startswith("did") and expected in refused(*words)
  )


def test_the_paths_of_a_mixture_stand_in_for_the_single_one(tmp_path):
  words = ["main", "--config=motion:debug", "--config.data.path=nowhere"]
  config_checks.check(
    config_lib.parse([*words, "--config.data.mixture=({'path': 'bundled'},)"]).config
  )
  mixture = f"({{'path': 'bundled'}}, {{'path': '{tmp_path}/no'}})"
  line = text_of(
    lambda: config_checks.check(
      config_lib.parse([*words, f"--config.data.mixture={mixture}"]).config
    )
  )
  assert line.startswith(f"config.data.mixture[1]['path'] '{tmp_path}/no' does not exist")
  config_checks.check(
    config_lib.parse(["main", "--config=motion:debug", "--config.encoder_weights=bundled"]).config
  )
