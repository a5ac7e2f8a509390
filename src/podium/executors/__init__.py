"""What places attempts on processes and machines."""
