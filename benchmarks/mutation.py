"""Mutants: small changes of a source file that a test should notice, one at a time.

    for mutant in candidates("como_jax/train/rng.py", text):
      if changes(mutant, text):
        mutant.apply(text)

Each possible change gives one or two mutants: a comparison, an operator or a logical word is
exchanged, a condition is negated, a constant is changed by one, a keyword argument or a statement
is removed, the first two arguments are swapped, or None is returned. Code that computes nothing is
not changed: messages, docstrings, annotations, asserts (also chex's, and zip's `strict`), `del` of
a name, the order of arguments where it does not matter, and random keys inside jax.eval_shape,
which needs only shapes.
"""

import ast
import dataclasses
import hashlib
from collections.abc import Iterator

COMPARE = {
  ast.Lt: "<=",
  ast.LtE: "<",
  ast.Gt: ">=",
  ast.GtE: ">",
  ast.Eq: "!=",
  ast.NotEq: "==",
  ast.Is: "is not",
  ast.IsNot: "is",
  ast.In: "not in",
  ast.NotIn: "in",
}
ARITHMETIC = {
  ast.Add: "-",
  ast.Sub: "+",
  ast.Mult: "/",
  ast.Div: "*",
  ast.FloorDiv: "/",
  ast.Mod: "*",
  ast.Pow: "*",
  ast.BitAnd: "|",
  ast.BitOr: "&",
  ast.MatMult: "*",
}
# Calls whose first two arguments can be swapped; this holds for clip while its limits are in order.
SYMMETRIC = (
  "min",
  "max",
  "minimum",
  "maximum",
  "fmin",
  "fmax",
  "clip",
  "gcd",
  "hypot",
  "array_equal",
  "logical_and",
  "logical_or",
)


@dataclasses.dataclass(frozen=True)
class Mutant:
  """A change of one file: bytes begin..end become `new`.

  Attributes:
    file: path below the project.
    function: qualified name of the function or class that contains it, "" at the top level.
    line: line number.
    kind: of the change, for the statistics.
    begin: first changed byte.
    end: byte after the last changed one.
    new: replacement.
    before: the changed lines before the change, stripped.
    after: the same lines after it. These lines and the file identify the mutant when it moves.
  """

  file: str
  function: str
  line: int
  kind: str
  begin: int
  end: int
  new: str
  before: str
  after: str

  @property
  def id(self) -> str:
    """Identifier that does not depend on line numbers."""
    return hashlib.sha1(
      "\0".join([self.file, self.function, self.before, self.after]).encode()
    ).hexdigest()[:10]

  def apply(self, text: str) -> str:
    """Returns the changed text of the file."""
    raw = text.encode()
    return (raw[: self.begin] + self.new.encode() + raw[self.end :]).decode()


def candidates(file: str, text: str) -> list[Mutant]:
  """Lists all mutants of a file, in the order of its lines.

  They include mutants that are no valid program or an equal one: see `changes`.
  """
  places, raw = _Places(text), text.encode()
  mutants = []
  for node, function in _walk(ast.parse(text), ""):
    for kind, begin, end, new in _changes(node, places):
      before, after = _difference(
        text, (raw[:begin] + new.encode() + raw[end:]).decode(), node.lineno
      )
      mutants.append(Mutant(file, function, node.lineno, kind, begin, end, new, before, after))
  return mutants


def changes(mutant: Mutant, text: str) -> bool:
  """Whether a mutant is a valid program that differs from the original."""
  try:
    return ast.dump(ast.parse(mutant.apply(text))) != ast.dump(ast.parse(text))
  except SyntaxError:
    return False


def given(file: str, text: str, old: str, new: str) -> Mutant | None:
  """Builds a mutant from texts; None unless the file contains the old text exactly once."""
  if text.count(old) != 1:
    return None
  begin = len(text[: text.index(old)].encode())
  line = text[: text.index(old)].count("\n") + 1
  function = ""
  for node, inside in _walk(ast.parse(text), ""):
    if node.lineno <= line <= node.end_lineno:
      function = inside
  return Mutant(
    file,
    function,
    line,
    "given",
    begin,
    begin + len(old.encode()),
    new,
    *_difference(text, text.replace(old, new), 1),
  )


def _difference(before: str, after: str, line: int) -> tuple[str, str]:
  """Returns the lines that differ, stripped; the first of them is not before `line`."""
  old, new = (text.split("\n")[line - 1 :] for text in (before, after))
  while old and new and old[0] == new[0]:
    old, new = old[1:], new[1:]
  while old and new and old[-1] == new[-1]:
    old, new = old[:-1], new[:-1]
  return tuple("\n".join(part.strip() for part in lines) for lines in (old, new))


class _Places:
  """Byte offsets of a file's nodes."""

  def __init__(self, text: str):
    self.raw = text.encode()
    self._starts = [0]
    for line in self.raw.split(b"\n"):
      self._starts.append(self._starts[-1] + len(line) + 1)

  def begin(self, node: ast.AST) -> int:
    return self._starts[node.lineno - 1] + node.col_offset

  def end(self, node: ast.AST) -> int:
    return self._starts[node.end_lineno - 1] + node.end_col_offset

  def text(self, node: ast.AST) -> str:
    return self.raw[self.begin(node) : self.end(node)].decode()

  def between(self, left: ast.AST, right: ast.AST, words: str) -> tuple[int, int] | None:
    """Byte range of an operator between two nodes; None without it."""
    begin, end = self.end(left), self.begin(right)
    offset = self.raw[begin:end].find(words.encode())
    return None if offset < 0 else (begin + offset, begin + offset + len(words))


