"""The command line. Its commands talk to a running node through the node's local socket."""
