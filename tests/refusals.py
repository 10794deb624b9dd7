"""What a refusal says."""

import pytest

from como_jax import errors


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)
