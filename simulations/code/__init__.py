"""The shipped rules over a model network in virtual time, thousands of nodes in one process."""
