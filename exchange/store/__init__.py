"""Where a node keeps what it must not lose: tables, migrations, the batching writer, and the queries.

Content of forms is here as ciphertext only; the keys to it are wrapped by the keystore's store key.
"""
