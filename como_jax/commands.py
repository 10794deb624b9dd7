"""What the command line can be asked for: one table. Imports nothing that takes time."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Command:
  """A word after `como-jax`.

  Attributes:
    kind: "task" runs a config (the config of that name says in its first line what it does), "own"
      is answered at once, "reserved" is the name of something that is not built yet.
    several: a task that several processes can run together.
    again: the flag with which a task that was interrupted goes on, or begins anew, in its workdir.
    says: what it does, for commands that are no tasks.
  """

  kind: str = "task"
  several: bool = False
  again: str = ""
  says: str = ""


COMMANDS = {
  "ingest": Command(),
  "mae": Command(several=True, again="--resume"),
  "motion": Command(several=True, again="--resume"),
  "policy": Command(several=True, again="--resume"),
  "extract": Command(several=True, again="--resume"),
  "probe": Command(again="--overwrite"),
  "quickstart": Command(),
  "collect": Command(),
  "serve": Command(),
  "rollout": Command(again="--resume"),
  "compile": Command(again="--overwrite"),
  "exam_set": Command(),
  "list": Command("own", says="the tasks, and the configs that ship with their variants"),
  "cache": Command("own", says="the caches of this machine: list, size, limit, clear"),
  "inspect": Command("reserved", says="a look at data"),
  "doctor": Command("reserved", says="a check of the machine"),
  "verify": Command("reserved", says="a check of a folder's integrity"),
}


def named(kind: str) -> tuple[str, ...]:
  """The commands of a kind, in the table's order."""
  return tuple(name for name, command in COMMANDS.items() if command.kind == kind)
