"""From a dataset reference to checked arrays on disk."""
