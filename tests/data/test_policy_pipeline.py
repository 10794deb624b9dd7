"""Policy batches: chunks, masks, history, labels, mixtures.

Action a[t] = (t, episode, -t); a frame's gray level is its number.
"""

import dataclasses
import os

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import shards, transforms, value_transforms
from como_jax.data.policy_index import PolicySet
from tests.data import flat, makers, test_pipeline
from tests.data.policy_walks import (
  LENGTHS,
  SIZES,
  TASKS,
  Grouped,
  arm,
  label,
  names,
  normalizer,
  take,
  walk,
)


@pytest.fixture(scope="module", name="path")
def _path(tmp_path_factory):
  return makers.shards(tmp_path_factory.mktemp("data") / "s", LENGTHS)


@pytest.fixture(scope="module", name="two")
def _two(tmp_path_factory):
  """Two cameras, clips of 6 frames, with labels of the second camera only: (shards, labels)."""
  root = tmp_path_factory.mktemp("data")

  class Views(makers.Synthetic):  # the right camera is 2 gray levels brighter
    def __getitem__(self, i):
      raw = super().__getitem__(i)

      def right(geometry):
        return ((second, image + np.uint8(2)) for second, image in raw.cameras["left"](geometry))

      return dataclasses.replace(raw, cameras={"left": raw.cameras["left"], "right": right})

  data = makers.shards(root / "s", source=Views((14, 9), cameras=("left", "right")), clip_frames=6)
  return data, label(data, root / "labels", cameras=("right",))


same, numbers = test_pipeline.same, test_pipeline.numbers


def test_every_frame_with_its_chunk(path):
  rows = walk([arm(path)])
  assert list(zip(rows["name"], rows["time"], strict=True)) == [
    (i, t) for i, length in enumerate(LENGTHS) for t in range(length)
  ]
  np.testing.assert_array_equal(numbers(rows["images"])[:, 0, 0], rows["time"])
  for i in range(len(rows["time"])):
    t, name = int(rows["time"][i]), int(rows["name"][i])
    want, mask = np.zeros((3, 3)), np.zeros((3, 3), bool)
    for k in range(3):
      if t + k < LENGTHS[name]:
        want[k], mask[k] = (t + k, name, -t - k), True
    np.testing.assert_array_equal(rows["actions"][i], want)
    np.testing.assert_array_equal(rows["actions_mask"][i], mask)
    np.testing.assert_array_equal(rows["state"][i], [2 * t, t + 10 * name])
    np.testing.assert_array_equal(rows["language"][i], TASKS[f"task {name % 2}"][0])
    np.testing.assert_array_equal(rows["language_mask"][i], TASKS[f"task {name % 2}"][1])
  assert rows["state_mask"].all() and not rows["latents_mask"].any() and not rows["robot"].any()
  assert rows["images_mask"].shape == (43, 1) and rows["images_mask"].all()


@pytest.mark.parametrize(
  "reduce, first, last",
  [
    ("mean", [0.5, 2.5, 4.5], [4.5, 6.0]),
    ("first", [0, 2, 4], [4, 6]),
    ("last", [1, 3, 5], [5, 6]),
  ],
)
def test_a_policy_step_of_several_frames(path, reduce, first, last):
  rows = walk([arm(path)], step_seconds=0.2, reduce=reduce, history=3)
  seven = rows["name"] == 3  # the episode of 7 frames
  actions, mask = rows["actions"][seven][..., 0], rows["actions_mask"][seven][..., 0]
  np.testing.assert_allclose(actions[0], first)
  np.testing.assert_allclose(actions[4], [*last, 0])  # frame 6 alone makes the second element
  np.testing.assert_array_equal(mask[[0, 2, 4, 6]], [[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 0]])
  np.testing.assert_array_equal(
    numbers(rows["images"][seven])[:, :, 0], [[max(t - 4, 0), max(t - 2, 0), t] for t in range(7)]
  )


def test_labels_of_the_right_camera_and_frame(two):
  path, folder = two
  # n = 2 frames; no robot
  rows = walk([PolicySet(path, labels=folder, cameras=("left", "right"))], cameras=2)
  assert [int(rows["name"][i]) for i in (0, -1)] == [0, 1]
  for name, length in enumerate((14, 9)):
    mine = rows["name"] == name
    # later frames have nothing to predict
    np.testing.assert_array_equal(rows["time"][mine], np.arange(length - 2))
    for z, mask, t in zip(
      rows["latents"][mine], rows["latents_mask"][mine], rows["time"][mine], strict=True
    ):
      good = [True, t + 4 < length]  # in whichever clip the label of t + 2 and what it looks at are
      assert list(mask) == good
      np.testing.assert_array_equal(z, [[t, 1], [t + 2, 1] if good[1] else [0, 0]])
  assert not rows["actions_mask"].any() and not rows["state_mask"].any() and not rows["state"].any()
  np.testing.assert_array_equal(rows["images"][:, 0, 1].astype(int) - rows["images"][:, 0, 0], 2)


