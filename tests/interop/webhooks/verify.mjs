// Verifies each webhook on standard input, one JSON object a line, with the public library; says what came of it.
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line);
  let said;
  try {
    const event = new Webhook(secret).verify(Buffer.from(body, "base64").toString("utf8"), headers);
    said = { ok: true, id: event.id };
  } catch (error) {
    said = { ok: false, error: error.message };
  }
  console.log(JSON.stringify(said));
}
