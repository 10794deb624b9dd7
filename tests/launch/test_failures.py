"""What an exit code says, and how a run's ends are counted."""

import failures
import pytest


@pytest.mark.parametrize(
  "code, transient, failed",
  [
    (0, False, False),
    (1, False, True),
    (2, False, False),
    (3, False, False),
    (75, True, False),
    (137, False, False),
    (139, False, False),
    (143, True, False),
    (200, False, True),
  ],
)
def test_kinds_of_ends(code, transient, failed):
  for several in (False, True):
    assert failures.is_transient(code, several=several) == transient
  assert failures.program_failed(code) == failed


def test_an_abort_is_transient_where_another_process_can_be_lost():
  assert failures.is_transient(134, several=True)
  assert not failures.is_transient(134, several=False)


@pytest.mark.parametrize(
  "codes, expected",
  [
    ([75, 1, 134], 1),  # the largest one, which srun reports, is a consequence
    ([75, 75, 2], 2),
    ([143, 3, 1], 3),
    ([75, 137, 134], 137),
    ([143, 75, 134], 134),
    ([0, 143], 143),
    ([0, 0], 0),
  ],
)
def test_a_failure_counts_before_what_follows_from_it(codes, expected):
  assert failures.cause(codes) == failures.cause(codes[::-1]) == expected


def test_history_counts_what_brought_no_step():
  history = failures.History(several=False)
  assert not history.add(3, 1) and history.idle == 0  # it moved
  assert history.add(3, 1) and history.idle == 1  # twice in a row at one step
  assert not history.add(3, 75) and (history.idle, history.fruitless) == (1, 2)
  assert not history.add(3, 1)  # something else lies between
  assert not history.add(5, 1) and (history.idle, history.fruitless) == (0, 0)
  assert (history.best, history.last_step) == (5, 5)
  assert history.add(5, 200) and not history.add(None, 200)


def test_steps_that_no_end_tells_of_count_too():
  history = failures.History(several=False)
  for _ in range(4):
    history.add(100, 137)
  assert history.idle == 3 and history.reached(5000)
  assert (history.best, history.idle, history.fruitless) == (5000, 0, 0)
  assert not history.reached(200) and not history.reached(None) and history.best == 5000
