// Decrypts credentials for flysync: FLYSYNC_DECRYPT="node decrypt.mjs". The key is CREDENTIALS_KEY (32 bytes, base64).
// What is stored is base64 of 12 bytes nonce, the ciphertext, and 16 bytes tag (AES-256-GCM).
import { createDecipheriv } from 'node:crypto';
import { readFileSync } from 'node:fs';

const key = Buffer.from(process.env.CREDENTIALS_KEY, 'base64');
const text8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const { values: stored } = JSON.parse(readFileSync(0, 'utf8'));
const [values, failed] = [{}, {}];
for (const [name, text] of Object.entries(stored)) {
  try {
    const data = Buffer.from(text, 'base64');
    const decipher = createDecipheriv('aes-256-gcm', key, data.subarray(0, 12), { authTagLength: 16 });
    decipher.setAuthTag(data.subarray(-16));
    values[name] = text8.decode(Buffer.concat([decipher.update(data.subarray(12, -16)), decipher.final()]));
  } catch {
    failed[name] = 'another key, or no such text';
  }
}
process.stdout.write(JSON.stringify({ values, failed }));
