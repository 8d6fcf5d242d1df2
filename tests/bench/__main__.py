"""
Run the benchmarks of this folder, all or those that are named, and put their rows together as one table at the end.

    python tests/bench [bench_NAME.py …] [options of theirs]

What they print is passed on as it comes; a row is a line `what | figure | goal`. 1 where one of them says that a bound
is broken.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_ROW = re.compile(r"[^|]+ \| [^|]+ \| [^|]+\n")


def run(path: Path, options: list[str]) -> tuple[int, list[str]]:
    """Run one, and give its exit code and its rows."""
    print(f"\n{path.name}", flush=True)
    rows = []
    with subprocess.Popen([sys.executable, "-u", str(path), *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"  {line}", end="", flush=True)
            if _ROW.fullmatch(line):
                rows.append(line.strip())
    return process.returncode, rows


def main(arguments: list[str]) -> int:
    """Run them one after the other, and print the table."""
    wanted = [one for one in arguments if one.endswith(".py")]
    options = [one for one in arguments if one not in wanted]
    rows, codes = ["what | figure | goal", "--- | --- | ---"], []
    for path in sorted(_HERE.glob("bench_*.py")):
        if not wanted or path.name in wanted:
            code, more = run(path, options if wanted else [])
            codes.append(code)
            rows += more
    print("\n" + "\n".join(f"| {one} |" for one in rows))
    cores, load = os.cpu_count(), os.getloadavg()[1]
    print(f"\nPython {platform.python_version()}, {cores} processors, work for {load:.0f} in the last 5 minutes")
    return int(any(codes) or not codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
