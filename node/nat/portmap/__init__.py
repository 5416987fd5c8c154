"""Port mapping: asking the home router to forward our ports by PCP, NAT-PMP or UPnP."""
