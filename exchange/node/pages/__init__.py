"""Pages for people on the local API. They are not part of the API: their addresses and forms may change."""
