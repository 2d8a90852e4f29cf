"""The daemon. It touches the world and decides little."""
