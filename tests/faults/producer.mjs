// The backend's side of a soak: a job in JSON per line of input, its id per line of output once Redis has it.
import { createInterface } from 'node:readline';
import { Queue } from 'bullmq';

const queue = new Queue(process.argv[2], { connection: { url: process.env.REDIS_URL } });
for await (const line of createInterface({ input: process.stdin })) {
  const { name, data, opts } = JSON.parse(line);
  console.log((await queue.add(name, data, opts)).id);
}
process.exit(0);
