"""Small changes of a source file that some test should notice, one at a time.

    for mutant in candidates("como_jax/train/rng.py", text):
      if changes(mutant, text):
        mutant.apply(text)

Each place of a file where a change is possible gives one or two mutants: a comparison, an operator
or a logical word is exchanged, a condition negated, a constant moved by one, a keyword argument or
a statement left out, the first two arguments swapped, None returned. What computes nothing is left
alone: messages, docstrings, annotations, asserts (chex's and zip's `strict` among them), `del` of a
name, the order of arguments where it does not matter, keys of initializations of which
jax.eval_shape asks the shapes only.
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
# Calls that give the same for their first two arguments in either order; clip does as long as its
# ends are in order.
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
    function: qualified name of the function or class it stands in, "" at the top of the file.
    line: where it begins.
    kind: operator, for the statistics.
    before, after: the changed lines, without what surrounds them; they and the file name the
      mutant, wherever it moves to.
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
    return hashlib.sha1(
      "\0".join([self.file, self.function, self.before, self.after]).encode()
    ).hexdigest()[:10]

  def apply(self, text: str) -> str:
    raw = text.encode()
    return (raw[: self.begin] + self.new.encode() + raw[self.end :]).decode()


def candidates(file: str, text: str) -> list[Mutant]:
  """All mutants of a file, in the order of its lines.

  Those that are no program or the same one are among them: see `changes`.
  """
  places, raw = _Places(text), text.encode()
  found = []
  for node, function in _walk(ast.parse(text), ""):
    for kind, begin, end, new in _changes(node, places):
      before, after = _difference(
        text, (raw[:begin] + new.encode() + raw[end:]).decode(), node.lineno
      )
      found.append(Mutant(file, function, node.lineno, kind, begin, end, new, before, after))
  return found


def changes(mutant: Mutant, text: str) -> bool:
  """Whether a mutant is a program, and another one."""
  try:
    return ast.dump(ast.parse(mutant.apply(text))) != ast.dump(ast.parse(text))
  except SyntaxError:
    return False


def given(file: str, text: str, old: str, new: str) -> Mutant | None:
  """A mutant written down as text; None where the file does not hold the old text exactly once."""
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
  """The lines that differ, stripped; the first of them is not before `line`."""
  old, new = (text.split("\n")[line - 1 :] for text in (before, after))
  while old and new and old[0] == new[0]:
    old, new = old[1:], new[1:]
  while old and new and old[-1] == new[-1]:
    old, new = old[:-1], new[:-1]
  return tuple("\n".join(one.strip() for one in lines) for lines in (old, new))


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
    """Where an operator stands between two nodes."""
    begin, end = self.end(left), self.begin(right)
    place = self.raw[begin:end].find(words.encode())
    return None if place < 0 else (begin + place, begin + place + len(words))


def _walk(node: ast.AST, function: str) -> Iterator[tuple[ast.AST, str]]:
  """(node, function it stands in) of all that may be changed."""
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
  """The last word of what a call calls, "" where the node is no call."""
  if not isinstance(node, ast.Call):
    return ""
  return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _asserts(node: ast.AST) -> bool:
  """Whether a statement can only raise or forget."""
  if isinstance(node, ast.Delete):
    return all(isinstance(target, ast.Name) for target in node.targets)
  return (
    isinstance(node, ast.Expr)
    and isinstance(node.value, ast.Call)
    and ast.unparse(node.value.func).startswith("chex.assert_")
  )


def _strict(node: ast.AST, child: ast.AST) -> bool:
  """Whether `child` is the argument of zip, `node`, that asserts equal lengths."""
  return isinstance(child, ast.keyword) and child.arg == "strict" and _called(node) == "zip"


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
  for field, value in ast.iter_fields(node):
    for child in value if isinstance(value, list) else [value]:
      if isinstance(child, ast.AST):
        yield field, child


def _changes(node: ast.AST, places: _Places) -> Iterator[tuple[str, int, int, str]]:
  """(kind, begin, end, new text) of the changes possible at a node."""
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
  """A keyword argument left out, or the first two arguments swapped."""
  arguments = sorted([*node.args, *(one.value for one in node.keywords)], key=places.begin)
  for keyword in node.keywords:
    if keyword.arg is None or _strict(node, keyword):
      continue
    place = next(i for i, value in enumerate(arguments) if value is keyword.value)
    begin, end = places.begin(keyword), places.end(keyword)
    if place + 1 < len(arguments):  # with the comma that follows
      after = arguments[place + 1]
      end = min(
        places.begin(one) for one in (after, *(k for k in node.keywords if k.value is after))
      )
    elif place:
      begin = places.end(arguments[place - 1])
    yield "keyword", begin, end, ""
  if (
    len(node.args) > 1
    and _called(node) not in SYMMETRIC
    and not any(isinstance(one, ast.Starred) for one in node.args[:2])
  ):
    first, second = (places.text(one) for one in node.args[:2])
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
