"""From a config to what tasks share: its checks, data, a policy's sizes, the programs of a plan."""
