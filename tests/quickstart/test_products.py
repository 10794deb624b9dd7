"""What is read of the stages of a quickstart, and what a stage that was left out counts as."""

import json

import pytest

from como_jax.quickstart import products
from tests.data import makers
from tests.quickstart import finished


def test_what_the_stages_have_written_is_read(tmp_path):
  found = products.read(finished.whole(tmp_path))
  assert (found.workdir, found.config) == (tmp_path, {"source": "bundled"})
  assert (found.rows, found.exam) == (finished.ROWS, {})
  assert (found.rollout, found.served) == (finished.RESULTS, finished.SERVED)
  assert found.motion_speed["steps"] == 500 and found.policy_speed["steps"] == 300
  assert found.curves["motion", "train"] == {"loss": ([3], [2.5]), "psnr": ([3], [20.0])}
  assert found.curves["policy", "validation"]["action_mse"] == ([1, 2], [0.5, 0.25])
  finished.write(tmp_path / "exam" / "exam.json", {"rows": {"trained": {"s": 0.5}}})
  assert products.read(tmp_path).exam == {"trained": {"s": 0.5}}


def test_a_stage_that_was_left_out_has_written_nothing(tmp_path):
  found = products.read(finished.half(tmp_path))
  assert (found.config, found.policy_speed, found.rollout, found.served) == ({}, {}, {}, {})
  assert found.curves["policy", "train"] == {}


def test_a_film_has_six_pictures_of_each_recorded_episode(tmp_path):
  films = products.films(products.read(finished.whole(tmp_path)))
  assert list(films) == ["reach: success", "push: failure"]
  assert films["push: failure"].shape == (6, 128, 128, 3)
  assert [makers.number(image) for image in films["push: failure"]] == [0, 2, 4, 7, 9, 11]


@pytest.mark.parametrize("broken, played", [([], True), ([{"error": "unstable"}], False)])
def test_rollouts_are_finished_without_a_broken_episode(tmp_path, broken, played):
  file = tmp_path / "results.json"
  assert not products.all_episodes_played(file)
  file.write_text(json.dumps({"errors": broken}))
  assert products.all_episodes_played(file) == played
