"""Queue and ensemble, by hand-computed numbers."""

import threading

import numpy as np
import pytest

from como_jax import chunks as ensembles
from como_jax import errors
from como_jax.serve import player


def chunk(*values):
  return np.array(values, np.float64)[:, None]


def play(queue):
  found = []
  while len(queue):
    found.append(float(queue.pop()[0]))
  return found


@pytest.mark.parametrize(
  "merge, expected",
  [
    ("latest_only", [20.0, 21.0, 22.0, 23.0]),
    ("average", [11.0, 12.0, 22.0, 23.0]),
    ("weighted_average", [0.3 * 2 + 0.7 * 20, 0.3 * 3 + 0.7 * 21, 22.0, 23.0]),
    ("conservative", [0.7 * 2 + 0.3 * 20, 0.7 * 3 + 0.3 * 21, 22.0, 23.0]),
  ],
)
def test_overlapping_chunks_merge(merge, expected):
  queue = player.ChunkQueue(4, merge=merge)
  queue.add(0, chunk(0, 1, 2, 3))
  assert [float(queue.pop()[0]) for _ in range(2)] == [0.0, 1.0]
  queue.add(2, chunk(20, 21, 22, 23))
  np.testing.assert_allclose(play(queue), expected)
  assert queue.pop() is None and queue.step == 6


def test_what_has_been_played_is_dropped():
  queue = player.ChunkQueue(4, merge="latest_only")
  queue.add(0, chunk(0, 1, 2, 3))
  asked = queue.start_request()
  queue.pop(), queue.pop(), queue.pop()  # while the answer is on its way
  queue.add(asked, chunk(10, 11, 12, 13))
  assert play(queue) == [13.0]
  queue.add(asked, chunk(10, 11))
  assert queue.must_go


def test_it_asks_when_the_queue_falls_under_the_threshold():
  queue = player.ChunkQueue(4, threshold=0.5)
  assert queue.must_go and queue.needs_chunk()
  assert queue.start_request() == 0
  assert not queue.needs_chunk()  # one request at a time
  queue.add(0, chunk(0, 1, 2, 3))
  wanted = []
  while len(queue):
    wanted.append(queue.needs_chunk())
    queue.pop()
  # 4, 3, 2 left; 1 is under half of 4; none is a must
  assert wanted == [False, False, False, True] and queue.needs_chunk()
  queue.start_request()
  queue.fail_request()
  assert queue.needs_chunk()


def test_similar_observations_are_skipped_unless_the_queue_is_empty():
  queue = player.ChunkQueue(4, threshold=1.0, similar=0.5)
  assert queue.needs_chunk([0.0, 0.0])
  queue.start_request([0.0, 0.0])
  queue.add(0, chunk(0, 1))
  assert not queue.needs_chunk([0.3, 0.4]) and queue.needs_chunk([0.3, 0.5]) and queue.needs_chunk()
  queue.pop(), queue.pop()
  assert queue.must_go and queue.needs_chunk([0.0, 0.0])
  queue.clear()
  assert queue.step == 0 and queue.needs_chunk([0.0, 0.0])


def test_by_default_similar_observations_are_worth_asking_with_when_half_a_chunk_is_left():
  queue = player.ChunkQueue(4)
  queue.start_request([1.0])
  assert queue.needs_chunk([2.0]) is False, "one is on its way"
  queue.add(0, chunk(0, 1))
  assert queue.needs_chunk([1.0]) is False, "half a chunk is left"
  queue.pop()
  assert queue.needs_chunk([1.0]) is True


def test_what_was_asked_with_is_a_copy_and_may_be_unknown():
  queue, state = player.ChunkQueue(4, threshold=1.0, similar=0.5), np.ones(1)
  queue.start_request(state)
  state[:] = 9.0
  queue.add(0, chunk(0, 1))
  assert queue.needs_chunk([1.0]) is False and queue.needs_chunk([9.0]) is True
  queue.start_request()
  queue.add(0, chunk(0, 1))
  assert queue.needs_chunk([1.0]) is True


def test_clearing_forgets_everything():
  queue = player.ChunkQueue(4, threshold=1.0, similar=0.5)
  queue.add(0, chunk(0, 1, 2))
  queue.pop(), queue.start_request([0.0])
  queue.clear()
  assert (queue.step, len(queue), queue.must_go, queue.needs_chunk([0.0])) == (0, 0, True, True)
  queue.add(0, chunk(5, 6))
  assert queue.needs_chunk([0.0]) is True and play(queue) == [5.0, 6.0]


