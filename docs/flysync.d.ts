// What every command of flysync prints with --json; of flysync/1, keys are only added. Made from `flysync schema`.

export interface Report extends Result {
  schema: "flysync/1";
  command: string;
  /** sync-project --all: what the sync of each came to; of one that had no turn, run_id and outcome are null. */
  projects?: Result[];
  /** status */
  status?: StatusLine[];
  /** status */
  open_runs?: OpenRun[];
  /** status; null with --project */
  summary?: Summary | null;
  /** history */
  history?: Run[];
  /** doctor */
  doctor?: Finding[];
  /** db check */
  check?: Finding[];
  /** db init */
  init?: Init;
  /** sandbox list, sandbox prune */
  sandboxes?: Sandbox[];
  /** prove */
  prove?: Proof;
  /** snapshot list, snapshot build */
  snapshots?: Snapshot[];
  /** config show; config set, config unset */
  config?: Setting[] | KeyringChange;
  /** schema */
  json_schema?: Record<string, unknown>;
}

/** What went wrong; the repository's docs/errors.md has every code. */
export type Code = "usage" | "config" | "interrupted" | "locked" | "timeout" | "rate_limited" | "access_denied" | "database_unavailable" | "not_recorded" | "project_not_found" | "ambiguous_deployment" | "credential_not_found" | "run_not_found" | "invalid_credential" | "decrypt_failed" | "token_failed" | "daytona_unavailable" | "quota_reached" | "daytona_refused" | "sandbox_not_found" | "fly_unavailable" | "fly_refused" | "flyctl_failed" | "flyctl_changed" | "app_not_found" | "app_not_visible" | "app_moved" | "not_owner" | "not_allowed" | "prune_refused" | "not_proven" | "deploy_incomplete" | "deploy_failed" | "outcome_unknown" | "redis_unavailable" | "internal_error";

/** What happened to a credential. */
export type Outcome = "synced" | "staged" | "unchanged" | "skipped" | "failed" | "unknown";

/** Why a credential is set or removed, or is not. */
export type Reason = "new" | "changed" | "requested" | "missing" | "drifted" | "removed" | "unchanged" | "confirmed";

export interface Credential {
  name: string;
  /** Null in a dry run. */
  outcome: Outcome | null;
  reason: Reason | null;
  code: Code | null;
  message: string | null;
}

export interface Warning {
  code: string;
  message: string;
  names: string[];
}

/** What made the command fail; a failed credential has code and message of its own. */
export interface Failure {
  code: Code;
  message: string;
  hint: string | null;
  /** Whether the same command may succeed later. */
  temporary: boolean;
  /** Whom it concerns. */
  scope: "call" | "setup" | "service" | "app" | "credential";
  /** The outside service at fault. */
  service: string | null;
  /** The step of the run. */
  phase: string | null;
  /** How long the service asked us to wait. */
  retry_after_s: number | null;
  /** The setting to change. */
  setting?: string;
}

/** A command that is worth running next. */
export interface NextStep {
  command: string;
  why: string;
}

/** What a command came to; also of each project of `sync-project --all`. */
export interface Result {
  /** Whether exit_code is 0. */
  ok: boolean;
  exit_code: number;
  run_id: string | null;
  project: string | null;
  app: string | null;
  /** That of all credentials, else `partial`; null in a dry run, and where nothing was synced. */
  outcome: "synced" | "staged" | "unchanged" | "skipped" | "failed" | "unknown" | "partial" | null;
  credentials: Credential[];
  release: number | null;
  machines: Machines | null;
  /** Whether state and action were written down; null where nothing was to be written. */
  recorded: boolean | null;
  /** The other run that did the work. */
  covered_by: string | null;
  /** The run after this one that removed what has no row any more. */
  removed_by: string | null;
  /** By step. */
  timings_ms: Record<string, number>;
  /** The repository's docs/errors.md has every code. */
  warnings: Warning[];
  error: Failure | null;
  next: NextStep[];
}

export interface StatusLine {
  project: string;
  app: string | null;
  name: string | null;
  in_table: boolean;
  state: "requested" | "writing" | "stored" | "deployed" | "failed" | null;
  condition: "no credentials" | "project not deployed" | "orphaned" | "cannot be sent" | "never sent" | "changed since" | "roll-out fails" | "requested" | "being written" | "interrupted" | "stored, not deployed" | "deployed" | "failed";
  /** What Fly shows; null where it was not asked. */
  live: "running" | "on stopped machines" | "machines down" | "on some machines" | "not deployed" | "no machines" | "missing" | "changed at Fly" | "unknown" | "orphaned" | "gone" | "foreign" | "no app" | null;
  live_unknown: string | null;
  /** Whether Fly has something else than the table. */
  drift: boolean;
  /** Null where they were not seen. */
  machines: Machine[] | null;
  updated_at: string | null;
  written_at: string | null;
  deployed_at: string | null;
  /** The run that wrote it last. */
  run_id: string | null;
  actor: string | null;
  origin: string | null;
  /** The last run that was about it; null where it is deployed and nobody has asked for it since. */
  tried: Tried | null;
}

