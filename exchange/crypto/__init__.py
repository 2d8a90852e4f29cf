"""The cryptography of the exchange: bytes in, bytes out.

To sign, append a statement to the log and check it with `proof.verify_statement`; there is no other signature.
To seal for a reader, use `section` and `parcel`; to seal for a node, `envelope`; to keep something on disk, `rest`.
`sealing`, `note` and `merkle` are the parts that these are made of: prefer the ones above.

* No I/O, no clock, no configuration; randomness comes from the operating system only.
* No primitive is written here: they come from `cryptography` and PyNaCl.
* One suite, version 1, and nothing to negotiate.
"""
