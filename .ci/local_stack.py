"""Runs the local stack for a check. The checks are in the other files."""

import contextlib
import dataclasses
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

# Seconds to wait for each condition, perhaps on a busy machine.
TIMEOUT = 120


@dataclasses.dataclass
class LocalStack:
    api: str
    data: pathlib.Path
    log: pathlib.Path
    # A directory of the check's own, which is removed afterwards.
    directory: pathlib.Path
    simswap: str

    def admin(self):
        """Returns a token with the role ADMIN."""
        command = [self.simswap, "token", "ADMIN", "--data-dir", self.data]
        return subprocess.check_output(command, text=True).strip()


@contextlib.contextmanager
def local_stack(simswap):
    """Starts the stack of this binary on a free port, without data, and stops it afterwards."""
    with tempfile.TemporaryDirectory(prefix="simswap-ci-") as directory:
        directory = pathlib.Path(directory)
        data, log = directory / "data", directory / "stack.log"
        with log.open("w") as out:
            process = subprocess.Popen([simswap, "--port", "0", "--data-dir", data], stdout=out, stderr=out)
        try:
            is_ready = lambda: re.search(r"ready at (http://127\.0\.0\.1:\d+)", log.read_text())
            yield LocalStack(wait_for("the stack is ready", is_ready)[1], data, log, directory, simswap)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def wait_for(condition, poll):
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if result := poll():
            return result
        time.sleep(0.1)
    sys.exit(f"timed out after {TIMEOUT} s: {condition}")
