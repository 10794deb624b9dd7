"""A batch without padding, and the mean of a term."""

BATCH = {}


def mean(term):
  return float(term[0] / term[1])
