"""The command `shoal`: one file per command; all of them talk to the client interface."""
