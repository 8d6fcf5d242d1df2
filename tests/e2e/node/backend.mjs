// The backend's side of the queue for the tests: a request in JSON per line of input, its answer per line of output.
import { createInterface } from 'node:readline';
import { Queue } from 'bullmq';

const queues = {};
const answers = {
  add: async (queue, { name, data, opts }) => (await queue.add(name, data, opts)).id,
  job: async (queue, { id }) => {
    const state = await queue.getJobState(id); // first: what is read later is what the state came with
    const { logs } = await queue.getJobLogs(id);
    return { ...(await queue.getJob(id)).toJSON(), state, logs };
  },
};
for await (const line of createInterface({ input: process.stdin })) {
  const { what, queue, ...more } = JSON.parse(line);
  queues[queue] ??= new Queue(queue, { connection: { url: process.env.REDIS_URL } });
  console.log(JSON.stringify(await answers[what](queues[queue], more)));
}
process.exit(0);
