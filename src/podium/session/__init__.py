"""The assembly of a loop, and what is read of recorded ones: between jobs and rooms."""
