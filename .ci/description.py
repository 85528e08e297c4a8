"""Checks the local stack against infra/openapi.yaml, with thousands of calls, valid and invalid from schemathesis.

Usage: description.py SIMSWAP SCHEMATHESIS, the paths of the two commands.
"""

import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.request

from local_stack import TIMEOUT, local_stack, wait_for

CI = pathlib.Path(__file__).resolve().parent
DESCRIPTION = CI.parent / "infra" / "openapi.yaml"
MINIMUM_CASES = 5000
# Random cases per operation. Cases from boundary values and links are added to these.
EXAMPLES = 600


def main(simswap, schemathesis):
    with local_stack(simswap) as stack:
        token = stack.admin()
        swap = create_mailed_swap(stack.api, token, "65a1b2c3d4e5f60718293a03")
        reported_swap = create_mailed_swap(stack.api, token, "65a1b2c3d4e5f60718293a02")
        calls = stack.directory / "calls.ndjson"
        # One worker only: with more, the parser of CPython 3.11 occasionally fails.
        # Not `unsupported_method`: API Gateway responds with 404 to a method that a path does not have.
        command = [schemathesis, "--config-file", CI / "schemathesis.toml", "--no-color", "run", DESCRIPTION, "--url", stack.api]
        command += ["--header", f"Authorization: Bearer {token}", "--checks", "all", "--exclude-checks", "unsupported_method"]
        command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none"]
        command += ["--warnings", "off", "--report", "ndjson", "--report-ndjson-path", calls]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "known_lines", "PYTHONPATH": str(CI)}
        environment |= {"SWAP": swap, "REPORTED_SWAP": reported_swap}
        run = subprocess.run(command, env=environment, cwd=stack.directory, stdout=subprocess.PIPE, text=True)
        print(run.stdout, flush=True)
        if run.returncode != 0:
            sys.exit("the local stack does not match infra/openapi.yaml")
        check_coverage(run.stdout, calls)


def create_mailed_swap(api, token, line):
    """Creates a swap of this line whose e-mail was sent, so that its QR code can be sent again. Returns the swap's id."""
    body = {"subscriptionId": line, "eSim": True, "email": "carla@example.com", "confirmationCode": "1"}
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