def test_views_each_and_empty_slots(two):
  path, folder = two
  rows = walk([arm(path, views="each", labels=folder)], cameras=2)
  assert len(rows["time"]) == 2 * (14 + 9)
  assert rows["images_mask"].tolist() == [[True, False]] * 46 and not rows["images"][:, :, 1].any()
  right = rows["images"][:, 0, 0].mean((1, 2, 3)).round().astype(int) % 6 == 4  # 20 + 6 t + 2
  assert right.sum() == 23
  np.testing.assert_array_equal(
    rows["latents_mask"][:, 0], right & (rows["time"] + 2 < np.where(rows["name"], 9, 14))
  )
  # a video's unlabeled camera is of no use
  assert len(walk([PolicySet(path, labels=folder, views="each")])["time"]) == 12 + 7
  rows = walk([arm(path, cameras=("", "right"))], cameras=2)
  assert rows["images_mask"].tolist() == [[False, True]] * 23
  assert walk([arm(path)], cameras=3)["images_mask"].tolist() == [[True, True, False]] * 23


def test_units_are_normalized_and_padded(path, two):
  class Wide(makers.Synthetic):
    def __getitem__(self, i):
      raw = super().__getitem__(i)
      return dataclasses.replace(raw, arrays={"action": np.tile(raw.arrays["action"], 2)[:, :5]})

  wide = makers.shards(os.path.join(os.path.dirname(path), "wide"), source=Wide((6, 6)))
  sets = [
    PolicySet(wide, robot="wide"),
    arm(path),
    PolicySet(two[0], labels=two[1], cameras=("right",)),
  ]
  found = flat.statistics(sets, validation_fraction=0.0)
  assert (
    list(found.robots) == ["wide", "arm"]
    and set(found.robots["wide"]) == {"action"}
    and found.robots["arm"]["action"].count == 43
  )
  assert found.latent.count == 12 + 7
  robots = {"wide": (5, 0), "arm": (3, 2)}
  rows = walk(sets, normalization=found.normalization("standard"), robots=robots)
  # robots are numbered in sorted order
  for which, (size, states, number) in enumerate(((5, 0, 1), (3, 2, 0), (0, 0, 0))):
    mine = rows["dataset"] == which
    assert (rows["robot"][mine] == number).all() and (
      rows["state_mask"][mine] == bool(states)
    ).all()
    assert (
      rows["actions_mask"][mine][:, 0].tolist()
      == [[True] * size + [False] * (5 - size)] * mine.sum()
    )
    assert (
      not rows["actions"][mine][..., size:].any() and not rows["state"][mine][..., states:].any()
    )
    assert rows["latents_mask"][mine].any() == (which == 2)
  mine = rows["dataset"] == 1
  assert rows["actions"].dtype == rows["state"].dtype == rows["latents"].dtype == np.float32
  np.testing.assert_allclose(rows["actions"][mine][:, 0, :3].mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(rows["state"][mine].std(0), 1, atol=1e-5)
  np.testing.assert_allclose(
    value_transforms.invert(
      found.normalization("standard").robots["arm"]["action"], rows["actions"][mine][:, 0, :3]
    )[:, 0],
    rows["time"][mine],
    atol=1e-4,
  )
  np.testing.assert_array_equal(
    walk(
      sets, normalization=found.normalization("standard"), robots=dict(reversed(robots.items()))
    )["robot"],
    rows["robot"],
  )


def test_ranges_of_episodes(many, tmp_path):
  assert names(arm(many, episodes=(0, 2)), 0) == [0, 1, 2, 3]  # two of each of the two tasks
  assert names(arm(many, episodes=(8, 99)), 0) == [16, 17, 18, 19]
  held = names(arm(many), 0.2, "validation")
  rest = [i for i in range(20) if i not in held]
  assert len(held) == 4 and names(arm(many), 0.2) == rest
  first, second = (names(arm(many, episodes=part), 0.2) for part in ((0, 3), (3, 8)))
  assert sorted(first + second) == rest and first == sorted(
    [i for i in rest if i % 2][:3] + [i for i in rest if not i % 2][:3]
  )
  # a range narrows training only
  assert names(arm(many, episodes=(0, 3)), 0.2, "validation") == held
  grouped = makers.shards(tmp_path / "s", source=Grouped((5,) * 12, task=lambda i: "one"))
  assert names(arm(grouped, episodes=(1, 3)), 0) == [2, 3, 4, 5]
  with pytest.raises(errors.UserError, match="no task has episodes 10 to 12"):
    take([arm(many, episodes=(10, 12))], 1)
  table = shards.read_table(many)
  task = table.tasks[table.task[0]]
  assert names(arm(many, tasks=(task,)), 0) == list(range(0, 20, 2)) and names(
    arm(many, tasks=(task,), episodes=(1, 3)), 0
  ) == [2, 4]
  with pytest.raises(errors.UserError, match="no episode has the instruction"):
    take([arm(many, tasks=("no such",))], 1)


def test_shares_of_the_mixture(path, two):
  sets = [arm(path, weight=3.0), PolicySet(two[0], labels=two[1], views="each", weight=1.0)]
  video = np.concatenate([batch["latents_mask"][:, 0] for batch in take(sets, 20)])
  assert video.mean() == 0.25
  batches = take(sets[:1], 86, batch_size=1)  # an epoch shows every frame once
  places = [tuple(batch["state"][0]) for batch in batches]
  assert len(set(places[:43])) == len(set(places[43:])) == 43 and places[:43] != places[43:]


AUGMENT = transforms.build({"shift": {}, "color": {}, "crop": {}})


def mixture(path, two):
  sets = [
    arm(path),
    arm(two[0], labels=two[1], views="together"),
    PolicySet(two[0], labels=two[1], views="each"),
  ]
  return sets, {"cameras": 2, "history": 3, "step_seconds": 0.2, "augment": AUGMENT, "seed": 5}


def test_processes_workers_and_restarts_do_not_change_batches(path, two):
  sets, settings = mixture(path, two)
  whole = take(sets, 4, **settings)
  assert {key: (value.shape, value.dtype.name) for key, value in whole[0].items()} == {
    "images": ((8, 3, 2, 16, 16, 3), "uint8"),
    "images_mask": ((8, 2), "bool"),
    "state": ((8, 2), "float32"),
    "state_mask": ((8,), "bool"),
    "robot": ((8,), "int32"),
    "language": ((8, 2, 3), "float32"),
    "language_mask": ((8, 2), "bool"),
    "actions": ((8, 3, 3), "float32"),
    "actions_mask": ((8, 3, 3), "bool"),
    "latents": ((8, 2, 2), "float32"),
    "latents_mask": ((8, 2), "bool"),
  }
  same(take(sets, 4, threads=2, **settings), whole)
  same(take(sets, 4, workers=2, prefetch=1, **settings), whole)
  parts = [take(sets, 4, process_index=p, process_count=2, **settings) for p in range(2)]
  same(
    [{key: np.concatenate([part[i][key] for part in parts]) for key in whole[0]} for i in range(4)],
    whole,
  )
  same(take(sets, 2, start_step=2, **settings), whole[2:])
  assert not np.array_equal(
    take(sets, 1, **(settings | {"seed": 6}))[0]["actions"], whole[0]["actions"]
  )


def test_a_history_is_augmented_alike_and_cameras_apart(tmp_path):
  class Still(makers.Synthetic):
    def __getitem__(self, i):
      image = np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)
      return dataclasses.replace(
        super().__getitem__(i),
        cameras={
          name: lambda geometry: ((t / 10, image) for t in range(8)) for name in self.cameras
        },
      )

  path = makers.shards(tmp_path / "s", source=Still((8,), cameras=("left", "right")))
  images = take([arm(path)], 1, cameras=2, history=3, augment=AUGMENT)[0]["images"]
  np.testing.assert_array_equal(images, np.broadcast_to(images[:, :1], images.shape))
  assert all(not np.array_equal(row[0, 0], row[0, 1]) for row in images)


