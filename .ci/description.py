"""Holds the local stack to infra/openapi.yaml: thousands of made-up calls, right and wrong ones, by schemathesis.

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
# Seconds for each thing that is waited for.
PATIENCE = 120
CASES_AT_LEAST = 5000
# Of each operation; what bounds and links bring comes on top.
EXAMPLES = 900
LEFT_OUT = [
    # A method that a path does not have is 404 behind API Gateway.
    "unsupported_method",
    # No schema says all that a call needs: that a number is the line's, or a cursor one that was given out.
    "positive_data_acceptance",
]


def main(simswap, schemathesis):
    with tempfile.TemporaryDirectory(prefix="simswap-ci-") as directory:
        directory = pathlib.Path(directory)
        data, log = directory / "data", directory / "stack.log"
        with log.open("w") as out:
            stack = subprocess.Popen([simswap, "--port", "0", "--data-dir", data], stdout=out, stderr=out)
        try:
            api = ready(log)
            token = subprocess.check_output([simswap, "token", "ADMIN", "--data-dir", data], text=True).strip()
            swap = mailed_swap(api, token)
            calls = directory / "calls.ndjson"
            # By one worker: with more, CPython 3.11 trips over its own parser now and then.
            command = [schemathesis, "--no-color", "run", DESCRIPTION, "--url", api]
            command += ["--header", f"Authorization: Bearer {token}", "--checks", "all", "--exclude-checks", ",".join(LEFT_OUT)]
            command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none"]
            command += ["--warnings", "off", "--report", "ndjson", "--report-ndjson-path", calls]
            hooked = os.environ | {"SCHEMATHESIS_HOOKS": "known_lines", "PYTHONPATH": str(CI), "SWAP": swap}
            run = subprocess.run(command, env=hooked, cwd=directory, stdout=subprocess.PIPE, text=True)
            print(run.stdout, flush=True)
            if run.returncode != 0:
                sys.exit("the service is not as described")
            count(run.stdout, calls)
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait(20)


def ready(log):
    return until("the stack is ready", lambda: re.search(r"ready at (http://127\.0\.0\.1:\d+)", log.read_text()))[1]


def mailed_swap(api, token):
    """A swap whose mail was sent, so that it can be asked again."""
    body = {"subscriptionId": "65a1b2c3d4e5f60718293a03", "eSim": True, "email": "carla@example.com", "confirmationCode": "1"}
    swap = call(f"{api}/api/SimSwapSubscription", token, json.dumps(body).encode())["id"]

    def mailed():
        found = call(f"{api}/api/QueryActivation?id={swap}", token)["results"][0]
        return found["info"].get("delivery") == "delivered"

    until("a mail is sent", mailed)
    return swap


def call(url, token, body=None):
    request = urllib.request.Request(url, body, {"authorization": f"Bearer {token}", "content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def until(what, look):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(0.1)
    sys.exit(f"not within {PATIENCE} s: {what}")


def count(summary, calls):
    """Prints what was tried, and fails if it was too little to mean anything."""
    statuses = collections.defaultdict(collections.Counter)
    described = set()
    for line in calls.open():
        scenario = json.loads(line).get("ScenarioFinished")
        # A scenario without a call has no interactions.
        if not scenario or "interactions" not in scenario["recorder"]:
            continue
        recorder = scenario["recorder"]
        if scenario["phase"] == "fuzzing":
            described.add(recorder["label"])
        for name, interaction in recorder["interactions"].items():
            case, answer = recorder["cases"][name]["value"], interaction["response"]
            if answer:
                statuses[f"{case['method']} {case['path']}"][answer["status_code"]] += 1
    for operation in sorted(described):
        seen = statuses[operation]
        print(operation, *(f"{status}×{times}" for status, times in sorted(seen.items())))
        if not seen[200]:
            sys.exit(f"{operation} was never answered with 200")
    cases = int(re.search(r"(\d+) generated", summary)[1])
    print(f"{cases} cases")
    if cases < CASES_AT_LEAST:
        sys.exit(f"fewer than {CASES_AT_LEAST} cases")


main(*sys.argv[1:])
