"""Who won, honestly: statistics over seeds and the gate before promotion."""
