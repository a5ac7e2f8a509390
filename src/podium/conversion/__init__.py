"""A model in the formats of other runtimes, each made and measured in a process of its own."""
