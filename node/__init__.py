"""One peer: the trio drivers around the rules of wire, dht, swarm and storage."""
