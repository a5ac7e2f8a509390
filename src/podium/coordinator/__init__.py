"""The loop of a sweep and what it is made of."""
