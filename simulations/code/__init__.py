"""Tier "code" at message level: the shipped rules over a model network, one heap of events."""
