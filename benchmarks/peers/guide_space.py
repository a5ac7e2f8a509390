"""Owns what all other tools search alike: the length of a training, and the guide's own configuration to begin with."""

EPOCHS = 27
GUIDE = {
    "depth": 3,
    "learning_rate": 1e-3,
    "dropout": 0.25,
    "strength": 1.0,
    "dense_units": 256,
    "batch_size": 64,
}
