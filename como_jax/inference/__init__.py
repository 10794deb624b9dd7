"""Trained models at work: labels, evaluations, rollouts, cached tokens of a frozen encoder."""
