"""Moving pieces: one swarm stream per peer and content, fetching and serving."""
