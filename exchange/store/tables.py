"""The tables, in SQLAlchemy Core, the same for SQLite and PostgreSQL.

Hot statements run on the driver itself, so columns hold only integers, texts and bytes:
times are milliseconds since 1970 UTC (`_ms`), booleans are 0 or 1, and wire structs are their own bytes.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

#: In SQLite only a key that is INTEGER is the number of the row itself; any other is an index beside it.
_Serial = BigInteger().with_variant(Integer, "sqlite")

log_head = Table(
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
)

log_nodes = Table(
    "log_nodes",
    metadata,
    Column("level", Integer, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("size", _Serial, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

statements = Table(
    "statements",
    metadata,
    Column("position", _Serial, primary_key=True, autoincrement=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("type", Text, nullable=False),
    Column("statement", LargeBinary, nullable=False),
)

sealing_keys = Table(
    "sealing_keys",
    metadata,
    Column("key_id", LargeBinary, primary_key=True),
    Column("epoch", BigInteger, nullable=False, unique=True),
    Column("wrapped_seed", LargeBinary, nullable=False),
    Column("not_before_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
    Column("opens_until_ms", BigInteger, nullable=False),
)

cards = Table(
    "cards",
    metadata,
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
)

peers = Table(
    "peers",
    metadata,
    Column("origin", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("card", LargeBinary, nullable=False),
    Column("proof", Text, nullable=False),
    Column("ca_file", Text),
    Column("added_at_ms", BigInteger, nullable=False),
    Column("verified_at_ms", BigInteger),
    Column("verified_how", Text),
    Column("candidate", Text),
    Column("candidate_card", LargeBinary),
    Column("candidate_proof", Text),
    Column("first_by", Text),
    Column("networks", Text, nullable=False, server_default="[]"),
    Column("area", Text, nullable=False, server_default=text("''")),
    Index("peers_by_area", "area"),
)

#: Who compared which identity with whom, and how: kept when the peer is removed.
verifications = Table(
    "verifications",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("origin", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("how", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index("verifications_by_origin", "origin", "number"),
)

#: How an identity passed itself on to the next: rotation statements, the node's own and its peers'.
rotations = Table(
    "rotations",
    metadata,
    Column("old_fingerprint", Text, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("new_fingerprint", Text, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("proof", Text),
    Column("position", BigInteger),
    Column("at_ms", BigInteger, nullable=False),
    Index("rotations_by_origin", "origin"),
)

#: Identities that revoked themselves: kept when the peer is removed.
revocations = Table(
    "revocations",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("proof", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index("revocations_by_origin", "origin"),
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("wrapped_secret", LargeBinary, nullable=False),
    Column("by", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
)

peer_heads = Table(
    "peer_heads",
    metadata,
    Column("origin", Text, ForeignKey("peers.origin", ondelete="CASCADE"), primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary, nullable=False),
    Column("checkpoint", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

#: One row, while the store is of a backup and its node has not rejoined its peers.
restored = Table(
    "restored",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("log_size", BigInteger, nullable=False),
)

#: The leaf hashes of a peer's log that it gave, 32 bytes each, joined, from the statement `first` on.
peer_leaves = Table(
    "peer_leaves",
    metadata,
    Column("origin", Text, ForeignKey("peers.origin", ondelete="CASCADE"), primary_key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

#: The latest `sightings` statement of each peer: of the statements that a peer sends, the one that nothing else keeps.
peer_sightings = Table(
    "peer_sightings",
    metadata,
    Column("origin", Text, ForeignKey("peers.origin", ondelete="CASCADE"), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("proof", Text, nullable=False),
)

agencies = Table(
    "agencies",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("url", Text, nullable=False),
    Column("wrapped_secret", LargeBinary, nullable=False),
    Column("networks", Text, nullable=False),
    Column("ca_file", Text),
    Column("added_at_ms", BigInteger, nullable=False),
)

#: How an agency's endpoint stands, and how it is reached; the secret that is going, while one is.
endpoints = Table(
    "endpoints",
    metadata,
    Column("agency", Text, ForeignKey("agencies.id", ondelete="CASCADE"), primary_key=True),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("since_ms", BigInteger, nullable=False),
    Column("stage", Text, nullable=False),
    Column("old_wrapped_secret", LargeBinary),
    Column("overlap_until_ms", BigInteger),
    Column("proven_at_ms", BigInteger),
    Column("timeout_ms", BigInteger),
    Column("retry_s", Text),
    Column("certificate", Text),
    Column("proxy", Text),
    Column("rate_per_minute", BigInteger),
    Column("way", Text, nullable=False, server_default=text("'webhook'")),
    Column("folder", Text),
    Column("links", Integer, nullable=False, server_default=text("0")),
)

#: One row: the seed of the node's key for webhooks, wrapped by the store key.
webhook_keys = Table(
    "webhook_keys",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("wrapped_seed", LargeBinary, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

#: Keys of agencies' own: one that is yet to be proven, the one in force, and those that came before, for what was
#: sealed to them. `holds` is 1 where nothing goes to the agency before it has proven this key.
agency_keys = Table(
    "agency_keys",
    metadata,
    Column("agency", Text, primary_key=True),
    Column("key_id", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("signing_keys", Text, nullable=False),
    Column("holds", Integer, nullable=False),
    Column("challenge", LargeBinary),
    Column("wrapped_nonce", LargeBinary),
    Column("added_at_ms", BigInteger, nullable=False),
    Column("proven_at_ms", BigInteger),
    Column("ended_at_ms", BigInteger),
)

messages = Table(
    "messages",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("origin", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("proof", Text),
    Column("position", BigInteger),
    Column("received_position", BigInteger),
    Column("urgent", Integer, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("stored_at_ms", BigInteger, nullable=False),
    UniqueConstraint("message_id", "origin"),
    Index("messages_by_direction", "direction", "number"),
)

message_keys = Table(
    "message_keys",
    metadata,
    Column("message", _Serial, ForeignKey("messages.number", ondelete="CASCADE"), primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("secrets", LargeBinary, nullable=False),
)

#: All sealed sections of a message in one row: they come, are read and go together.
contents = Table(
    "contents",
    metadata,
    Column("message", _Serial, ForeignKey("messages.number", ondelete="CASCADE"), primary_key=True),
    Column("sections", LargeBinary, nullable=False),
)

#: Attachments, in both directions. While one is staged, what it is and the secret of its section stand here, sealed
#: under a key of its own; once its message is signed, both are in the message alone.
attachments = Table(
    "attachments",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("origin", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("section", Text, nullable=False),
    Column("place", Integer, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("message", _Serial, ForeignKey("messages.number", ondelete="CASCADE")),
    Column("state", Text, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("done", Integer, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("position", BigInteger),
    Column("statement", LargeBinary),
    Column("proof", Text),
    Column("wrapped", LargeBinary),
    Column("about", LargeBinary),
    Column("scanned", Integer, nullable=False),
    Column("released_by", Text),
    Column("at_ms", BigInteger, nullable=False),
    UniqueConstraint("message_id", "origin", "section", "place"),
    Index("attachments_by_message", "message"),
    Index("attachments_by_state", "state", "at_ms"),
)

#: Their sealed chunks: ciphertext alone.
attachment_chunks = Table(
    "attachment_chunks",
    metadata,
    Column("attachment", _Serial, ForeignKey("attachments.number", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

#: How far each section has come for each kind of agency that reads it; `given_to` names the local agency that has it.
placements = Table(
    "placements",
    metadata,
    Column("message", BigInteger, ForeignKey("messages.number", ondelete="CASCADE"), primary_key=True),
    Column("section", Text, primary_key=True),
    Column("agency", Text, primary_key=True),
    Column("rung", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("given_to", Text),
    sqlite_with_rowid=False,
)

receipts = Table(
    "receipts",
    metadata,
    Column("message", BigInteger, ForeignKey("messages.number", ondelete="CASCADE"), primary_key=True),
    Column("leaf_hash", LargeBinary, primary_key=True),
    Column("rung", Text, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("proof", Text),
    Column("position", BigInteger),
    Column("at_ms", BigInteger, nullable=False),
)

#: What agencies have said of sections, here or at the other borough: one row for a section at an agency and a receipt.
#: `name` is the agency here that said it, `target` to whom it was redirected, `word_hash` the leaf hash of what
#: the agency signed itself. The words are in `sealed`, under the message's key.
acknowledgements = Table(
    "acknowledgements",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("message", BigInteger, ForeignKey("messages.number", ondelete="CASCADE"), nullable=False),
    Column("section", Text, nullable=False),
    Column("agency", Text, nullable=False),
    Column("rung", Text, nullable=False),
    Column("name", Text),
    Column("by", Text, nullable=False),
    Column("target", Text),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("word_hash", LargeBinary),
    Column("position", BigInteger),
    Column("at_ms", BigInteger, nullable=False),
    Column("sealed", LargeBinary),
    Index("acknowledgements_by_message", "message", "number"),
    Index(
        "acknowledgements_queried",
        "number",
        sqlite_where=text("rung = 'queried'"),
        postgresql_where=text("rung = 'queried'"),
    ),
)

#: Who signs for an agency to whose own key a message was sealed, by the card that was used: a fingerprint.
signers = Table(
    "signers",
    metadata,
    Column("message", BigInteger, ForeignKey("messages.number", ondelete="CASCADE"), primary_key=True),
    Column("agency", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
)

#: Orders of a sender about a message: this node's, at `position` of its log, or a peer's, with its proof. `sections`
#: are names, joined by commas; `outcome` is why it came to nothing, where it did. `scrubbed` is 0 while what was
#: destroyed here may still be in older pages.
orders = Table(
    "orders",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("message", BigInteger, ForeignKey("messages.number", ondelete="CASCADE"), nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("sections", Text, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("proof", Text),
    Column("position", BigInteger),
    Column("ordered_by", Text),
    Column("outcome", Text),
    Column("scrubbed", Integer, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("stored_at_ms", BigInteger, nullable=False),
    UniqueConstraint("message", "leaf_hash"),
    Index("orders_to_scrub", "number", sqlite_where=text("scrubbed = 0"), postgresql_where=text("scrubbed = 0")),
)

#: What each order is of: a section at a kind of agency; here, at each agency that may have had it (`name`). `had` is
#: how it stood before.
order_places = Table(
    "order_places",
    metadata,
    Column("order_number", BigInteger, ForeignKey("orders.number", ondelete="CASCADE"), primary_key=True),
    Column("section", Text, primary_key=True),
    Column("agency", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("had", Text),
    Column("destroyed_at_ms", BigInteger),
    Column("told_at_ms", BigInteger),
    Column("confirmed_at_ms", BigInteger),
    Column("confirmed_by", Text),
    Index(
        "order_places_unconfirmed",
        "order_number",
        sqlite_where=text("confirmed_at_ms IS NULL"),
        postgresql_where=text("confirmed_at_ms IS NULL"),
    ),
)

outbox = Table(
    "outbox",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("lane", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("position", BigInteger),
    Column("message", BigInteger, ForeignKey("messages.number", ondelete="CASCADE")),
    Column("agency", Text),
    Column("attempts", Integer, nullable=False),
    Column("lease_until_ms", BigInteger, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("reason", Text),
    Column("claimed_by", Text),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Index("outbox_due", "lane", "state", "rank", "number"),
    Index(
        "outbox_leased", "lane", sqlite_where=text("lease_until_ms > 0"), postgresql_where=text("lease_until_ms > 0")
    ),
    Index("outbox_held", "number", sqlite_where=text("state = 'held'"), postgresql_where=text("state = 'held'")),
    Index("outbox_by_message", "message"),
)

#: The case that each message opens: when to look at its deadlines next, what is overdue, and what people recorded.
#: What was late when it was looked at last has been told.
handovers = Table(
    "handovers",
    metadata,
    Column(
        "message", _Serial, ForeignKey("messages.number", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("look_at_ms", BigInteger),
    Column("looked_at_ms", BigInteger),
    Column("overdue_since_ms", BigInteger),
    Column("met_at_ms", BigInteger),
    Column("met_by", Text),
    Column("complete_at_ms", BigInteger),
    Column("complete_by", Text),
    Index("handovers_to_look_at", "look_at_ms"),
    Index(
        "handovers_overdue",
        "overdue_since_ms",
        sqlite_where=text("overdue_since_ms IS NOT NULL"),
        postgresql_where=text("overdue_since_ms IS NOT NULL"),
    ),
)

#: The requests of each delivery to an agency, and what was answered: never the body, which may repeat a section.
attempts = Table(
    "attempts",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("message", BigInteger, ForeignKey("messages.number", ondelete="CASCADE"), nullable=False),
    Column("delivery", BigInteger, nullable=False),
    Column("agency", Text, nullable=False),
    Column("section", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("replay", Integer, nullable=False),
    Column("accepted", Integer, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("content_type", Text),
    Column("size_bytes", BigInteger),
    Column("digest", Text),
    Column("code", Text),
    Index("attempts_by_message", "message", "agency", "number"),
    Index("attempts_by_time", "at_ms"),
)

#: Forms for a peer whose card has no current key: they are sealed, signed and become messages when it has one.
waiting_forms = Table(
    "waiting_forms",
    metadata,
    Column(
        "delivery",
        BigInteger,
        ForeignKey("outbox.number", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("message_id", Text, nullable=False, unique=True),
    Column("peer", Text, nullable=False),
    Column("urgent", Integer, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("sections", LargeBinary, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

#: Sharing agreements, those that have ended too. `kinds` and `bases` are JSON; of its document the hash is kept.
agreements = Table(
    "agreements",
    metadata,
    Column("id", Text, primary_key=True),
    Column("area", Text, nullable=False),
    Column("kinds", Text, nullable=False),
    Column("bases", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("starts_on", Text, nullable=False),
    Column("ends_on", Text, nullable=False),
    Column("review_on", Text),
    Column("sha256", Text),
    Column("added_by", Text, nullable=False),
    Column("added_at_ms", BigInteger, nullable=False),
    Column("ended_by", Text),
    Column("ended_at_ms", BigInteger),
    Column("ended_reason", Text),
)

#: What the gate said of each form that was sent or waits: on what grounds, who approved, who overrode. A reason that a
#: person gave is sealed: under the message's key, or while there is no message, under one of its own in `wrapped`.
disclosures = Table(
    "disclosures",
    metadata,
    Column("message_id", Text, primary_key=True),
    Column("area", Text, nullable=False),
    Column("sent_by", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("due_ms", BigInteger),
    Column("decided_by", Text),
    Column("decided_at_ms", BigInteger),
    Column("lifted", Text),
    Column("grounds", LargeBinary, nullable=False),
    Column("wrapped", LargeBinary),
    Column("sealed", LargeBinary),
    Index(
        "disclosures_awaiting",
        "message_id",
        sqlite_where=text("state = 'awaiting'"),
        postgresql_where=text("state = 'awaiting'"),
    ),
    Index(
        "disclosures_lifted",
        "message_id",
        sqlite_where=text("lifted IS NOT NULL"),
        postgresql_where=text("lifted IS NOT NULL"),
    ),
)

lanes = Table(
    "lanes",
    metadata,
    Column("lane", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("next_attempt_ms", BigInteger, nullable=False),
    Column("last_error", Text),
    Column("urgent_only", Integer, nullable=False, server_default=text("0")),
    Column("since_ms", BigInteger, nullable=False, server_default=text("0")),
)

timeline = Table(
    "timeline",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("message", BigInteger, ForeignKey("messages.number", ondelete="CASCADE"), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("agency", Text),
    Column("detail", Text),
    Index("timeline_by_message", "message", "number"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("evidence", LargeBinary),
)

#: With what an agency asks the node: the SHA-256 of a token.
agency_tokens = Table(
    "agency_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("agency", Text, ForeignKey("agencies.id", ondelete="CASCADE"), nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("used_at_ms", BigInteger),
)

#: One-time links by which an agency takes a section on: the SHA-256 of a token. `made_by` is null where the link went
#: to the agency with the section.
links = Table(
    "links",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("message", BigInteger, ForeignKey("messages.number", ondelete="CASCADE"), nullable=False),
    Column("section", Text, nullable=False),
    Column("agency", Text, ForeignKey("agencies.id", ondelete="CASCADE"), nullable=False),
    Column("made_by", Text),
    Column("made_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("used_at_ms", BigInteger),
    Column("withdrawn_at_ms", BigInteger),
    Index("links_by_message", "message"),
)

#: What an agency that fetches is offered has a number, which is given once: `head` is the last. A cursor names the
#: `word` too, so that none of another store says anything here.
feeds = Table(
    "feeds",
    metadata,
    Column("agency", Text, ForeignKey("agencies.id", ondelete="CASCADE"), primary_key=True),
    Column("word", Text, nullable=False),
    Column("head", BigInteger, nullable=False),
    Column("asked_at_ms", BigInteger),
)

#: The sections that agencies may fetch, until they say that they have them: what of a row of the outbox is `offered`.
offers = Table(
    "offers",
    metadata,
    Column(
        "delivery",
        BigInteger,
        ForeignKey("outbox.number", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("section", Text, primary_key=True),
    Column("agency", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("offered_at_ms", BigInteger, nullable=False),
    Column("fetched_at_ms", BigInteger),
    Index("offers_in_order", "agency", "rank", "number"),
    Index("offers_by_event", "agency", "event_id"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
)

#: The directory that the node has joined: none or one.
directories = Table(
    "directories",
    metadata,
    Column("url", Text, primary_key=True),
    Column("ca_file", Text),
    Column("networks", Text, nullable=False),
    Column("peer_ca_file", Text),
    Column("peer_networks", Text, nullable=False),
    Column("joined_by", Text, nullable=False),
    Column("joined_at_ms", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("checked_at_ms", BigInteger, nullable=False),
    Column("refreshed_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("expiries", Text, nullable=False),
    Column("problem", Text),
    Column("detail", Text),
    Column("problem_since_ms", BigInteger),
    Column("alarmed", Integer, nullable=False),
    Column("own", Text, nullable=False),
)

#: Its metadata, verified: what stands against an older state.
directory_files = Table(
    "directory_files",
    metadata,
    Column("name", Text, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

#: What it lists: one card for an area, and why it is not taken if it is not.
directory_entries = Table(
    "directory_entries",
    metadata,
    Column("area", Text, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("note", Text),
    Column("data", LargeBinary, nullable=False),
)

#: Who was stopped, until people verify it again, and the area that it holds still: kept when the peer is removed.
stops = Table(
    "stops",
    metadata,
    Column("origin", Text, primary_key=True),
    Column("why", Text, nullable=False),
    Column("area", Text),
)

#: What the node told its peers last that it has seen: the checkpoints of the `sightings` statement at `position`.
sightings = Table(
    "sightings",
    metadata,
    Column("position", BigInteger, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("seen", LargeBinary, nullable=False),
)

#: The processes that run one node on this store; `turn` names the batch that each has kept last.
replicas = Table(
    "replicas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("turn", Text, nullable=False),
    Column("name", Text),
    Column("started_at_ms", BigInteger),
    Column("seen_at_ms", BigInteger),
)

#: One row where this store was moved: the node goes on in another, and never again in this one.
moved = Table(
    "moved",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("url", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
