// An agency's end of the exchange, on public packages alone. It shares no code with the exchange.
//
//   node agency.mjs new-key            makes a key; `public` goes to the borough's admin
//   node agency.mjs answer             {seed, challenge, borough, kind}             shows that the agency holds the key
//   node agency.mjs open               {seed, secret, headers, body, borough, kind} verifies a webhook, opens its section
//   node agency.mjs seal               {key, message_id, sender, recipient, section, content} seals as a sender does
//   node agency.mjs own                {url, token, subject, name, role, contact}   takes a section on, at the borough's node
//
// Each reads one JSON document from standard input and prints one.

import { decode, encode } from "@msgpack/msgpack";
import { Webhook } from "standardwebhooks";

import * as bytes from "./bytes.mjs";
import * as hpke from "./hpke.mjs";

const { context, equal, fromBase64, toBase64, toHex } = bytes;
const MINIMUM_BYTES = 256;
const MOST_STATEMENT_BYTES = 4 * 1024 * 1024;

function check(condition, message) {
  if (!condition) throw new Error(message);
}

// "exchange/1 8 manifest <length> <body>"; the body is MessagePack.
function parseManifest(statement) {
  check(statement.length <= MOST_STATEMENT_BYTES, "the manifest is too large");
  const head = /^exchange\/1 8 manifest ([1-9][0-9]{0,8}) /.exec(Buffer.from(statement.slice(0, 64)).toString("latin1"));
  check(head !== null && statement.length === head[0].length + Number(head[1]), "that is not a manifest");
  return decode(statement.slice(head[0].length));
}

async function newKey() {
  const seed = crypto.getRandomValues(new Uint8Array(32));
  const { publicBytes } = await hpke.keyPair(seed);
  return { seed: toBase64(seed), public: { format: "exchange-agency-key/1", key: toBase64(publicBytes) } };
}

async function answer({ seed, challenge, borough, kind }) {
  check(challenge.format === "exchange-agency-challenge/1", "that is not a challenge");
  check(challenge.origin === borough && challenge.kind === kind, "the challenge is for somebody else");
  const { privateKey, publicBytes } = await hpke.keyPair(fromBase64(seed));
  const id = await hpke.keyId(publicBytes);
  check(equal(id, fromBase64(challenge.key_id)), "the challenge is for another key");
  const info = context("agency-challenge", id, borough, kind);
  const nonce = await hpke.open(privateKey, info, fromBase64(challenge.challenge));
  const digest = await bytes.sha256(context("agency-answer", nonce));
  return { format: "exchange-agency-answer/1", answer: toBase64(digest) };
}

async function open({ seed, secret, headers, body, borough, kind }) {
  const event = new Webhook(secret).verify(body, headers);
  const data = event.data;
  check(event.type === "exchange.section.delivered.v1", "that is not a section");
  check(event.id === headers["webhook-id"] && event.source === `https://${borough}`, "the event is of somebody else");
  check(data.sealed !== undefined, "the borough's node has opened this section");

  const statement = fromBase64(data.sealed.manifest);
  const manifest = parseManifest(statement);
  check(manifest.message_id === data.message_id && manifest.recipient === borough, "the manifest is of another message");
  check(manifest.from_area === data.from && manifest.to_area === data.to, "the manifest is of another borough");
  const section = manifest.sections.find((one) => one.name === data.section);
  check(section !== undefined && section.readers.includes(kind), "the section is not for this agency");
  const leaf = await bytes.sha256(new Uint8Array([0]), statement);
  const id = toHex(await bytes.sha256(context("event", leaf, section.name, kind))).slice(0, 32);
  check(event.id === `evt_${id}`, "the event is of another section");

  const { privateKey, publicBytes } = await hpke.keyPair(fromBase64(seed));
  const own = await hpke.keyId(publicBytes);
  const parcel = manifest.parcels.find((one) => equal(one.key_id, own));
  check(parcel !== undefined && equal(parcel.parcel, fromBase64(data.sealed.parcel)), "it is not sealed to this key");
  const info = context("parcel", manifest.sender, manifest.recipient, own, manifest.message_id);
  const secrets = decode(await hpke.open(privateKey, info, parcel.parcel));
  check(Object.hasOwn(secrets, section.name), "the parcel does not hold this section");

  const ciphertext = fromBase64(data.sealed.ciphertext);
  check(equal(await bytes.sha256(ciphertext), section.sha256), "the ciphertext is not the one in the manifest");
  const { aes, nonce, salt } = await bytes.sectionKeys(secrets[section.name]);
  const additionalData = context("section", manifest.message_id, manifest.sender, manifest.recipient, section.name);
  const padded = new Uint8Array(
    await crypto.subtle.decrypt({ name: "AES-GCM", iv: nonce, additionalData }, aes, ciphertext),
  );
  // AES-GCM does not commit to its key: without this, another text could be shown to somebody else.
  check(equal(await bytes.commit(salt, padded), section.commitment), "it is not what the sender committed to");
  return {
    message_id: manifest.message_id,
    section: section.name,
    sender: manifest.sender,
    readers: section.readers,
    content: decode(bytes.unpad(padded, MINIMUM_BYTES)),
  };
}

async function seal({ key, message_id, sender, recipient, section, content }) {
  const secret = crypto.getRandomValues(new Uint8Array(32));
  const { aes, nonce, salt } = await bytes.sectionKeys(secret);
  const padded = bytes.pad(encode(content), MINIMUM_BYTES);
  const additionalData = context("section", message_id, sender, recipient, section);
  const ciphertext = new Uint8Array(
    await crypto.subtle.encrypt({ name: "AES-GCM", iv: nonce, additionalData }, aes, padded),
  );
  const publicBytes = fromBase64(key);
  const id = await hpke.keyId(publicBytes);
  const info = context("parcel", sender, recipient, id, message_id);
  return {
    key_id: toBase64(id),
    parcel: toBase64(await hpke.seal(publicBytes, info, encode({ [section]: secret }))),
    ciphertext: toBase64(ciphertext),
    sha256: toBase64(await bytes.sha256(ciphertext)),
    commitment: toBase64(await bytes.commit(salt, padded)),
  };
}

// A key that was made here has no signing keys beside it: the borough's node seals and signs this for the sender.
async function own({ url, token, subject, ...holder }) {
  const answered = await fetch(`${url}/v1/sections/${encodeURIComponent(subject)}/own`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(holder),
  });
  const document = await answered.json();
  check(answered.status === 200, `${document.code}: ${document.message}`);
  return document;
}

const commands = { "new-key": newKey, answer, open, seal, own };
const command = commands[process.argv[2]];
check(command !== undefined, `the commands are ${Object.keys(commands).join(", ")}`);
let given = "";
for await (const piece of process.stdin) given += piece;
try {
  process.stdout.write(`${JSON.stringify(await command(given ? JSON.parse(given) : {}))}\n`);
} catch (error) {
  process.stderr.write(`refused: ${error.message}\n`);
  process.exitCode = 1;
}
