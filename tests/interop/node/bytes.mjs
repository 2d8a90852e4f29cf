// Bytes as docs/protocol.md has them: contexts, base64, and the parts of Web Crypto that are used.

export const fromBase64 = (text) => new Uint8Array(Buffer.from(text, "base64"));
export const toBase64 = (bytes) => Buffer.from(bytes).toString("base64");
export const toHex = (bytes) => Buffer.from(bytes).toString("hex");
export const text = (value) => new TextEncoder().encode(value);
export const join = (...parts) => new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part))));
export const equal = (one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)) === 0;

export async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", join(...parts)));
}

// "exchange/1 " label "\n", then each field behind its length as four big-endian bytes.
export function context(label, ...fields) {
  const parts = [text(`exchange/1 ${label}\n`)];
  for (const field of fields) {
    const bytes = typeof field === "string" ? text(field) : field;
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, bytes.length);
    parts.push(length, bytes);
  }
  return join(...parts);
}

// The keys of a section: AES key (32), nonce (12) and the commitment's salt (32).
export async function sectionKeys(secret) {
  const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const parameters = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: context("section") };
  const block = new Uint8Array(await crypto.subtle.deriveBits(parameters, key, 76 * 8));
  const aes = await crypto.subtle.importKey("raw", block.slice(0, 32), "AES-GCM", false, ["encrypt", "decrypt"]);
  return { aes, nonce: block.slice(32, 44), salt: block.slice(44) };
}

export const commit = (salt, padded) => sha256(text("exchange/1 commitment\n"), salt, padded);

// PADMÉ lengths.
export function padme(length) {
  if (length < 2) return length;
  const exponent = Math.floor(Math.log2(length));
  const step = 2 ** (exponent - (Math.floor(Math.log2(exponent)) + 1));
  return Math.ceil(length / step) * step;
}

export function pad(data, minimum) {
  const padded = new Uint8Array(padme(Math.max(data.length + 1, minimum)));
  padded.set(data);
  padded[data.length] = 0x80;
  return padded;
}

export function unpad(padded, minimum) {
  let end = padded.length;
  while (end > 0 && padded[end - 1] === 0) end -= 1;
  if (end === 0 || padded[end - 1] !== 0x80 || padded.length !== padme(Math.max(end, minimum))) {
    throw new Error("the padding is not the canonical one");
  }
  return padded.slice(0, end - 1);
}
