"""Podium: hyperparameter sweeps and experiment tracking for Keras, with winners one can trust."""

__version__ = "0.1.0"
