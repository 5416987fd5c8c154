"""What survives a crash: the home folder, the database, files and the pieces they hold.

Synchronous throughout: the node calls it through `Environment.run_blocking`.
"""
