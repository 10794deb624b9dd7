"""The section language of a config: what is refused."""

import pytest

from como_jax import errors, language
from tests.language.small import cache as cache  # a fixture


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(kind="minlm"), "language.kind is 'minlm'; did you mean 'minilm'"),
    (dict(kind="hash", poled=True), "language.poled; did you mean 'pooled'"),
    (dict(kind="hash", num_tokens=0), "language.num_tokens = 0: expected a whole number >= 1"),
    (dict(kind="hash", width="64"), "language.width = '64'"),
    (dict(kind="hash", dtype="float16"), "language.dtype is 'float16'"),
    (dict(kind="hash", weights="somewhere"), "'hash' has no weights"),
    (dict(kind="t5"), "'t5' needs language.weights: .*convert.text"),
    (dict(kind="t5", weights="/nowhere"), "/nowhere does not exist"),
    ({}, "missing key language.kind"),
  ],
)
def test_messages(fields, message):
  with pytest.raises(errors.UserError, match=message) as caught:
    language.build(fields)
  assert "\n" not in str(caught.value)
