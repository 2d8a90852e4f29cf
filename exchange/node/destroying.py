"""Destroy sections for good, here: their secrets and ciphertexts, and where it is said what agencies said of them.

* A message's secrets are sealed together under its key. They are written anew without the ones that go, under a new
  key; the row with the old one is overwritten. What was said of other sections is sealed anew under the new key.
* Where no section and no word is left, there is no key any more.
* What the store's files keep of older pages goes with `Store.scrub`, which follows the transaction.
"""

from collections.abc import Collection

from exchange.crypto.errors import RestError
from exchange.crypto.names import SectionName, context
from exchange.crypto.rest import open_at_rest, seal_at_rest, unwrap_message_key
from exchange.node.compose import keep_secrets, message_name, recall_secrets
from exchange.node.services import Services
from exchange.store.acknowledgements import acknowledgements_of
from exchange.store.erasing import drop_sections, replace_keys, replace_words
from exchange.store.errors import NotFound
from exchange.store.messages import MessageRow, keys_of, sections_of
from exchange.store.transaction import Transaction


async def destroy_sections(
    services: Services, tx: Transaction, message: MessageRow, names: Collection[str], *, words: bool
) -> None:
    """Destroy sections of a message, with `words` also what agencies said of them; what is gone already stays so."""
    number, store_key = message.number, services.keyring.store_key
    await drop_sections(tx, number, names)
    try:
        keys = await keys_of(tx, number)
    except NotFound:
        return
    name = message_name(message.origin, message.message_id)
    try:
        old = unwrap_message_key(store_key, keys.wrapped, name)
        secrets = recall_secrets(store_key, message.origin, message.message_id, keys)
        left = {SectionName(section): secret for section, secret in secrets.items() if section not in names}
        fresh = keep_secrets(store_key, message.origin, message.message_id, left)
        new = unwrap_message_key(store_key, fresh.wrapped, name)
        said: list[tuple[int, bytes | None]] = []
        for row in await acknowledgements_of(tx, number):
            if row.sealed is None:
                continue
            if words and row.section in names:
                said.append((row.number, None))
                continue
            place = context("words", name, row.leaf_hash)
            said.append((row.number, seal_at_rest(new, place, open_at_rest(old, place, row.sealed))))
    except RestError:
        # Nobody can open it; an order must not fail for that.
        await replace_keys(tx, number, None)
        return
    await replace_words(tx, said)
    is_empty = not left and not any(data for _, data in said) and not await sections_of(tx, number)
    await replace_keys(tx, number, None if is_empty else fresh)
