"""
What the handlers need from the world, and what each part promises.

Pure interfaces: `adapters/` has the real ones, `tests/doubles` those in memory, and one suite of contracts
(`tests/contract`) holds both to these words. No error of theirs shows a value, in its text or its cause.
"""

from flysync.ports.database import (
    AppLock as AppLock,
    DatabaseAdmin as DatabaseAdmin,
    LockHandle as LockHandle,
    Records as Records,
)
from flysync.ports.fly import (
    LOCAL as LOCAL,
    AnswerLost as AnswerLost,
    FlyctlMissing as FlyctlMissing,
    NotSent as NotSent,
    OnProgress as OnProgress,
    OwnTokens as OwnTokens,
    Sandbox as Sandbox,
    Sandboxes as Sandboxes,
    SandboxFlyctl as SandboxFlyctl,
    SecretStore as SecretStore,
)
from flysync.ports.proving import (
    PREFIX as PREFIX,
    PROJECT as PROJECT,
    Begun as Begun,
    Changes as Changes,
    Ended as Ended,
    NotHere as NotHere,
    Trial as Trial,
)
from flysync.ports.queue import Disposition as Disposition, Job as Job, JobQueue as JobQueue, Verdict as Verdict
from flysync.ports.runs import (
    Action as Action,
    Backlog as Backlog,
    BadTry as BadTry,
    Candidate as Candidate,
    DatabaseServer as DatabaseServer,
    Intent as Intent,
    MissingPage as MissingPage,
    MissingSecrets as MissingSecrets,
    ProjectsPage as ProjectsPage,
    ProjectStanding as ProjectStanding,
    RunEnd as RunEnd,
    Settlement as Settlement,
    SharedApp as SharedApp,
    StandingsPage as StandingsPage,
)
from flysync.ports.world import (
    BuildListener as BuildListener,
    Clock as Clock,
    Decryption as Decryption,
    NullListener as NullListener,
    ProgressListener as ProgressListener,
    Recipe as Recipe,
    Services as Services,
    Snapshots as Snapshots,
    SnapshotServices as SnapshotServices,
    Tokens as Tokens,
)
