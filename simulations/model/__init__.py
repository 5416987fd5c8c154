"""Arrays and compiled loops instead of objects: what the shipped rules do, at great size."""
