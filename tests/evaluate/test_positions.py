"""Which actions are positions: made-up recordings of arms, each read as the windows of an
evaluation read them.
"""

import numpy as np
import pytest

from como_jax.evaluate import positions

STRIDE, FRAMES, EPISODES, JOINTS = 5, 120, 6, 4


def smooth(rng, frames=FRAMES):
  """Joint paths [frames, JOINTS] of a few slow waves, as a person moves an arm."""
  t = np.arange(frames)[:, None] / frames
  waves = rng.uniform(0.5, 4, size=(3, JOINTS)), rng.uniform(0, 2 * np.pi, size=(3, JOINTS))
  return sum(
    np.sin(2 * np.pi * rate * t + phase) for rate, phase in zip(*waves, strict=False)
  ) * 0.5 + rng.normal(size=JOINTS)


def follow(target, delay, noise, rng):
  """States of an arm that is where it was told to be `delay` frames before."""
  return np.concatenate([np.repeat(target[:1], delay, 0), target[:-delay]]) + noise * rng.normal(
    size=target.shape
  )


def absolute(rng):
  target = smooth(rng)
  return target, follow(target, 3, 0.03, rng)


def degrees(rng):
  target, state = absolute(rng)
  return np.rad2deg(target) + 90, state


def delta(rng):
  state = smooth(rng)
  return np.diff(state, axis=0, append=state[-1:]) + 0.005 * rng.normal(size=state.shape), state


def velocity(rng):
  action, state = delta(rng)
  return 30 * action, state


def faster_and_faster(rng):
  """Velocities of reaches that speed up: where the arm is tells them well, how it moves tells them
  better.
  """
  t = np.arange(FRAMES)[:, None] / FRAMES
  speed = rng.uniform(0.9, 1.1, size=JOINTS) * t + 0.03 * rng.normal(size=(FRAMES, JOINTS))
  return speed, np.cumsum(speed, axis=0)


def towards_goals(rng):
  """A controller's steps towards a goal that changes now and then, cut off at full speed."""
  state, goal, states, actions = rng.normal(size=JOINTS), rng.normal(size=JOINTS), [], []
  for t in range(FRAMES):
    goal = rng.normal(size=JOINTS) if t % 40 == 0 else goal
    states.append(state)
    actions.append(np.clip(10 * (goal - state), -1, 1))
    state = state + 0.05 * actions[-1]
  return np.array(actions), np.array(states)


def towards_one_goal(rng):
  state, states = rng.normal(size=JOINTS), []
  for _ in range(FRAMES):
    states.append(state)
    state = state - 0.05 * state
  return -np.array(states), np.array(states)


def stopped_gripper(rng):
  """Absolute, and the last joint is a gripper told to close that stops at what it holds."""
  target, state = absolute(rng)
  target[:, -1] = (np.arange(FRAMES) % 60 > 30) * 1.0
  state[:, -1] = np.minimum(follow(1 - target[:, -1:], 3, 0.0, rng)[:, 0] + rng.uniform(0, 1), 1)
  return target, state


def delta_with_gripper(rng):
  """Steps of an arm, and the last number is how far a gripper shall open."""
  action, state = delta(rng)
  wish, opening = absolute(rng)
  action[:, -1], state[:, -1] = wish[:, -1], opening[:, -1]
  return action, state


def windows(made, seed):
  """(actions, states, following states, changes), [N, JOINTS] each: means over the frames of pairs,
  as an evaluation gives them.
  """
  rng, rows = np.random.default_rng(seed), []
  for _ in range(EPISODES):
    action, state = made(rng)
    for t in range(0, FRAMES - STRIDE, 3):
      part = slice(t, t + STRIDE)
      rows.append(
        (
          action[part].mean(0),
          state[part].mean(0),
          state[t + 1 : t + STRIDE + 1].mean(0),
          state[t + STRIDE] - state[t],
        )
      )
  return tuple(np.array(column) for column in zip(*rows, strict=False))


@pytest.mark.parametrize(
  "made, share",
  [
    (absolute, 1),
    (degrees, 1),
    (stopped_gripper, 1),
    (delta, 0),
    (velocity, 0),
    (faster_and_faster, 0),
    (towards_goals, 0),
    (towards_one_goal, 0),
    (delta_with_gripper, 1 / JOINTS),
  ],
)
def test_no_recording_is_misjudged(made, share):
  for seed in range(10):
    action, _, following, change = windows(made, seed)
    assert positions.detect(action, following, change).dimensions.mean() == share, seed


def test_action_minus_state_is_the_same_motion_in_any_unit():
  action, state, following, change = windows(absolute, 0)
  found = positions.detect(action, following, change)
  np.testing.assert_allclose(found.motion(action, state), action - state)
  other, *_ = windows(degrees, 0)
  turned = positions.detect(other, following, change)
  assert turned.scale == pytest.approx(np.full(JOINTS, np.rad2deg(1)), rel=0.1)
  for a, b in zip(turned.motion(other, state).T, (action - state).T, strict=False):
    assert np.corrcoef(a, b)[0, 1] > 0.9
  action, state, following, change = windows(delta, 0)
  np.testing.assert_array_equal(
    positions.detect(action, following, change).motion(action, state), action
  )


def test_a_gripper_that_stops_is_subtracted_like_the_rest():
  action, state, following, change = windows(stopped_gripper, 1)
  np.testing.assert_allclose(
    positions.detect(action, following, change).motion(action, state), action - state
  )


@pytest.mark.parametrize("explained", [0.7, 0.9])
def test_the_state_has_to_explain_most(explained):
  state, noise = np.linalg.qr(np.random.default_rng(0).normal(size=(100, 3)))[0][:, 1:].T
  state, noise = state - state.mean(), noise - noise.mean()
  action = (explained**0.5 * state / state.std() + (1 - explained) ** 0.5 * noise / noise.std())[
    :, None
  ]
  found = positions.detect(action, state[:, None], np.zeros((100, 1)))
  assert found.dimensions.tolist() == [explained > positions.TRACKS]


def test_what_does_not_move_or_has_no_state_is_no_position():
  action, _, following, change = windows(absolute, 0)
  action[:, 0], following[:, 1], change[:, 1] = 3.0, 0.0, 0.0
  assert positions.detect(action, following, change).dimensions.tolist() == [
    False,
    False,
    True,
    True,
  ]
  few = slice(positions.MIN_SAMPLES - 1)
  assert not positions.detect(action[few], following[few], change[few]).dimensions.any()