export interface OpenRun {
  run_id: string;
  origin: string;
  actor: string;
  started_at: string;
  died: boolean;
}

export interface Some {
  count: number;
  /** The first few. */
  first: string[];
}

export interface Summary {
  projects: number;
  credentials: number;
  /** Projects with an app to which not all of their credentials have arrived. */
  behind: number;
  /** Those of them whose newest try has failed. */
  failed: number;
  /** The same by code. */
  failures: Record<string, number>;
  /** Those of them that nobody tries again until their rows or their deployment change. */
  given_up: number;
  /** The project that is behind longest. */
  oldest: string | null;
  behind_since: string | null;
  behind_s: number | null;
  /** Projects with credentials that were never deployed. */
  no_app: Some;
  /** Deployed projects without any. */
  no_credentials: Some;
  /** Projects whose newest deployments name several apps. */
  several_apps: Some;
  /** Apps that the newest deployments of several projects name. */
  shared_apps: Some;
}

export interface Run {
  run_id: string;
  project: string;
  app: string | null;
  names: string[];
  origin: string;
  actor: string;
  reason: string | null;
  started_at: string;
  sandbox: string | null;
  deadline: string | null;
  /** Null while it is not finished. */
  finished_at: string | null;
  outcome: string | null;
  error_code: string | null;
  release: number | null;
  /** By step. */
  seconds: Record<string, number>;
  /** By name; empty while it is not finished, and of runs of an earlier version. */
  results: Record<string, CredentialResult>;
  /** Whether it has no end, and nobody holds its lock. */
  died: boolean;
  /** What it sent; there is one where one RUN was asked for. */
  action?: Sent | null;
}

export interface Finding {
  verdict: "ok" | "warning" | "failed" | "skipped";
  subject: string;
  message: string;
  hint: string | null;
  /** The doctor's alone. */
  code?: Code | null;
}

export interface Sandbox {
  id: string;
  name: string;
  run_id: string | null;
  app: string | null;
  state: string;
  created_at: string | null;
  age_s: number | null;
  ttl_s: number | null;
  use: "living" | "dead" | "expired" | "foreign";
  removed: boolean | null;
}

export interface Proof {
  /** Those that were tried. */
  lines: ProofLine[];
  /** What the doctor says of database, flyctl, token, ..., with their versions. */
  parts: Record<string, string>;
  /** What to set, because it holds here. */
  settings: Record<string, string>;
  /** By step. */
  steps: Record<string, StepSeconds>;
}

export interface ProofLine {
  name: string;
  promise: string;
  verdict: "proven" | "not proven" | "not possible here";
  seen: string;
  seconds: number;
}

/** Of all runs of the proof. */
export interface StepSeconds {
  shortest_s: number;
  longest_s: number;
}

export interface Snapshot {
  id: string;
  name: string;
  /** In Daytona's word. */
  state: string;
  /** Null where it was built. */
  image: string | null;
  size_gb: number | null;
  created_at: string | null;
  in_use: boolean;
  /** Its version; null where nobody says. */
  flyctl: string | null;
  /** Of the program; of a build alone, as all that follows. */
  sha256: string | null;
  way: "built" | "activated" | "awaited" | "found" | null;
  /** What to change, by name. */
  settings: Record<string, string>;
  /** How many sandboxes of it Daytona keeps ready. */
  warm: number | null;
}

export interface Setting {
  name: string;
  /** Of a secret its length. */
  value: string | null;
  source: string;
  usable: boolean;
}

export interface KeyringChange {
  name: string;
  keyring: "stored" | "removed" | "absent";
}

export interface Machines {
  updated: number;
  total: number;
}

export interface Machine {
  id: string;
  state: string;
  release: number | null;
  managed: boolean;
}

export interface Tried {
  run_id: string;
  origin: string;
  actor: string;
  started_at: string;
  finished_at: string | null;
  outcome: string | null;
  error_code: string | null;
  died: boolean;
}

export interface Sent {
  outcomes: Record<string, string>;
}

export interface CredentialResult {
  outcome: string;
  code?: string;
  message?: string;
}

export interface Init {
  created: string[];
  migrated_from: number | null;
  shared_apps: Record<string, string[]>;
  granted_to: string | null;
  sql: string | null;
}
