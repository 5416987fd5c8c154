"""The shipped rules and node in made-up worlds: virtual time, simulated network and disk."""
