"""The text of --help from config files."""

from ml_collections import ConfigDict

from como_jax.settings import usage

SOURCE = '''"""Trains nothing.

More words.
"""

def get_config(arg=None):
  """Variants: small."""
  return ConfigDict(dict(
    seed=0,  # of everything
    train=ConfigDict(dict(
      steps=5,
      name="x",  # of the run
    )),
  ))
'''


def test_all_configs_and_the_keys_of_one(tmp_path):
  (tmp_path / "mine.py").write_text(SOURCE)
  overview = usage.overview(tmp_path).splitlines()
  assert "  mine        Trains nothing." in overview and overview[0] == usage.COMMAND
  shared = tmp_path / "shared.txt"
  shared.write_text("def train():\n  return dict(\n    steps=1,  # of the optimizer\n  )\n")
  config = ConfigDict({"seed": 0, "train": {"steps": 5, "name": "x", "note": ""}})
  lines = usage.of_config(tmp_path / "mine.py", config, shared).splitlines()
  assert "Variants: small." in lines
  assert lines[-4:] == [
    "--config.seed=0         # of everything",
    "--config.train.name=x   # of the run",
    "--config.train.note=''",
    "--config.train.steps=5  # of the optimizer",
  ]


def test_comments_stand_beside_their_keys():
  assert usage.comments(SOURCE) == {"seed": "of everything", "train.name": "of the run"}
