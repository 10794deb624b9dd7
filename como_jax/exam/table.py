"""Formats a result of the exam as text for people, and as JSON."""

import math
from collections.abc import Iterable
from typing import Any

from como_jax.exam.result import Result


def text(result: Result) -> str:
  """The whole result as lines of text; the verdict is last."""
  score, robot = result.score, result.score_robot
  lines = [
    f"z: {result.width} numbers; {len(result.errors):,} pairs of {score.groups:,} chains in "
    "unseen cameras and scenes",
    f"probe: {result.text}",
    "",
    *_rows(
      [
        ("S (0 = one picture, 1 = both)", str(score.s) if not score.withheld else "withheld"),
        ("e of z (0 = known, 1 = nothing)", str(score.z)),
        ("e of one picture", str(score.single)),
        ("e of both pictures", str(score.both)),
        *(
          (f"error of z: {name}", f"{v:.3f}")
          for name, v in zip(result.names, score.by_dimension, strict=False)
        ),
        *((f"e of control: {name}", f"{value:.3f}") for name, value in result.controls.items()),
      ]
    ),
    "",
    *_rows(_appearance(result)),
    "",
  ]
  if robot is not None:
    s_text = str(robot.s) if not robot.withheld else "withheld"
    lines += _rows(
      [("robot's frame, known cameras: S", s_text), ("robot's frame: e of z", str(robot.z))]
      + [
        (f"error of z: {name}", f"{v:.3f}")
        for name, v in zip(result.names_robot, robot.by_dimension, strict=False)
      ]
    ) + [""]
  lines += _rows([*_twins(result), *_relations(result)]) + ["", result.sentence]
  return "\n".join(lines)


def to_json(result: Result) -> dict[str, Any]:
  """The verdict, the sentence, the probe and `Result.row`; NaN and infinity become null."""
  return {
    "verdict": result.verdict,
    "sentence": result.sentence,
    "flagged": list(result.flagged),
    "probe": result.text,
    "withheld": result.score.withheld,
    "classes": {name: label.text for name, label in result.identities.items()},
    "negative_shares": list(result.shares.negative) if result.shares else [],
    "s_by_camera": _levels(result.cameras),
    "s_by_scene": _levels(result.scenes),
    "e_between_cameras": {
      "cameras": list(result.crossed.cameras),
      "e": [[_plain(v) for v in row] for row in result.crossed.e.tolist()],
    },
    "numbers": {name: _plain(value) for name, value in result.row().items()},
  }


def _appearance(result: Result) -> Iterable[tuple[str, str]]:
  for name, label in result.identities.items():
    flag = "  READABLE" if label.flagged else ""
    yield f"{name} read beyond chance", f"{label.excess}{flag}  ({label.text})"
  for name, r2 in result.numbers.items():
    yield f"{name} read, share of variance", str(r2.total)
  if result.future:
    flag = "  READABLE" if result.future.flagged else ""
    yield "first picture told, share of variance", str(result.future.first.total)
    yield "second picture told, share of variance", str(result.future.second.total)
    yield "second better known than the first by", f"{result.future.gap}{flag}"


def _twins(result: Result) -> Iterable[tuple[str, str]]:
  if result.shares:
    for name, share in result.shares.shares.items():
      note = "  (estimate below 0, counted as 0)" if name in result.shares.negative else ""
      yield f"share of z's variance: {name}", f"{share}{note}"
  for name, spread in (("cameras", result.cameras), ("scenes", result.scenes)):
    values = ", ".join(
      f"{level}: {_short(s.s.value)}"
      for level, s in zip(spread.levels, spread.scores, strict=False)
    )
    yield f"S over {name}", f"{values}; range {_short(spread.range)}"


def _relations(result: Result) -> Iterable[tuple[str, str]]:
  yield "e, camera's own probe", _short(result.crossed.own)
  yield "e, another camera's probe", _short(result.crossed.other)
  for level, estimate in result.dose.items():
    yield f"e at camera speed {level:g}", str(estimate)
  relations = {
    "additivity": "z(a,b) + z(b,c) - z(a,c)",
    "reversal": "z(a,b) + z(b,a)",
    "shifted": "z(a,b) - z(a,b) of both pictures shifted",
  }
  for name, what in relations.items():
    relation = getattr(result, name)
    if relation is not None:
      yield what + ", relative", f"{relation.error}  cosine {relation.cosine}"
  if result.static is not None:
    yield "z of equal pictures, relative", _short(result.static)


def _levels(spread: Any) -> dict[str, float | None]:
  return {
    str(level): _plain(score.s.value)
    for level, score in zip(spread.levels, spread.scores, strict=False)
  }


def _short(value: float) -> str:
  return "withheld" if math.isnan(value) else f"{value:.3f}"


def _plain(value: float) -> float | None:
  return float(value) if math.isfinite(value) else None


def _rows(rows: Iterable[tuple[str, str]]) -> list[str]:
  rows = list(rows)
  width = max((len(name) for name, _ in rows), default=0)
  return [f"{name:<{width}}  {value}" for name, value in rows]
