"""Reaching peers behind NATs: relays, hole punching, reachability, port mapping, the LAN."""
