"""Requests that share a call of the policy, on an event loop of the test's own: no network, no
waiting.
"""

import asyncio
import threading
import types

import numpy as np
import pytest

from como_jax import errors
from como_jax.serve import batching
from tests import limits
from tests.serve import fake


def history(number):
  return [
    {
      "observation.state": np.full(8, number),
      "observation.images.front": np.full((8, 8, 3), 100, np.uint8),
    }
  ]


def expected(number):
  return 101 * number + 10 + 0.1 + np.arange(4)


@pytest.fixture
def waits(monkeypatch):
  """What ended each wait for a full batch: "full", or "late" when nothing more can come.

  No time passes.
  """
  found = []

  async def wait_for(waiting, seconds):
    task = asyncio.ensure_future(waiting)
    for _ in range(100):
      await asyncio.sleep(0)
      if task.done():
        break
    found.append((seconds, "full" if task.done() else "late"))
    if not task.done():
      task.cancel()
      raise TimeoutError

  monkeypatch.setattr(
    batching, "asyncio", types.SimpleNamespace(**{**vars(asyncio), "wait_for": wait_for})
  )
  return found


def play(rounds, *, policy=None, batch_size=2, wait_seconds=5.0, clients=2):
  """Answers of rounds of requests, each [(state, seed), ...]; those of a round are sent
  together.
  """

  async def main():
    one = batching.Batcher(
      policy or fake.Policy(),
      batch_size=batch_size,
      wait_seconds=wait_seconds,
      clients=lambda: clients,
    )
    await one.warm_up()
    running = asyncio.create_task(one.run())
    found = [
      await asyncio.gather(
        *(one.submit(history(state), seed) for state, seed in requests), return_exceptions=True
      )
      for requests in rounds
    ]
    running.cancel()
    one.close()
    return found

  return asyncio.run(main())


def test_a_batch_goes_as_soon_as_it_is_full_and_the_next_one_waits_again(waits):
  policy = fake.Policy()
  for answers in play([[(1.0, 3), (2.0, 4)], [(1.0, 5), (2.0, 6)]], policy=policy, clients=3):
    for number, answer in enumerate(answers, start=1):
      np.testing.assert_allclose(answer.actions[:, 0], expected(float(number)), rtol=1e-6)
      assert answer.actions.dtype == np.float32
  assert policy.warm and policy.batches == [2, 2] and policy.seeds == [3, 5], (
    "the seed of the oldest"
  )
  assert waits == []


def test_who_comes_first_waits_for_the_others_of_a_batch(waits):
  async def main(policy, between):
    one = batching.Batcher(policy, batch_size=2, wait_seconds=5.0, clients=lambda: 3)
    running = asyncio.create_task(one.run())
    for _ in range(2):
      first = asyncio.create_task(one.submit(history(1.0), 0))
      for _ in range(between):
        await asyncio.sleep(0)
      await asyncio.gather(first, one.submit(history(2.0), 0))
    running.cancel()
    one.close()

  policy = fake.Policy()
  asyncio.run(main(policy, 10))
  assert policy.batches == [2, 2] and waits == [(5.0, "full")] * 2
  policy.batches.clear(), waits.clear()
  asyncio.run(main(policy, 300))
  assert policy.batches == [1, 1, 1, 1] and waits == [(5.0, "late")] * 4


def test_nobody_waits_where_no_wait_is_asked_for(waits):
  policy = fake.Policy()
  play([[(1.0, 0)]], policy=policy, wait_seconds=0.0)
  assert policy.batches == [1] and waits == []


def test_more_than_a_batch_holds_is_answered_by_several(waits):
  policy = fake.Policy()
  (answers,) = play([[(float(i), i) for i in range(5)]], policy=policy)
  assert [answer.actions[0, 0] for answer in answers] == pytest.approx(
    [expected(float(i))[0] for i in range(5)]
  )
  assert policy.batches == [2, 2, 1] and policy.seeds == [0, 2, 4]


def test_a_refused_request_is_tried_alone(waits):
  policy = fake.Policy()
  ((good, bad),) = play([[(1.0, 3), (666.0, 4)]], policy=policy)
  assert good.actions[0, 0] == pytest.approx(expected(1.0)[0])
  assert isinstance(bad, errors.UserError) and str(bad) == "the number of the beast"
  assert policy.batches == [2, 1, 1] and policy.seeds == [3, 3, 4]


def test_actions_of_another_shape_or_without_numbers_reach_nobody(waits):
  policy = fake.Policy()
  policy.infer = lambda histories, *, seed: np.zeros((1, 3, 7))
  ((wrong,),) = play([[(1.0, 0)]], policy=policy)
  assert (
    type(wrong) is ValueError
    and str(wrong) == "the policy gave actions of shape (1, 3, 7), expected (1, 4, 7)"
  )
  policy.infer = lambda histories, *, seed: np.full((1, 4, 7), np.nan)
  ((wrong,),) = play([[(1.0, 0)]], policy=policy)
  assert (
    type(wrong) is errors.NonFiniteError
    and str(wrong) == "the policy gave actions that are not finite"
  )


def test_times_are_milliseconds(monkeypatch, waits):
  clock = iter(range(100))
  monkeypatch.setattr(batching, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
  (first,), (second,) = play([[(1.0, 0)], [(1.0, 0)]])
  # The request is made at 0, the policy called at 1, it has answered at 2, the answer is handed on
  # at 3; then at 4, 5, 6, 7.
  assert (first.policy_ms, first.infer_ms, second.policy_ms, second.infer_ms) == (
    1000.0,
    3000.0,
    1000.0,
    3000.0,
  )


def test_who_has_left_hinders_nobody():
  async def main(policy):
    one = batching.Batcher(policy, batch_size=2, wait_seconds=0.0, clients=lambda: 2)
    running = asyncio.create_task(one.run())
    policy.gate.clear()
    leaving, staying = (asyncio.create_task(one.submit(history(state), 0)) for state in (1.0, 2.0))
    while not policy.batches:
      await asyncio.sleep(0.001)
    leaving.cancel()
    policy.gate.set()
    answer = await staying
    running.cancel()
    one.close()
    return answer

  policy = fake.Policy()
  assert asyncio.run(main(policy)).actions[0, 0] == pytest.approx(
    expected(2.0)[0]
  ) and policy.batches == [2]


def test_closing_does_not_wait_for_the_policy_and_ends_its_thread():
  policy, seen, batchers = fake.Policy(), [], []
  policy.gate.clear()
  later = threading.Timer(3.0, policy.gate.set)  # for a close that would wait

  async def main():
    one = batching.Batcher(policy, batch_size=1, wait_seconds=0.0, clients=lambda: 1)
    policy.warm_up = lambda: seen.append(threading.current_thread())
    await one.warm_up()
    running = asyncio.create_task(one.run())
    asking = asyncio.create_task(one.submit(history(1.0), 0))
    while not policy.batches:
      await asyncio.sleep(0.001)
    later.start()
    one.close()
    batchers.append(one)
    seen.append(policy.gate.is_set())
    policy.gate.set()
    await asking
    running.cancel()

  asyncio.run(main())
  later.cancel()
  thread, waited = seen
  assert waited is False and thread is not threading.main_thread()
  with pytest.raises(RuntimeError, match="after shutdown"):
    asyncio.run(batchers[0].warm_up())
  thread.join(limits.SAFETY_NET)
