"""What ingesting hands on of its config, and what it says."""

import types

from como_jax import config as config_lib
from como_jax.data import sources as formats
from como_jax.tasks import ingest
from tests.data import makers


def test_ingesting_hands_on_what_the_config_says(monkeypatch, tmp_path, capsys):
  asked = []
  summary = types.SimpleNamespace(
    episodes=3, clips=4, frames=50, seconds=1.26, path="OUT", manifest="MANIFEST"
  )
  monkeypatch.setattr(ingest.data_folders, "resolve", lambda path: f"resolved {path}")
  monkeypatch.setattr(
    ingest.ingest, "write", lambda *given, **more: asked.append((given, more)) or summary
  )
  monkeypatch.setattr(
    ingest.sources,
    "open_source",
    lambda path, **more: asked.append((path, more)) or makers.Synthetic((3,), cameras=("a", "b")),
  )
  monkeypatch.setattr(
    ingest.ingest_manifest, "remarks", lambda manifest: [f"a remark on {manifest}", "another"]
  )
  for output, expected, address in (
    ("", str(tmp_path), ""),
    ("elsewhere", "elsewhere", ""),
    ("", str(tmp_path), "s3://b/s"),
    ("elsewhere", "elsewhere", "s3://b/s"),
  ):
    section = {"path": "raw", "format": "lerobot", "cameras": ("a",), "action_key": "act"}
    config = config_lib.ConfigDict(
      {
        "source": section,
        "output": output,
        "workers": 3,
        "lease_seconds": 7.0,
        "runner": "beam",
        "runner_flags": ("--x=1",),
        "shards": {"image_size": 32},
      }
    )
    command = types.SimpleNamespace(config=config, workdir=tmp_path, address=address)
    assert ingest.run(command) == 0
    (source, path, settings, work), more = asked.pop()
    assert (len(source), path, more) == (1, expected, {})
    assert (settings.image_size, settings.cameras) == (32, ("a",))
    assert settings.options == formats.SourceOptions(action_key="act").stored()
    assert work == ingest.ingest.Work(3, lease_seconds=7.0, runner="beam", runner_flags=("--x=1",))
    options = formats.SourceOptions(action_key="act")
    assert asked.pop() == ("resolved raw", dict(format="lerobot", options=options))
    assert (
      capsys.readouterr().out
      == f"3 episodes, 4 clips, 50 frames in 1.3 s -> {'OUT' if output or not address else address}"
      "\na remark on MANIFEST\nanother\n"
    )
