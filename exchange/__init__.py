"""Secure message exchange between borough nodes."""
