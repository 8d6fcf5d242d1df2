// Runs flysync for jobs `sync-flyio-secrets` and `unset-flyio-secrets` {projectId, credentialName, …}; see backend.md.
// Copy it beside your package.json with `bullmq` and `ioredis` in it; `flysync` is on PATH. Node 20 or newer.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { DelayedError, UnrecoverableError, Worker } from 'bullmq';

const { REDIS_URL, FLYSYNC_QUEUE, FLYSYNC_QUEUE_PREFIX, ...env } = process.env; // flysync needs none of the three
if (!REDIS_URL) throw new Error('REDIS_URL is not set');
const [ATTEMPTS, PAUSE_MS, LONGEST_MS] = [10, 5_000, 600_000]; // half an hour at most, where none are set
const [LIMIT_S, CLEANING_S] = [600, 30]; // flysync ends by itself after 600 + 15 s; if not: SIGTERM, then SIGKILL
const GRACE_MS = 15_000; // for what is at work when we are stopped; then it is interrupted, and its job handed back
const COMMANDS = new Map([['sync-flyio-secrets', ['sync']], ['unset-flyio-secrets', ['unset', '--if-gone', '--yes']]]);
const children = new Set();
class Held extends Error { isInterrupted = false } // the job waits, and no attempt is counted
const refusedSince = new Map(); // by the id of a job that is held for the setup
let [heldInARow, heldUntil, passedAt] = [0, 0, 0]; // the last: when a run began that got as far as Fly

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
async function run(job, { projectId, credentialName }, value) {
  const [command, ...flags] = COMMANDS.get(job.name);
  const args = [command, '--project', projectId, '--name', credentialName, '--timeout', `${LIMIT_S}s`, '--json'];
  const { status, stdout } = await flysync([...args, ...(value === undefined ? flags : ['--value-stdin'])], value);
  if ([129, 130, 143, 'SIGHUP', 'SIGINT', 'SIGTERM'].includes(status))
    throw Object.assign(new Held('interrupted'), { isInterrupted: true });
  if (/^E[A-Z]+$/.test(status)) throw new Held(`flysync cannot be started (${status})`);
  /** @type {import('./flysync.d.ts').Report | null} */
  const report = await Promise.resolve(stdout).then(JSON.parse).catch(() => null);
  if (report?.exit_code !== status) throw new Error(`flysync gave no answer that can be read (${status})`);
  for (const { code, message } of report.warnings) await job.log(`${code}: ${message}`);
  const isYoung = Date.now() - job.timestamp < 60_000; // what it is about is perhaps not committed yet
  if (status === 0) {
    [heldInARow, passedAt] = [0, report.timings_ms?.list === undefined ? passedAt : job.processedOn];
    refusedSince.delete(job.id);
    const isThere = command === 'unset' && report.warnings.find(({ code }) => code === 'superseded');
    if (isThere && isYoung) throw new Error(`superseded: ${isThere.message}`);
    return { outcome: report.outcome, run_id: report.run_id, app: report.app };
  }
  const { code, message, scope, temporary, retry_after_s: retryAfterS } = report.error;
  if (scope === 'setup' && !refusedSince.has(job.id)) refusedSince.set(job.id, Date.now());
  const waits = scope === 'service' || (scope === 'setup' && passedAt <= refusedSince.get(job.id)); // else its own
  const Fate = waits ? Held : temporary || (code === 'credential_not_found' && isYoung) ? Error : UnrecoverableError;
  throw Object.assign(new Fate(`${code}: ${message}`), { retryAfterS });
}

/** Say what is wrong with a field of a job, and nothing of what is in it. */
const problemOf = (field, text, longest) =>
  (typeof text !== 'string' && `the job's ${field} is missing or not a string`) ||
  (text.length > longest && `the job's ${field} has ${text.length} characters; the limit is ${longest}`) ||
  ((!text.isWellFormed() || text.includes('\0')) && `the job's ${field} has a character that cannot be stored`);

async function processJob(job, token) {
  job.opts.attempts ||= ATTEMPTS; // BullMQ asks this object, not Redis, whether to try again (measured: 5.81, 6.7)
  job.opts.backoff ??= { type: 'flysync' };
  const { credentialValue, ...data } = job.data ?? {};
  const isUsed = env.FLYSYNC_VALUE_SOURCE === 'caller' && job.name !== 'unset-flyio-secrets';
  const value = isUsed ? (credentialValue ?? undefined) : undefined;
  const projectId = Number.isSafeInteger(data.projectId) ? `${data.projectId}` : data.projectId;
  const problem = !COMMANDS.has(job.name) ? 'it is not a job of ours' : problemOf('projectId', projectId, 256)
    || problemOf('credentialName', data.credentialName, 128) || problemOf('credentialValue', value ?? '', Infinity);
  // Redis has the value while a job waits, no longer; but where nobody else has it, a job that is refused keeps it.
  if (credentialValue !== undefined && !(problem && value !== undefined)) await job.updateData(data);
  if (problem) throw new UnrecoverableError(`usage: ${problem}`);
  return run(job, { ...data, projectId }, value).catch(async (error) => {
    const isHeld = error instanceof Held;
    const isLast = error instanceof UnrecoverableError || job.attemptsMade + 1 >= job.opts.attempts;
    if (value !== undefined && (isHeld || !isLast)) await job.updateData({ ...data, credentialValue });
    if (error.retryAfterS) job.opts.backoff = { type: 'flysync' };
    if (!isHeld) throw error;
    console.log(job.id, 'waits:', error.message);
    if (!error.isInterrupted && Date.now() >= heldUntil) {
      heldUntil = Date.now() + pauseOf(++heldInARow, error);
      await worker.rateLimit(heldUntil - Date.now()); // no job is taken for so long
    }
    const pause = worker.closing ? 0 : pauseOf(job.attemptsStarted - job.attemptsMade, error); // perhaps it alone fails
    await job.moveToDelayed(Date.now() + pause, token);
    throw new DelayedError();
  });
}

const pauseOf = (times, /** @type {any} */ { retryAfterS }) => // not before the service said, and not all at once
  Math.round((retryAfterS ?? 0) * 1_000 + Math.min(PAUSE_MS * 2 ** (times - 1), LONGEST_MS) * (1 - Math.random() / 2));
const worker = new Worker(FLYSYNC_QUEUE || 'flyio-secrets', processJob, {
  connection: { url: REDIS_URL }, prefix: FLYSYNC_QUEUE_PREFIX || 'bull', concurrency: 4,
  limiter: { max: 1e9, duration: 1_000 }, // no limit; but without one, rateLimit has no effect (read)
  maxStalledCount: 5, // that a processor was killed is not the job's fault, and a sync may be repeated
  settings: { backoffStrategy: (times, type, error) => pauseOf(times, error) }, // else other types hang (measured)
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
