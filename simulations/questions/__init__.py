"""Questions that people have, as scenarios with a few parameters and an answer in words."""
