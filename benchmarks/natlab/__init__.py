"""Real nodes behind real NATs on one machine: who gets from whom, and over which path."""
