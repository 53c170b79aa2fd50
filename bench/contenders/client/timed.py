"""Time a command, and count the bytes that pass through this network's loopback meanwhile.

The job is ``{"argv": [...], "until": 120}``. All that the command writes goes to /target, a folder in memory that is
emptied before and after. The outcome is ``{"seconds": ..., "bytes": ..., "cut_off": ..., "code": ..., "said": ...}``.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

from job import Job, main

TARGET = Path("/target")


def received() -> int:
    """Bytes that the loopback interface has received; the server is reached by it alone."""
    for line in Path("/proc/net/dev").read_text(encoding="utf-8").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    raise LookupError("there is no loopback interface")


def clean() -> None:
    """Empty the folder; it is a mount, so it stays."""
    for entry in TARGET.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def timed(job: Job) -> Job:
    """Run the command once."""
    clean()
    environment = os.environ | {
        "TMPDIR": str(TARGET), "HOME": str(TARGET), "NO_PROXY": "*", "UV_NO_CONFIG": "1",
        "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    before, start = received(), time.monotonic()
    try:
        result = subprocess.run(job["argv"], env=environment, capture_output=True, text=True, timeout=job["until"])
        code, said = result.returncode, result.stdout + result.stderr
    except subprocess.TimeoutExpired:
        code, said = None, ""
    seconds, passed = time.monotonic() - start, received() - before
    clean()
    return {"seconds": seconds, "bytes": passed, "cut_off": code is None, "code": code, "said": said[-400:]}


if __name__ == "__main__":
    main(timed)
