// Runs flysync for each job `sync-flyio-secrets` {projectId, credentialName, credentialValue?}; see backend.md.
// Copy it beside your package.json with `bullmq` and `ioredis` in it; `flysync` is on PATH. Node 20 or newer.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { DelayedError, UnrecoverableError, Worker } from 'bullmq';

const { REDIS_URL, FLYSYNC_QUEUE = 'flyio-secrets', ...env } = process.env; // flysync needs neither of the two
if (!REDIS_URL) throw new Error('REDIS_URL is not set');
const [ATTEMPTS, PAUSE_MS, LONGEST_MS] = [10, 5_000, 600_000]; // half an hour at most, where none are set
const [LIMIT_S, CLEANING_S] = [600, 30]; // flysync ends by itself after 600 + 15 s; if not: SIGTERM, then SIGKILL
const GRACE_MS = 15_000; // for what is at work when we are stopped; then it is interrupted, and its job handed back
const children = new Set();

async function flysync(args, input) {
  const running = promisify(execFile)('flysync', args, { env, timeout: (LIMIT_S + CLEANING_S) * 1_000 });
  const hopeless = setTimeout(() => running.child.kill('SIGKILL'), (LIMIT_S + 2 * CLEANING_S) * 1_000);
  children.add(running.child);
  running.child.stdin.on('error', () => {}).end(input); // an error: it ended without reading
  const done = await running.catch((error) => error);
  clearTimeout(hopeless);
  children.delete(running.child);
  const isOverdue = done.killed && !worker.closing;
  return { status: isOverdue ? 'time limit' : (done.code ?? done.signal ?? 0), stdout: done.stdout };
}

/** Run flysync once. What is thrown says what becomes of the job, in flysync's words, which hold no values. */
async function sync(job, { projectId, credentialName }, value) {
  const args = ['sync', '--project', projectId, '--name', credentialName, '--timeout', `${LIMIT_S}s`, '--json'];
  const { status, stdout } = await flysync(value === undefined ? args : [...args, '--value-stdin'], value);
  if ([129, 130, 143, 'SIGHUP', 'SIGINT', 'SIGTERM'].includes(status))
    throw Object.assign(new Error('interrupted'), { isInterrupted: true });
  const report = await Promise.resolve(stdout).then(JSON.parse).catch(() => null);
  if (report?.exit_code !== status) throw new Error(`flysync gave no answer that can be read (${status})`);
  for (const { code, message } of report.warnings) await job.log(`${code}: ${message}`);
  if (status === 0) return { outcome: report.outcome, run_id: report.run_id, app: report.app };
  const { code, message, retry_after_s: retryAfterS } = report.error;
  const isYoung = code === 'credential_not_found' && Date.now() - job.timestamp < 60_000; // not committed yet?
  const Kind = [1, 2].includes(status) && !isYoung ? UnrecoverableError : Error;
  throw Object.assign(new Kind(`${code}: ${message}`), { retryAfterS });
}

async function processJob(job, token) {
  job.opts.attempts ||= ATTEMPTS; // BullMQ asks this object, not Redis, whether to try again (measured: 5.81, 6.7)
  job.opts.backoff ??= { type: 'flysync' };
  const { credentialValue, ...data } = job.data ?? {};
  if (credentialValue !== undefined) await job.updateData(data); // Redis has the value while a job waits, no longer
  const isText = (text) => typeof text === 'string' && text.isWellFormed() && !text.includes('\0');
  if (job.name !== 'sync-flyio-secrets' || ![data.projectId, data.credentialName, credentialValue ?? ''].every(isText))
    throw new UnrecoverableError('no job of ours, or what it holds is no text');
  const value = env.FLYSYNC_VALUE_SOURCE === 'caller' ? (credentialValue ?? undefined) : undefined;
  return sync(job, data, value).catch(async (error) => {
    const isLast = error instanceof UnrecoverableError || job.attemptsMade + 1 >= job.opts.attempts;
    if (value !== undefined && (!isLast || error.isInterrupted)) await job.updateData({ ...data, credentialValue });
    if (error.retryAfterS) job.opts.backoff = { type: 'flysync' };
    if (!error.isInterrupted) throw error;
    await job.moveToDelayed(Date.now() + (worker.closing ? 0 : PAUSE_MS), token); // counts no attempt
    throw new DelayedError();
  });
}

const backoffStrategy = (attempt, type, { retryAfterS }) => // not before the service said, and not all at once
  (retryAfterS ?? 0) * 1_000 + Math.min(PAUSE_MS * 2 ** (attempt - 1), LONGEST_MS) * (1 - Math.random() / 2);
const worker = new Worker(FLYSYNC_QUEUE, processJob, {
  connection: { url: REDIS_URL }, concurrency: 4,
  maxStalledCount: 5, // that a processor was killed is not the job's fault, and a sync may be repeated
  settings: { backoffStrategy }, // without one, a job with a type of the producer's own hangs (measured)
  removeOnComplete: { age: 86_400, count: 1_000 }, // both where the producer said nothing
  removeOnFail: { age: 604_800, count: 1_000 },
});
worker.on('error', ({ message }) => console.error(message)); // the error itself has the arguments sent to Redis
worker.on('completed', (job, { outcome, run_id }) => console.log(job.id, outcome, run_id));
worker.on('failed', (job, { message }) => console.log(job?.id, message));
const shutDown = (signal) => {
  console.log(signal, 'received: closing');
  const grace = worker.closing ? 0 : GRACE_MS; // a second signal does not wait
  setTimeout(() => children.forEach((child) => children.delete(child) && child.kill()), grace).unref(); // each once
  setTimeout(() => process.exit(1), grace + 20_000).unref(); // Redis is away, and BullMQ would wait for it (measured)
  worker.close().then(() => process.exit(0));
};
process.on('SIGTERM', shutDown).on('SIGINT', shutDown);
