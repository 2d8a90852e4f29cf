"""The body that runs a directory of boroughs: its keyholders, what is staged, signed and published, as files."""
