"""The other end of a worker's pipe."""


class Pipe:
  """The other end of a pipe: what was sent, and what is received."""

  def __init__(self, *received):
    self.sent, self.received, self.closed, self.broken = [], list(received), 0, False

  def poll(self):
    return bool(self.received)

  def send(self, content):
    if self.broken:
      raise BrokenPipeError
    self.sent.append(content)

  def recv(self):
    if not self.received:
      raise EOFError
    content = self.received.pop(0)
    if isinstance(content, Exception):
      raise content
    return content

  def close(self):
    self.closed += 1
