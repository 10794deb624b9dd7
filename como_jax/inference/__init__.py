"""Trained models at work: labels of a data set, evaluations, cached tokens of a frozen encoder."""
