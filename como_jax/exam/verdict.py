"""The verdict of the exam: a word and a sentence with its numbers."""

from como_jax.exam import leakage
from como_jax.exam.motion_score import Score

MOTION, APPEARANCE, NOTHING, WITHHELD = (
  "motion without readable appearance",
  "appearance is readable",
  "no motion beyond one picture",
  "withheld",
)
FUTURE = "future picture"


def conclude(
  score: Score,
  identities: dict[str, leakage.Identity],
  future: leakage.PictureLeakage | None = None,
) -> tuple[str, str]:
  """(verdict, one sentence with the numbers that support it)."""
  if score.withheld:
    return WITHHELD, f"{WITHHELD}: {score.withheld}"
  s_text = f"S is {score.s}"
  classes = [f"{name} {label.excess}" for name, label in identities.items() if label.flagged]
  flagged = [f"{', '.join(classes)} of the way from chance to perfect reading"] if classes else []
  if future and future.flagged:
    flagged.append(
      f"{FUTURE}: z tells {future.second.total} of the second picture and knows it better than "
      f"the first by {future.gap} of their variance"
    )
  readable = "; ".join(flagged)
  if not score.s.low > 0:
    also = f"; appearance is readable: {readable}" if flagged else ""
    return NOTHING, f"{NOTHING}: {s_text}, an interval that does not lie above 0{also}"
  if flagged:
    return APPEARANCE, f"{APPEARANCE}: {readable}; {s_text}"
  if not identities:
    also = "so only this was asked"
    if future:
      also = (
        f"and z, which tells {future.second.total} of the second picture, is not shown to know "
        "it better than the first"
      )
    return MOTION, f"{MOTION}: {s_text}; the set has no classes of appearance to read, {also}"
  name, strongest = max(identities.items(), key=lambda item: item[1].excess.high)
  return MOTION, (
    f"{MOTION}: {s_text}; no class of appearance is shown to be read beyond {leakage.FLAG:g} of "
    f"the way from chance to perfect (largest upper end {strongest.excess.high:.3f}: {name})"
  )