def test_held_out_examples(many, two):
  sets = [arm(many, episodes=(0, 1)), PolicySet(many, robot="arm", episodes=(1, 2))]
  settings = {"split": "validation", "validation_fraction": 0.2}
  rows = walk(sets, **settings)
  assert len(rows["time"]) == 2 * 4 * 5
  capped = walk(sets, max_examples=7, **settings)
  np.testing.assert_array_equal(capped["dataset"], [0, 0, 0, 1, 1, 1, 1])
  assert len(set(zip(capped["episode"], capped["time"], strict=True))) == 7
  settings = {"normalization": normalizer()} | SIZES | settings | {"batch_size": 6, "threads": 0}
  parts = []
  for process in range(2):
    with flat.policy_windows(
      sets, **settings, process_index=process, process_count=2
    ).batches() as batches:
      parts.append(np.concatenate([batch["time"][batch["valid"]] for batch in batches]))
  assert sorted(np.concatenate(parts)) == sorted(rows["time"])
  with pytest.raises(
    errors.UserError, match="no data set has an example in the split 'validation'"
  ):
    walk([arm(two[0])], split="validation", validation_fraction=0.0)


def test_describe(many, two):
  sets = [arm(many, episodes=(0, 2), name="arms"), PolicySet(two[0], labels=two[1], views="each")]
  lines = flat.describe(sets, validation_fraction=0.0)
  assert (
    lines[0]
    == "arms: 20 examples (weight 1), 4 of 20 episodes, 2 tasks; actions of arm; cameras camera"
  )
  assert (
    "19 examples" in lines[1]
    and "motion labels" in lines[1]
    and lines[1].endswith("cameras right (each)")
  )


