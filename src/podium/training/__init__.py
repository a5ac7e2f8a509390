"""What a worker runs: plain Keras, no tracker, no tuner."""
