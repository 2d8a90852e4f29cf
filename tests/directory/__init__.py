"""The body that runs a directory."""