def test_bad_arguments():
  for settings in ({"threshold": 2.0}, {"threshold": -0.5}, {"chunk": 0}, {"similar": -0.5}):
    given = {"chunk": 4, "threshold": 0.5, "similar": 0.0} | settings
    with pytest.raises(errors.UserError) as caught:
      player.ChunkQueue(**given)
    said = ", ".join(f"{name}={value}" for name, value in given.items())
    assert str(caught.value) == f"{said}: expected at least 1, 0 to 1, at least 0"
  for settings in ({"chunk": 1}, {"threshold": 0.0}, {"threshold": 1.0}):
    assert player.ChunkQueue(**{"chunk": 4} | settings).needs_chunk()
  with pytest.raises(errors.UserError, match="^merge='averge' is unknown: did you mean 'average'"):
    player.ChunkQueue(4, merge="averge")
  for bad in (np.zeros(3), np.zeros((0, 2)), np.full((2, 2), np.nan)):
    with pytest.raises(errors.UserError, match="finite actions"):
      player.ChunkQueue(4).add(0, bad)


def test_temporal_ensemble():
  ensemble = ensembles.TemporalEnsemble(decay=np.log(2.0))  # weights 1, 1/2, 1/4 from the oldest
  found = [
    float(ensemble(new)[0, 0])
    for new in (chunk(1, 2, 3), chunk(20, 30, 40), chunk(300, 400, 500), chunk(0, 0, 0))
  ]
  # the first chunk has ended
  expected = [1, (2 + 20 / 2) / 1.5, (3 + 30 / 2 + 300 / 4) / 1.75, (40 + 400 / 2 + 0) / 1.75]
  np.testing.assert_allclose(found, expected, rtol=1e-6)


class Policy:
  """Chunk of 4: the observation's number, and the element's tenths."""

  def __init__(self):
    self.asked, self.events, self.fail, self.go = [], [], False, threading.Event()
    self.go.set()

  def infer(self, observation):
    self.go.wait(5)
    if self.fail:
      raise RuntimeError("no")
    self.events.append("answered")
    self.asked.append(observation["number"])
    return {"actions": observation["number"] + chunk(0, 0.1, 0.2, 0.3)}

  def reset(self):
    self.events.append("reset")


def test_player_plays_whole_chunks_when_it_asks_only_at_the_end():
  policy = Policy()
  play = player.Player(policy, player.ChunkQueue(4, threshold=0.0))
  assert [round(float(play({"number": i})[0]), 1) for i in range(6)] == [
    0.0,
    0.1,
    0.2,
    0.3,
    4.0,
    4.1,
  ]
  assert policy.asked == [0, 4]
  play.reset()
  assert policy.events[-1] == "reset" and float(play({"number": 9})[0]) == 9.0
  play.close()


def test_player_goes_on_while_the_policy_computes():
  policy = Policy()
  play = player.Player(policy, player.ChunkQueue(4, threshold=0.75, merge="latest_only"))
  assert [float(play({"number": i})[0]) for i in range(2)] == [0.0, 0.1]
  policy.go.clear()
  assert float(play({"number": 2})[0]) == 0.2  # asks: 2 left are under 3
  assert float(play({"number": 3})[0]) == 0.3  # still no answer
  policy.go.set()
  # its third element: two steps went by since it was asked
  assert float(play({"number": 4})[0]) == pytest.approx(2.2)
  play.close()


def test_player_hands_on_failures_and_recovers():
  policy = Policy()
  play = player.Player(policy, player.ChunkQueue(4))
  policy.fail = True
  with pytest.raises(RuntimeError, match="no"):
    play({"number": 0})
  policy.fail = False
  assert float(play({"number": 1})[0]) == 1.0
  play.close()


def test_player_takes_an_answer_as_soon_as_it_is_there():
  policy = Policy()
  play = player.Player(policy, player.ChunkQueue(4, threshold=1.0, merge="latest_only"))
  assert [float(play({"number": i})[0]) for i in range(2)] == [0.0, 0.1]
  play._request[1].result()
  assert float(play({"number": 2})[0]) == 1.1  # the second element of what was asked with at 1
  play.close()


def test_player_asks_again_after_a_failure_while_there_is_something_to_play():
  policy = Policy()
  play = player.Player(policy, player.ChunkQueue(4, threshold=1.0))
  play({"number": 0})
  policy.fail = True
  play({"number": 1})
  play._request[1].exception()
  policy.fail = False
  with pytest.raises(RuntimeError, match="no"):
    play({"number": 2})
  assert float(play({"number": 3})[0]) == 0.2
  play._request[1].result()
  assert policy.asked == [0, 3]
  play.close()


@pytest.mark.parametrize("end", ["reset", "close"])
def test_an_answer_on_its_way_is_waited_for(end):
  policy = Policy()
  play = player.Player(policy, player.ChunkQueue(4, threshold=1.0))
  play({"number": 0})
  policy.go.clear()
  play({"number": 1})  # asks
  later = threading.Timer(0.1, policy.go.set)
  later.start()
  getattr(play, end)()
  policy.events.append("ended")
  assert policy.events == ["answered", "answered", *(["reset"] if end == "reset" else []), "ended"]
  if end == "reset":
    assert float(play({"number": 7})[0]) == 7.0, "the late answer is dropped"
    play.close()
  with pytest.raises(RuntimeError, match="after shutdown"):
    play.reset(), play({"number": 8})
  later.join()
