"""From words to a config: what is read, what is kept, what each slip says."""

import pytest

from como_jax import config as config_lib
from como_jax import errors
from tests.settings.words import parse, refused


@pytest.mark.parametrize(
  "words",
  [
    ["--config.train.steps=7"],
    ["--config.train.steps", "7"],
    ["-config.train.steps=7"],
    ["--config.train.steps=5", "--config.train.steps=7"],
    ["--config.train={'steps': 7}"],
  ],
)
def test_forms_of_a_value(words):
  assert parse("--config=motion:debug", *words).train.steps == 7


@pytest.mark.parametrize(
  "words, on",
  [(["=true"], True), (["=False"], False), (["=1"], True), (["=no"], False), ([""], True)],
)
def test_forms_of_a_switch(words, on):
  assert (
    parse(
      "--config=motion:debug", f"--config.data.augment.flip.on{words[0]}", "--config.seed=1"
    ).data.augment.flip.on
    is on
  )
  assert config_lib.parse(["main", "--config=motion:debug", f"--resume{words[0]}"]).resume is on


@pytest.mark.parametrize(
  "words", [["--noresume"], ["--resume", "--noresume"], ["--noresume", "--resume"]]
)
def test_a_switch_is_taken_back(words):
  assert not config_lib.parse(["main", "--config=motion:debug", *words]).resume
  with pytest.raises(errors.UserError, match="unexpected argument 'word'"):
    config_lib.parse(["main", "--config=motion:debug", "--noresume", "word"])


@pytest.mark.parametrize(
  "text, value",
  [
    ("top", ("top",)),
    ("'top'", ("top",)),
    ("('top',)", ("top",)),
    ("['top', 'side']", ("top", "side")),
    ("()", ()),
    ("observation.images.top", ("top",)),
    ("('observation.images.top', 'observation.image')", ("top", "image")),
    ("a-b", ("a-b",)),
  ],
)
def test_forms_of_a_tuple(text, value):
  assert parse("--config=motion:debug", f"--config.data.cameras={text}").data.cameras == value


@pytest.mark.parametrize(
  "words, expected",
  [
    (
      ["--config.train.steps=ten"],
      "--config.train.steps=ten, expected a whole number of at least 1",
    ),
    (
      ["--config.train.ema=high"],
      "--config.train.ema=high, expected a number of at least 0 and below 1",
    ),
    (
      ["--config.data.augment.flip.on=flase"],
      "--config.data.augment.flip.on=flase, expected true or false",
    ),
    (
      ["--config.data.cameras=('a'"],
      (
        "--config.data.cameras=('a', expected a tuple of texts (() for none), for example ('a', "
        "'b') or ('a',)"
      ),
    ),
    (["--config.data.cameras=a, b"], "expected a tuple of texts"),
    (["--config.data.path=('a', 'b')"], "--config.data.path=('a', 'b'), expected a path"),
    (["--config.train.steps"], "--config.train.steps has no value"),
    (["--config.seed=", "--config.train.steps=3"], "--config.seed=, expected a whole number"),
    (
      ["--config.train.mesh.fsdp=0"],
      "config.train.mesh.fsdp=0, expected a whole number of at least 1, or -1",
    ),
    (
      ["--config.data.augment.crop.scale=(0.9, 0.1)"],
      (
        "expected a tuple of numbers (2 in rising order), for example (0.5, 1.0); each above 0 "
        "and at most 1"
      ),
    ),
    (["--config.train.frozen=('encoder/(',)"], "'encoder/(' is no regular expression"),
    (
      ["--config.model.idm.num_heads=3"],
      "config.model.idm.width=128 is not a multiple of config.model.idm.num_heads=3",
    ),
    (
      ["--config.train=7"],
      (
        "--config.train=7, expected a key of it (--config.train.KEY=VALUE; keys: "
        "accept_changed_data, accumulate,"
      ),
    ),
    (["--config.train={'stesp': 7}"], "--config.train: it has no 'stesp': did you mean 'steps'"),
    (
      ["--config.train={'mesh': {'fdsp': 7}}"],
      "--config.train.mesh: it has no 'fdsp': did you mean 'fsdp'",
    ),
    (["--config.train={'mesh': 7}"], "config.train.mesh=7, expected a section"),
    (
      ["--config.task=mae"],
      "a config's task cannot be changed, choose another config file: --config=configs/mae.py",
    ),
    (["--config.data.mixture[0]=x"], "index 0 is too large"),
    (["--resume=perhaps"], "--resume=perhaps, expected --resume alone"),
    (["--workdir="], "--workdir has no value"),
    (["--workdir"], "--workdir has no value"),
    (["runs/x"], "unexpected argument 'runs/x'"),
  ],
)
def test_slips_name_the_key_what_was_given_and_what_is_expected(words, expected):
  assert expected in refused("--config=motion:debug", *words)


def test_a_dict_for_a_section_keeps_what_it_does_not_name():
  before = parse("--config=motion:debug").to_dict()
  config = parse(
    "--config=motion:debug",
    "--config.objectives={'contrastive': {'weight': 0.5}, 'mine': {'weight': 2.0}}",
  ).to_dict()
  assert config["objectives"].pop("mine") == {"weight": 2.0}, (
    "an objective of one's own can be added"
  )
  others = {"temperature": 0.1, "gate": 0.0, "fraction": 1.0}
  assert config["objectives"]["contrastive"] == {"weight": 0.5, **others}
  assert config_lib.differences(before, config) == {"objectives.contrastive.weight": (0.004, 0.5)}


def test_another_kind_replaces_its_section():
  def section(*words):
    return parse("--config=motion:small,bottleneck=vq", *words).model.bottleneck.to_dict()

  assert section("--config.model.bottleneck={'kind': 'continuous', 'latent_dim': 4}") == {
    "kind": "continuous",
    "latent_dim": 4,
  }
  assert section("--config.model.bottleneck={'kind': 'vq', 'latent_dim': 4}") == {
    "kind": "vq",
    "latent_dim": 4,
    "num_codes": 128,
  }
  assert section("--config.model.bottleneck={'latent_dim': 4}") == {
    "kind": "vq",
    "latent_dim": 4,
    "num_codes": 128,
  }


def test_keys_of_an_entry_of_a_mixture(tmp_path):
  file = tmp_path / "mine.py"
  file.write_text(
    "from como_jax import config as c\ndef get_config(arg=None):\n  config = "
    "c.load('motion:debug')[0]\n  config.data.mixture = ({'path': 'a', 'weight': 1.0}, {'path': "
    "'b'})\n  return config\n"
  )
  words = (
    f"--config={file}",
    "--config.data.mixture[1].path=c",
    "--config.data.mixture[0].weight=3",
  )
  assert [dict(entry) for entry in parse(*words).data.mixture] == [
    {"path": "a", "weight": 3.0},
    {"path": "c"},
  ]
  assert "mixture[0]['weight'] is 'x'" in refused(*words[:2], "--config.data.mixture[0].weight=x")
  assert "has no 'wieght'" in refused(f"--config={file}", "--config.data.mixture[0].wieght=1")
