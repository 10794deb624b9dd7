"""Tasks of LIBERO."""

class Task:
  """One task; a named tuple in the package."""

  language: str
  bddl_file: str
  init_states_file: str

task_maps: dict[str, dict[str, Task]]
