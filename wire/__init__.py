"""Bytes and their meaning: ids, keys, content nodes, handshakes, framing, messages.

Everything here is a pure function or a state machine: bytes go in, facts or bytes come out.
No file of this folder does IO, reads a clock or draws a random number.
"""
