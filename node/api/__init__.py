"""The control socket of a running node, and the client that talks to it."""
