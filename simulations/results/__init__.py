"""What a run leaves behind: a folder with its scenario, numbers, tables and a report to look at."""
