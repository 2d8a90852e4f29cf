// HPKE with X-Wing: HKDF-SHA256 and AES-256-GCM, as docs/protocol.md, "Sealing keys".

import { Aes256Gcm, CipherSuite, HkdfSha256 } from "@hpke/core";
import { XWing } from "@hpke/hybridkem-x-wing";

import { context, join, sha256 } from "./bytes.mjs";

const ENCAPSULATION_BYTES = 1120;
const suite = new CipherSuite({ kem: new XWing(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });

// A key pair from its 32-byte seed (draft-connolly-cfrg-xwing-kem), with the public key's bytes.
export async function keyPair(seed) {
  const pair = await suite.kem.generateKeyPairDerand(seed);
  return { ...pair, publicBytes: new Uint8Array(await suite.kem.serializePublicKey(pair.publicKey)) };
}

export async function keyId(publicBytes) {
  return (await sha256(context("sealing-key", publicBytes))).slice(0, 16);
}

export async function open(privateKey, info, sealed) {
  const enc = sealed.slice(0, ENCAPSULATION_BYTES);
  const recipient = await suite.createRecipientContext({ recipientKey: privateKey, enc: enc.buffer, info });
  return new Uint8Array(await recipient.open(sealed.slice(ENCAPSULATION_BYTES).buffer));
}

export async function seal(publicBytes, info, plaintext) {
  const recipientPublicKey = await suite.kem.deserializePublicKey(publicBytes.buffer);
  const sender = await suite.createSenderContext({ recipientPublicKey, info });
  return join(new Uint8Array(sender.enc), new Uint8Array(await sender.seal(plaintext)));
}
