"""Why a webhook does not verify: what a receiver got is searched for what is known to go wrong. Pure.

* `findings`: all that can be found, each with what to do: a table.
* `headers`: the three headers as they came, and what they may have been.
* `bodies`: what a body may have been when it was signed, and what code may have made of it.
* `keys`: what code may have taken a secret for.
* `diagnosis`: the search. Nothing is called right that a public verifier refuses.

No finding repeats anything of a body, nor a secret.
"""
