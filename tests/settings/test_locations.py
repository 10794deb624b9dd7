"""Names that no list has, and paths that do not exist."""

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.settings import locations


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


def test_a_value_is_one_of_a_list():
  locations.one_of("a.b", "x", iter(("x", "y")))
  assert (
    text_of(lambda: locations.one_of("a.b", "linar", ("linear",)))
    == "config.a.b='linar' is unknown: did you mean 'linear'? (valid: linear)"
  )
  section = config_lib.ConfigDict({"kind": 1})
  assert (
    text_of(lambda: locations.one_of("a.b", section, ("zz",)))
    == "config.a.b={'kind': 1} is unknown: valid: zz"
  )


def test_a_path_that_is_not_there_names_the_nearest_beside_it(tmp_path, monkeypatch):
  (tmp_path / "run1").mkdir()
  (tmp_path / ".rum1").mkdir()
  locations.exists("name", str(tmp_path / "run1"))
  assert (
    text_of(lambda: locations.exists("name", f"{tmp_path}/rum1/"))
    == f"name={tmp_path}/rum1/ does not exist: did you mean '{tmp_path}/run1'?"
  )
  assert (
    text_of(lambda: locations.exists("name", f"{tmp_path}/zzzzzzzzzzzzzzzzzzzzzzzzzz/no/x"))
    == f"name={tmp_path}/zzzzzzzzzzzzzzzzzzzzzzzzzz/no/x does not exist"
  )
  monkeypatch.chdir(tmp_path)
  assert (
    text_of(lambda: locations.exists("name", "rum1"))
    == "name=rum1 does not exist: did you mean 'run1'?"
  )
  assert text_of(lambda: locations.exists("name", "qq")) == "name=qq does not exist"
