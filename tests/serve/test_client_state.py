"""What the server keeps of one connection."""

from como_jax.serve import client_state


def test_an_error_is_one_line_of_at_most_300_characters():
  one = client_state.ClientState("x", 0)
  assert (one.answered, one.num_bad_messages, one.error, one.previous_ms) == (0, 0, "", None)
  assert one.fail("a \n b") == "error: a b" and one.error == "a b"
  assert one.fail("x" * 300) == "error: " + "x" * 300
  assert one.fail("x" * 301) == "error: " + "x" * 297 + "..." and one.error == "x" * 297 + "..."
