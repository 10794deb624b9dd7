"""Checksums of a step: what is noticed, what each finding says, and where damaged steps go."""

import json

import pytest

from como_jax import errors
from como_jax.train import integrity


@pytest.fixture(name="step")
def _step(tmp_path):
  """A folder with the files of a committed step 12 that matter here, not sealed yet."""
  step = tmp_path / "12"
  for item in (integrity.STATE, integrity.DATA):
    (step / item).mkdir(parents=True)
  (step / "data" / "metadata").write_text(
    json.dumps({"position": 12, "version": integrity.VERSION})
  )
  (step / "state" / "_METADATA").write_text("{}")
  (step / "state" / "manifest.ocdbt").write_bytes(b"index")
  (step / "state" / "d").mkdir()
  (step / "state" / "d" / "array").write_bytes(bytes(range(200)))
  return step


def test_the_steps_of_a_folder_are_its_folders_named_by_numbers_newest_first(tmp_path):
  assert integrity.steps(tmp_path / "none") == []
  for name in ("4", "12", "damaged-16", "12.tmp"):
    (tmp_path / name).mkdir()
  (tmp_path / "20").write_text("a file")
  assert integrity.steps(tmp_path) == [12, 4]


def test_a_sealed_step_lists_every_file_of_its_items_and_is_good(step):
  assert integrity.check(step) is False  # no checksums: its structure only
  (step / "other").write_text("not of an item")
  integrity.seal(step)
  text = (step / integrity.CHECKSUMS).read_text()
  stored = json.loads(text)
  assert text == json.dumps(stored, indent=0), "a file a line"
  assert stored["version"] == integrity.VERSION and stored["kind"] == "xxh3_64"
  assert {name: size for name, (size, _) in stored["files"].items()} == {
    "data/metadata": len((step / "data" / "metadata").read_bytes()),
    "state/_METADATA": 2,
    "state/d/array": 200,
    "state/manifest.ocdbt": 5,
  }
  assert integrity.check(step) is True and integrity.problem(step) == ""


def test_a_step_that_was_deleted_meanwhile_is_not_sealed(tmp_path):
  integrity.seal(tmp_path / "8")
  (tmp_path / "9").mkdir()
  integrity.seal(tmp_path / "9")
  assert not (tmp_path / "8").exists() and not list((tmp_path / "9").iterdir())


def _flip(file):
  data = bytearray(file.read_bytes())
  data[100] ^= 1
  file.write_bytes(data)


DAMAGE = {
  "state/d/array holds other bytes than were written": lambda step: _flip(
    step / "state" / "d" / "array"
  ),
  "state/d/array has 199 bytes, 200 were written": lambda step: (
    step / "state" / "d" / "array"
  ).write_bytes(bytes(199)),
  "state/manifest.ocdbt has 0 bytes, 5 were written": lambda step: (
    step / "state" / "manifest.ocdbt"
  ).write_bytes(b""),
  "data/metadata is missing": lambda step: (step / "data" / "metadata").unlink(),
  "state/d/array is missing": lambda step: (step / "state" / "d" / "array").unlink(),
  "checksums.json cannot be read": lambda step: (step / integrity.CHECKSUMS).write_text(
    '{"files": {"state/x": 3}}'
  ),
}


@pytest.mark.parametrize("text", DAMAGE)
def test_each_damage_of_a_sealed_step_is_named(step, text):
  integrity.seal(step)
  DAMAGE[text](step)
  with pytest.raises(integrity.Damaged, match=f"^{text}$"):
    integrity.check(step)
  assert integrity.problem(step) == text


def test_a_file_that_cannot_be_read_is_damage_and_one_that_may_not_be_read_is_not(
  step, monkeypatch
):
  integrity.seal(step)

  def fails(error):
    def digest(path):
      raise error

    monkeypatch.setattr(integrity.weights, "digest", digest)

  fails(OSError(5, "Input/output error"))
  assert integrity.problem(step) == "data/metadata cannot be read: Input/output error"
  fails(PermissionError(13, "Permission denied"))
  with pytest.raises(
    errors.StorageError, match=f"^cannot read {step}/data/metadata: Permission denied$"
  ):
    integrity.check(step)


def test_processes_share_the_files_of_a_step(step, monkeypatch):
  integrity.seal(step)
  read, digest = [], integrity.weights.digest
  monkeypatch.setattr(
    integrity.weights,
    "digest",
    lambda path: read.append(str(path.relative_to(step))) or digest(path),
  )
  assert integrity.check(step, index=1, count=3) is True
  assert read == ["state/_METADATA"]
  integrity.check(step, index=0, count=3)
  assert read[1:] == ["data/metadata", "state/manifest.ocdbt"]


STRUCTURE = {
  "data/metadata gives the data position 8": lambda step: (step / "data" / "metadata").write_text(
    '{"position": 8}'
  ),
  "data/metadata": lambda step: (step / "data" / "metadata").write_text("{"),
  "state/_METADATA": lambda step: (step / "state" / "_METADATA").unlink(),
  "state/manifest.ocdbt is missing or empty": lambda step: (
    step / "state" / "manifest.ocdbt"
  ).write_bytes(b""),
  "state/manifest.ocdbt is missing": lambda step: (step / "state" / "manifest.ocdbt").unlink(),
}


@pytest.mark.parametrize("text", STRUCTURE)
def test_the_structure_of_a_step_without_checksums_is_looked_at(step, text):
  STRUCTURE[text](step)
  found = integrity.problem(step)
  assert text in found and str(step) not in found


def test_a_later_format_is_refused_and_damage_is_left_to_the_check(step):
  integrity.check_version(step)
  (step / "data" / "metadata").write_text('{"position": 12}')  # before there were versions
  integrity.check_version(step)
  (step / "data" / "metadata").write_text(json.dumps({"version": integrity.VERSION + 1}))
  with pytest.raises(
    errors.UserError,
    match=f"version {integrity.VERSION + 1}, this program reads up to {integrity.VERSION}",
  ):
    integrity.check_version(step)
  (step / "data" / "metadata").write_text("{")
  integrity.check_version(step)


def test_damaged_steps_are_set_aside_under_names_of_their_own(step):
  assert integrity.set_aside(step) == step.parent / "damaged-12" and not step.exists()
  for number in (2, 3):
    step.mkdir()
    (step / f"of-{number}").touch()
    aside = integrity.set_aside(step)
    assert aside == step.parent / f"damaged-12-{number}" and (aside / f"of-{number}").exists()
