"""Stages of a long command: what runs, what is left out, and what a failure costs."""

import pytest

from como_jax import stages


class Refusal(Exception):
  code = 7


def made(workdir, calls, codes=None, **options):
  """Stages "a", "b" and "c" that write a file each, unless `codes` has something else for them."""

  def run(name):
    calls.append(name)
    result = (codes or {}).get(name, 0)
    if isinstance(result, Exception):
      raise result
    if not result:
      (workdir / name).touch()
    return result

  return [
    stages.Stage(name, workdir / name, lambda name=name: run(name), **options.get(name, {}))
    for name in "abc"
  ]


def test_finished_stages_are_not_run_again(tmp_path):
  calls = []
  first = stages.run(made(tmp_path, calls), tmp_path)
  assert first.complete and first.code == 0 and list(first.seconds) == ["a", "b", "c"]
  (tmp_path / "b").unlink()
  second = stages.run(made(tmp_path, calls), tmp_path)
  assert calls == ["a", "b", "c", "b"] and second.skipped == {}
  assert second.seconds["a"] == first.seconds["a"], "kept beside the products"


def test_a_product_may_be_half_done(tmp_path):
  calls = []
  (tmp_path / "b").write_text("half")
  half = {"b": {"done": lambda path: path.exists() and path.read_text() != "half"}}
  stages.run(made(tmp_path, calls, **half), tmp_path)
  assert calls == ["a", "b", "c"]


def test_a_needed_stage_that_fails_ends_the_command(tmp_path):
  calls = []
  found = stages.run(made(tmp_path, calls, {"b": 3}), tmp_path)
  assert (found.complete, found.code, calls) == (False, 3, ["a", "b"])
  with pytest.raises(Refusal):
    stages.run(made(tmp_path, calls, {"b": Refusal("no")}), tmp_path)


@pytest.mark.parametrize("failure, code", [(3, 3), (Refusal("no"), 7), (ValueError("no"), 1)])
def test_a_stage_that_is_not_needed_may_fail(tmp_path, capsys, failure, code):
  calls = []
  found = stages.run(made(tmp_path, calls, {"b": failure}, b={"needed": False}), tmp_path)
  assert (found.complete, found.code, calls) == (True, code, ["a", "b", "c"])
  assert list(found.seconds) == ["a", "c"] and f"exit code {code}" in found.skipped["b"]
  if failure != code:
    assert capsys.readouterr().err == f"error: b: {type(failure).__name__}: no\n"


def test_a_reason_to_leave_a_stage_out_is_asked_for_just_before_it(tmp_path, capsys):
  calls = []
  reason = {"b": {"skip": lambda: "" if "a" not in calls else "of a"}}
  found = stages.run(made(tmp_path, calls, **reason), tmp_path)
  assert calls == ["a", "c"] and found.skipped == {"b": "of a"} and found.complete
  assert "== b: left out: of a\n" in capsys.readouterr().out
