"""Checks the local stack against infra/openapi.yaml, with thousands of calls, valid and invalid from schemathesis.

Usage: description.py SIMSWAP SCHEMATHESIS, the paths of the two commands.
"""

import collections
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

CI = pathlib.Path(__file__).resolve().parent
DESCRIPTION = CI.parent / "infra" / "openapi.yaml"
# Seconds to wait for each condition.
TIMEOUT = 120
MINIMUM_CASES = 5000
# Random cases per operation. Cases from boundary values and links are added to these.
EXAMPLES = 900
EXCLUDED_CHECKS = [
    # API Gateway responds with 404 to a method that a path does not have.
    "unsupported_method",
    # The schemas cannot express everything that a valid call needs, for example that a number belongs to the line,
    # or that the service has issued the cursor.
    "positive_data_acceptance",
]


def main(simswap, schemathesis):
    with tempfile.TemporaryDirectory(prefix="simswap-ci-") as directory:
        directory = pathlib.Path(directory)
        data, log = directory / "data", directory / "stack.log"
        with log.open("w") as out:
            stack = subprocess.Popen([simswap, "--port", "0", "--data-dir", data], stdout=out, stderr=out)
        try:
            api = wait_until_ready(log)
            token = subprocess.check_output([simswap, "token", "ADMIN", "--data-dir", data], text=True).strip()
            swap = create_mailed_swap(api, token)
            calls = directory / "calls.ndjson"
            # One worker only: with more, the parser of CPython 3.11 occasionally fails.
            command = [schemathesis, "--no-color", "run", DESCRIPTION, "--url", api]
            command += ["--header", f"Authorization: Bearer {token}", "--checks", "all", "--exclude-checks", ",".join(EXCLUDED_CHECKS)]
            command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none"]
            command += ["--warnings", "off", "--report", "ndjson", "--report-ndjson-path", calls]
            environment = os.environ | {"SCHEMATHESIS_HOOKS": "known_lines", "PYTHONPATH": str(CI), "SWAP": swap}
            run = subprocess.run(command, env=environment, cwd=directory, stdout=subprocess.PIPE, text=True)
            print(run.stdout, flush=True)
            if run.returncode != 0:
                sys.exit("the local stack does not match infra/openapi.yaml")
            check_coverage(run.stdout, calls)
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait(20)


def wait_until_ready(log):
    return wait_for("the stack is ready", lambda: re.search(r"ready at (http://127\.0\.0\.1:\d+)", log.read_text()))[1]


def create_mailed_swap(api, token):
    """Creates a swap whose e-mail was sent, so that its QR code can be resent. Returns the id of the swap."""
    body = {"subscriptionId": "65a1b2c3d4e5f60718293a03", "eSim": True, "email": "carla@example.com", "confirmationCode": "1"}
    swap = call(f"{api}/api/SimSwapSubscription", token, json.dumps(body).encode())["id"]

    def is_mail_delivered():
        found = call(f"{api}/api/QueryActivation?id={swap}", token)["results"][0]
        return found["info"].get("delivery") == "delivered"

    wait_for("the mail is delivered", is_mail_delivered)
    return swap


def call(url, token, body=None):
    request = urllib.request.Request(url, body, {"authorization": f"Bearer {token}", "content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        return json.load(response)


def wait_for(condition, poll):
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if result := poll():
            return result
        time.sleep(0.1)
    sys.exit(f"timed out after {TIMEOUT} s: {condition}")


def check_coverage(summary, calls):
    """Prints how often each operation returned each status code, and fails if there were too few cases."""
    statuses = collections.defaultdict(collections.Counter)
    operations = set()
    for line in calls.open():
        scenario = json.loads(line).get("ScenarioFinished")
        # A scenario that made no call has no interactions.
        if not scenario or "interactions" not in scenario["recorder"]:
            continue
        recorder = scenario["recorder"]
        if scenario["phase"] == "fuzzing":
            operations.add(recorder["label"])
        for name, interaction in recorder["interactions"].items():
            case, response = recorder["cases"][name]["value"], interaction["response"]
            if response:
                statuses[f"{case['method']} {case['path']}"][response["status_code"]] += 1
    for operation in sorted(operations):
        counts = statuses[operation]
        print(operation, *(f"{status}×{times}" for status, times in sorted(counts.items())))
        if not counts[200]:
            sys.exit(f"{operation} never returned 200")
    cases = int(re.search(r"(\d+) generated", summary)[1])
    print(f"{cases} cases")
    if cases < MINIMUM_CASES:
        sys.exit(f"fewer than {MINIMUM_CASES} cases")


main(*sys.argv[1:])
