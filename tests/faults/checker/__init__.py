"""Looks at what a run left behind, and says which promise was broken.

It shares no code with the node but `exchange.crypto`, which has vectors of its own: a mistake that node and checker
both made would go unseen. It reads tables by plain SQL, statements by a generic MessagePack decoder, the catalogue by
a generic TOML decoder, and has a Merkle tree of its own.

* `history`: what is known after a run.
* `collect`: reads that from stores and from what a test saw.
* `tree`: the root of a log, as RFC 6962 defines it.
* `rules`: the promises.
"""
