"""Whether a model file is what its run says, asked in a process that cannot import Podium."""
