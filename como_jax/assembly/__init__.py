"""From a config to the objects that tasks share: data, and the policy that they decide."""
