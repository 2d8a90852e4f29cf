"""What an agency needs to take sections from its borough's node: use `receive_event` and `open_section_event`.

* `webhook`: who posted this, and when. Check it before anything else is looked at.
* `event`: what was posted, as a typed value.
* `opening`: open a sealed section: its sender proven, its commitment checked.
* `acknowledging`: say who holds a section, ask about it, or redirect it; signed with the agency's own keys.
* `asked`: read what another borough's agency asks.
* `senders`: which boroughs this agency knows by their cards, whatever the node says.
* `keys`: the agency's own keys, in a file under a passphrase.

It depends on `exchange.crypto` and `exchange.schema` alone: no node, no store. docs/agencies.md shows it at work.
"""
