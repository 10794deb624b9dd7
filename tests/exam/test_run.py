"""The whole exam on a made set: verdicts, rows, the command line, and what is imported."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from como_jax.exam import __main__ as command
from como_jax.exam import (
  exam_set,
  leakage,
  motion_score,
  relations,
  run,
  shares,
  verdict,
  whitening,
)
from tests.exam import made_set

ROOT = pathlib.Path(__file__).parents[2]


def test_verdicts(results):
  assert {kind: result.verdict for kind, result in results.items()} == {
    "motion": verdict.MOTION,
    "first": verdict.NOTHING,
    "both": verdict.APPEARANCE,
  }
  assert results["motion"].score.s.value > 0.8 and results["motion"].score_robot.s.value > 0.8
  assert not results["motion"].flagged and set(results["both"].flagged) >= {"scene", "camera"}
  assert (
    results["first"].score.s.value < 0.1
    and "appearance is readable: scene" in results["first"].sentence
  )


def test_shares_relations_and_cameras(results):
  motion, first = results["motion"], results["first"]
  assert motion.shares.shares["motion"].low > 0.9 > first.shares.shares["motion"].high
  assert (
    motion.additivity.error.value < 0.1
    and motion.reversal.cosine.value > 0.9
    and motion.static < 0.1
  )
  assert first.additivity.error.low > 0.8 and first.reversal.error.value > 2 and first.static > 0.8
  assert motion.shifted.error.high < 1e-12 and first.shifted.error.low > 0.1
  assert motion.crossed.other < 0.2 and motion.crossed.cameras == (0, 1, 2)
  assert list(motion.dose) == [0.0, 0.5, 1.0] and motion.dose[0.0].high < motion.dose[1.0].low
  assert motion.cameras.levels == (10, 11) and motion.scenes.levels == (100, 101, 102)


def test_parts_are_asked_of_the_right_pairs(made, results):
  exam, pictures, _ = made
  arrays, result = made_set.latents(pictures, "motion"), results["motion"]
  scaling = whitening.scale_inputs(arrays["z"][exam.rows(0)])
  z, block, test = scaling(arrays["z"]), run.twins(exam), exam.rows(1)
  twins = np.concatenate([z[2 * block], z[2 * block + 1]])
  wanted = shares.variance_components(
    twins, groups=np.tile(np.arange(40), 2), whiten=False, resamples=300
  )
  assert result.shares.raw == wanted.raw and result.shares.shares["rest"] == wanted.shares["rest"]
  assert result.static == relations.static(
    scaling(arrays["z_aa"][exam.views["part"] == 1]), z[test]
  )
  views = np.flatnonzero(exam.views["part"] == 1)
  moved = made_set.latents(pictures, "first")["z_shifted"]
  latents = exam_set.Latents(made_set.latents(pictures, "first")["z"], z_shifted=moved)
  scaling = whitening.scale_inputs(latents.z[exam.rows(0)])
  ask = scaling(latents.z[2 * views]), scaling(moved[views])
  assert results["first"].shifted == relations.shifted(*ask, groups=exam.views["chain"][views])
  still = (exam.of_pairs("camera")[test] == 12) & (exam.camera_speed.reshape(-1)[test] == 0)
  assert result.dose[0.0].value == pytest.approx(
    motion_score.e(result.errors[still], result.moves.squares[still])
  )
  first, second = (exam.pictures[:, some].reshape(-1, 8) for some in ([0, 1], [1, 2]))
  ask = {"chains": exam.of_pairs("chain")[test], "resamples": 300}
  assert result.future.gap == leakage.future(arrays["z"][test], first, second, **ask).gap
  # about the mean of the fit: nothing is read
  assert abs(result.numbers["color"].total.value) < 0.1


def test_true_displacements_get_everything(made):
  exam, _, _ = made
  result = run.evaluate(exam, exam.target, resamples=300)
  assert (
    result.score.z.value < 1e-3 and result.score.s.value > 1 and result.verdict == verdict.MOTION
  )
  assert result.shares.shares["motion"].value > 0.999 and result.score_robot.z.value < 1e-3
  assert result.additivity is None and result.static is None and "additivity" not in result.row()


def test_twins_are_complete_and_still(made):
  exam, _, _ = made
  block = run.twins(exam)
  assert block.shape == (40, 2, 3) and (exam.camera_speed[block] == 0).all()
  for axis, name in enumerate(("chain", "camera", "scene")):
    values = np.moveaxis(exam.views[name][block], axis, 0)
    assert (values == values[:, :1, :1]).all() and len(np.unique(values)) == block.shape[axis]
  one = np.flatnonzero((exam.views["part"] == 1) & (exam.views["camera"] == 10))[0]
  views = {**exam.views, "scene": exam.views["scene"].copy()}
  views["scene"][one] = exam.views["scene"][one + 1]  # a chain that lacks a scene is left out
  assert run.twins(dataclasses.replace(exam, views=views)).shape == (39, 2, 3)
  alone = {**exam.views, "camera": np.where(exam.views["camera"] == 11, 10, exam.views["camera"])}
  assert run.twins(dataclasses.replace(exam, views=alone)) is None


def test_the_command_needs_numpy_alone(made):
  _, pictures, folder = made
  np.savez(folder / "z.npz", **made_set.latents(pictures, "motion"))
  out = folder / "result.json"
  code = (
    f"import runpy, sys\nsys.argv = ['exam', 'score', {str(folder / 'z.npz')!r}, '--set', "
    f"{str(folder)!r}]\nsys.argv += ['--out', {str(out)!r}]\ntry:\n  "
    "runpy.run_module('como_jax.exam', run_name='__main__')\nexcept SystemExit as end:\n  assert "
    f"end.code == 0, end.code\nheavy = {{'jax', 'jaxlib', 'flax', 'scipy', 'av', 'PIL', "
    f"'pyarrow', 'ml_collections', 'optax'}}\nassert 'numpy' in sys.modules and not heavy & "
    "set(sys.modules), heavy & set(sys.modules)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(out.read_text())
  assert found["verdict"] == verdict.MOTION and done.stdout.rstrip().endswith(found["sentence"])
  assert found["numbers"]["s"] > 0.8 and not list(folder.glob("*.partial"))
  assert (
    "S (0 = one picture, 1 = both)" in done.stdout
    and "share of z's variance: motion" in done.stdout
  )


@pytest.mark.parametrize(
  "arguments, text",
  [
    (["none.npz"], "none.npz: no such file"),
    (["bad.npz"], "bad.npz: z: expected ["),
    (
      ["z.npz", "--out", "nowhere/result.json"],
      "--out nowhere/result.json: expected a file in a folder that exists",
    ),
    (["z.npz", "--set", "nowhere"], "nowhere: no such file"),
  ],
)
def test_bad_input_is_one_line(made, monkeypatch, capsys, arguments, text):
  exam, _, folder = made
  monkeypatch.chdir(folder)
  np.savez("bad.npz", z=np.zeros((3, 2)))
  np.savez("z.npz", z=exam.target)
  assert command.main(["score", *arguments] + ([] if "--set" in arguments else ["--set", "."])) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1 and text in lines[0] and lines[0].startswith("error: ")
