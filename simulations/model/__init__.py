"""Tier "model": networks as arrays, up to 10^9 nodes; loops compiled by numba.

Node numbers follow the order of the ids, so every range of the key space is a range of numbers.
Tables are stored, or recomputed from a hash whenever they are asked for: the same function makes
both, so both are the same. Whatever chance decides about a node or a pair comes from a hash of the
seed and their numbers, never from the order of events.
"""
