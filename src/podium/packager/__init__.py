"""Finished trials into artifacts and MLflow models, in a process of their own."""