def _walk(node: ast.AST, function: str) -> Iterator[tuple[ast.AST, str]]:
  """Yields (node, enclosing function) of all nodes that may be changed."""
  for field, child in _children(node):
    if isinstance(child, ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom) or (
      isinstance(node, ast.Raise) and field == "exc"
    ):
      continue
    if (
      _asserts(child)
      or _strict(node, child)
      or (_called(node) == "eval_shape" and _called(child) == "key")
    ):
      continue
    if field in ("annotation", "returns", "decorator_list", "bases", "type_params"):
      continue
    if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
      yield from _walk(child, f"{function}.{child.name}".lstrip("."))
    else:
      if isinstance(child, ast.expr | ast.stmt):
        yield child, function
      yield from _walk(child, function)


def _called(node: ast.AST) -> str:
  """Name of the called function, without its module; "" where the node is no call."""
  if not isinstance(node, ast.Call):
    return ""
  return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _asserts(node: ast.AST) -> bool:
  """Whether a statement only asserts or deletes names."""
  if isinstance(node, ast.Delete):
    return all(isinstance(target, ast.Name) for target in node.targets)
  return (
    isinstance(node, ast.Expr)
    and isinstance(node.value, ast.Call)
    and ast.unparse(node.value.func).startswith("chex.assert_")
  )


def _strict(node: ast.AST, child: ast.AST) -> bool:
  """Whether `child` is the argument `strict` of a call `node` of zip."""
  return isinstance(child, ast.keyword) and child.arg == "strict" and _called(node) == "zip"


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
  for field, value in ast.iter_fields(node):
    for child in value if isinstance(value, list) else [value]:
      if isinstance(child, ast.AST):
        yield field, child


def _changes(node: ast.AST, places: _Places) -> Iterator[tuple[str, int, int, str]]:
  """Yields (kind, begin, end, new text) of the possible changes of a node."""
  whole = (places.begin(node), places.end(node))
  match node:
    case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARE:
      if where := places.between(left, right, _symbol(op)):
        yield "comparison", *where, COMPARE[type(op)]
    case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
      if where := places.between(left, right, _symbol(op)):
        yield "arithmetic", *where, ARITHMETIC[type(op)]
    case ast.AugAssign(target=target, op=op, value=value) if type(op) in ARITHMETIC:
      if where := places.between(target, value, _symbol(op) + "="):
        yield "arithmetic", *where, ARITHMETIC[type(op)] + "="
      yield "statement", *whole, "pass"
    case ast.BoolOp(op=op, values=values):
      word, other = ("and", "or") if isinstance(op, ast.And) else ("or", "and")
      for left, right in zip(values, values[1:], strict=False):
        if where := places.between(left, right, word):
          yield "boolean", *where, other
    case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand) if not isinstance(
      operand, ast.Constant
    ):
      yield "unary", *whole, places.text(operand)
    case ast.Constant(value=bool() as value):
      yield "constant", *whole, str(not value)
    case ast.Constant(value=int() | float() as value):
      yield "constant", *whole, repr(value + 1)
      yield "constant", *whole, f"({value - 1!r})" if value < 1 else repr(value - 1)
    case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
      yield "condition", places.begin(test), places.end(test), f"(not ({places.text(test)}))"
    case ast.Call():
      yield from _calls(node, places)
    case (
      ast.Expr(value=ast.Call() | ast.Yield() | ast.Await())
      | ast.Raise()
      | ast.Continue()
      | ast.Break()
      | ast.Delete()
    ):
      yield "statement", *whole, "pass"
    case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
      yield "statement", *whole, "pass"
    case ast.Return(value=ast.expr() as value) if not (
      isinstance(value, ast.Constant) and value.value is None
    ):
      yield "return", places.begin(value), places.end(value), "None"


def _calls(node: ast.Call, places: _Places) -> Iterator[tuple[str, int, int, str]]:
  """Yields changes of a call: a keyword argument is removed, or two arguments are swapped."""
  arguments = sorted([*node.args, *(item.value for item in node.keywords)], key=places.begin)
  for keyword in node.keywords:
    if keyword.arg is None or _strict(node, keyword):
      continue
    position = next(i for i, value in enumerate(arguments) if value is keyword.value)
    begin, end = places.begin(keyword), places.end(keyword)
    if position + 1 < len(arguments):  # with the comma that follows
      after = arguments[position + 1]
      end = min(
        places.begin(item) for item in (after, *(k for k in node.keywords if k.value is after))
      )
    elif position:
      begin = places.end(arguments[position - 1])
    yield "keyword", begin, end, ""
  if (
    len(node.args) > 1
    and _called(node) not in SYMMETRIC
    and not any(isinstance(item, ast.Starred) for item in node.args[:2])
  ):
    first, second = (places.text(item) for item in node.args[:2])
    begin, middle, after, end = (
      places.begin(node.args[0]),
      places.end(node.args[0]),
      places.begin(node.args[1]),
      places.end(node.args[1]),
    )
    yield "arguments", begin, end, second + places.raw[middle:after].decode() + first


def _symbol(op: ast.AST) -> str:
  names = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.MatMult: "@",
  }
  return names[type(op)]
