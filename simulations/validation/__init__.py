"""Published results, and what the simulations say of the same settings."""