def test_mistakes_are_told(path, two, tmp_path):
  data, folder = two
  other = label(data, tmp_path / "other", model="bbbb")
  later = label(data, tmp_path / "later", offset=0.4)
  short = makers.shards(tmp_path / "short", (14, 2, 2, 2))
  most = label(short, tmp_path / "most")
  video = PolicySet(data, labels=folder)
  for sets, settings, message in (
    ([PolicySet(path, robot="amr")], {}, "unknown robot 'amr': did you mean 'arm'"),
    (
      [arm(path)],
      {"robots": {"arm": (3, 2), "leg": (1, 1)}, "normalization": normalizer(leg=(1, 1))},
      "no statistics of robot 'arm'",
    ),
    ([arm(path)], {"robots": {"arm": (4, 2)}}, "action has size 3, robot 'arm' has 4"),
    ([arm(path)], {"robots": {"arm": (3, 1)}}, "state has size 2, robot 'arm' has 1"),
    ([arm(path, cameras=("camara",))], {}, "camera 'camara' does not exist: did you mean 'camera'"),
    ([arm(data, cameras=("left", "right"))], {}, "2 cameras .left, right. for 1 camera slots"),
    ([video], {}, "none of the cameras left has labels"),
    ([PolicySet(data, labels=folder, views="each", cameras=("left",))], {}, "lack camera 'left'"),
    ([arm(path, views="eech")], {}, "did you mean 'each'"),
    ([PolicySet(path)], {}, "neither a robot nor labels"),
    ([arm(path, weight=0)], {}, "weight is 0"),
    ([arm(path, episodes=(3, 3))], {}, r"episodes are \(3, 3\)"),
    (
      [arm(path)],
      {"language": {"task 0": TASKS["task 0"]}},
      "the instruction 'task 1' has no embedding: did you mean 'task 0'",
    ),
    (
      [arm(path)],
      {"augment": transforms.build({"flip": {}})},
      "'flip' mirrors pictures but not actions",
    ),
    ([arm(path)], {"reduce": "maen"}, "did you mean 'mean'"),
    ([arm(path)], {"action_horizon": 0}, "action_horizon is 0"),
    ([arm(path)], {"batch_size": 9, "process_count": 2}, "batch_size 9 does not divide"),
    ([arm(data, labels=folder)], {"latent_size": 4}, "have 2 numbers a motion, the policy 4"),
    ([arm(data, labels=folder)], {"motion_horizon": 0}, "has labels, but motion_horizon is 0"),
    (
      [arm(data, labels=folder), arm(data, labels=other)],
      {},
      "other.*model bbbb.*labels.*model aaaa",
    ),
    (
      [arm(data, labels=folder), arm(data, labels=later)],
      {},
      "later are at 0.4 s and labels .* at 0.2 s.*--config.offset_seconds of configs/extract.py",
    ),
    (
      [PolicySet(short, labels=most, episodes=(1, 2))],
      {},
      "no episode is longer than the labels' offset",
    ),
    ([arm(path, labels=folder)], {}, "labels .* were extracted from .*, not from"),
    ([], {}, "no data set is given"),
  ):
    with pytest.raises(errors.UserError, match=message):
      take(sets, 1, **settings)
  with pytest.raises(errors.UserError, match="model bbbb"):
    flat.statistics([arm(data, labels=folder), arm(data, labels=other)])


def test_an_empty_instruction_needs_no_embedding(tmp_path):
  path = makers.shards(tmp_path / "s", (5,), task=lambda i: "")
  rows = walk([arm(path)])
  assert not rows["language"].any() and not rows["language_mask"].any()
  rows = walk([arm(path)], language=TASKS | {"": TASKS["task 0"]})
  assert rows["language_mask"].all()
