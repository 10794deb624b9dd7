"""Units of work that any number of processes share, each with a lease in the output folder."""
