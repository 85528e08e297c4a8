"""Runs the function binaries under `cargo lambda watch`, behind the local stack: whole swaps, and every event in
tests/events through `cargo lambda invoke`. Other tests check the decisions of the functions.

Usage: watch.py SIMSWAP, the path of the stack's binary. The function binaries must be built, and cargo and cargo-lambda must
be on the path.
"""

import email
import email.policy
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

EVENTS = pathlib.Path("tests/events")
# Seconds to wait for each condition. The first call of a function starts `cargo run`, perhaps on a busy machine.
TIMEOUT = 120
CODE = "8E9!#"


def main(stack_binary):
    # Makes the `finally` below stop the started processes on SIGTERM too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with tempfile.TemporaryDirectory(prefix="simswap-ci-") as directory:
        directory = pathlib.Path(directory)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        running = []
        try:
            data = directory / "data"
            functions = f"http://127.0.0.1:{port}"
            stack = [stack_binary, "--port", "0", "--data-dir", str(data), "--functions-url", functions]
            log = start(running, stack, directory / "stack.log")
            ready = wait_for("the stack is ready", lambda: re.search(r"ready at (\S+)", log.read_text()))
            watch = ["cargo", "lambda", "watch", "--offline", "--ignore-changes"]
            watch += ["--invoke-address", "127.0.0.1", "--invoke-port", port, "--env-file", str(data / "functions.env")]
            start(running, watch, directory / "watch.log")
            wait_for("cargo lambda watch listens", lambda: listens(port))

            token = subprocess.check_output([stack_binary, "token", "ADMIN", "--data-dir", str(data)], text=True)
            test_stack = TestStack(ready[1], token.strip(), port)
            test_stack.esim_swap()
            test_stack.card_swap()
            swap = test_stack.swap_by_events()
            test_stack.callbacks_and_stream_records(swap)
            test_stack.watch_routes()
        except BaseException:
            for log in sorted(directory.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()}", file=sys.stderr)
            raise
        finally:
            # The signal of Ctrl-C, on which `cargo lambda watch` also stops its functions.
            for process in reversed(running):
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


class TestStack:
    """A local stack whose functions run under `cargo lambda watch`, with the token of an ADMIN."""

    def __init__(self, api, token, port):
        self.api, self.token, self.port = api, token, port

    def esim_swap(self):
        """Swaps a line to an eSIM through the API: INIT, BUSY, e-mail, installation, DONE."""
        body = {"subscriptionId": "65a1b2c3d4e5f60718293a01", "eSim": True}
        status, response = self.call("/api/SimSwapSubscription", body | {"email": "anna@example.com", "confirmationCode": CODE})
        expect(status == 200 and response["status"] == "INIT", "an eSIM swap is accepted", response)
        self.install_and_finish(response["id"])

    def card_swap(self):
        """Swaps a line to a card through the API: INIT, DONE."""
        body = {"subscriptionId": "65a1b2c3d4e5f60718293a03", "newSimCardNumber": "8931086000000001011"}
        status, response = self.call("/api/SimSwapSubscription", body)
        expect(status == 200 and response["status"] == "INIT", "a card swap is accepted", response)
        self.await_status(response["id"], "DONE")

    def swap_by_events(self):
        """Invokes the functions behind the API with their events, and returns the id of the swap."""
        response = self.invoke("submit-swap", "submit-swap.json")
        expect(response["statusCode"] == 200, "submit-swap accepts its event", response)
        swap = json.loads(response["body"])["id"]
        response = self.invoke("query-activation", "query-activation.json")
        found = [result["id"] for result in json.loads(response["body"])["results"]]
        expect(response["statusCode"] == 200 and found == [swap], "query-activation accepts its event", response)
        self.install_and_finish(swap)
        response = self.invoke("change-sim", "change-sim.json")
        sim = json.loads(response["body"])["mvnoSim"]["simNumber"]
        expect((response["statusCode"], sim) == (200, "1234567890123456789"), "change-sim accepts its event", response)
        return swap

    def callbacks_and_stream_records(self, swap):
        """Invokes the other functions with their events: for an unknown swap, as in the files, and for a finished swap.

        Neither is an error, and neither changes anything.
        """
        before = self.activation(swap)
        unknown = json.loads((EVENTS / "fulfil-swap.json").read_text())["Records"][0]["dynamodb"]["Keys"]["pk"]["S"][2:]
        for target in (unknown, swap):
            for event, status in [("network-events", 204), ("network-events-downloaded", 204), ("network-events-order", 201)]:
                response = self.invoke("network-events", f"{event}.json", unknown, target)
                expect(response["statusCode"] == status, f"network-events accepts {event}.json", response)
            for function in ["fulfil-swap", "deliver-esim"]:
                response = self.invoke(function, f"{function}.json", unknown, target)
                expect(response == {"batchItemFailures": []}, f"{function} accepts its event", response)
            response = self.invoke("mail-events", "mail-events.json", unknown, target)
            expect(response is None, "mail-events accepts its event", response)
            response = self.invoke("manage-swap", "manage-swap.json", unknown, target)
            expect(response["statusCode"] == (409 if target == swap else 404), "manage-swap accepts its event", response)
        response = self.invoke("sweep-swaps", "sweep-swaps.json")
        expect(response["overdue"] == 0, "sweep-swaps accepts its event", response)
        expect(self.activation(swap) == before and len(self.mails(swap)) == 1, "repeated events change nothing", before)

    def watch_routes(self):
        """Calls the router of `cargo lambda watch`, behind which the functions reject a request without claims."""
        watch = f"http://127.0.0.1:{self.port}"
        for path, body, expected in [
            ("/api/SimSwapSubscription", {}, 403),
            ("/api/QueryActivation", None, 403),
            ("/api/CancelActivation", {}, 403),
            ("/api/ResendEsim", {}, 403),
            ("/api/RenewEsim", {}, 403),
            ("/api/ReportInstalled", {}, 403),
            ("/mvno/1234567890abcdef12345678/changesim/eSim", None, 403),
            ("/mvno/1234567890abcdef12345678/changesim/eSim", {}, 403),
            ("/gsma/rsp2/es2plus/handleDownloadProgressInfo", {}, 400),
            ("/gsma/rsp2/es2plus/handleNotification", {}, 400),
            ("/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent", {}, 400),
        ]:
            status, response = send(watch + path, body, {})
            expect(status == expected, f"cargo lambda watch serves {path}", (status, response))

    def install_and_finish(self, swap):
        busy = self.await_status(swap, "BUSY")
        expect(busy.get("providerOrderNumber"), "the network has accepted the order", busy)
        mail = wait_for("an e-mail arrives", lambda: self.mails(swap))[0]
        with urllib.request.urlopen(f"{self.api}/local/mail/{mail['id']}") as raw:
            text = email.message_from_binary_file(raw, policy=email.policy.default).get_body(("plain",)).get_content()
        code = re.search(r"LPA:1\$\S+", text)[0]
        body = {"activationCode": code, "confirmationCode": CODE}
        status, response = self.call("/local/phone/install", body)
        expect(status == 200, "the phone installs the eSIM", response)
        self.await_status(swap, "DONE")
        done = wait_for(
            "SES reports the delivery of the e-mail",
            lambda: (a := self.activation(swap))["info"]["delivery"] == "delivered" and a,
        )
        expect(done.get("activatedDate"), "the swap has an activation date", done)

    def await_status(self, swap, status):
        return wait_for(f"{swap} is {status}", lambda: (a := self.activation(swap))["status"] == status and a)

    def activation(self, swap):
        status, response = self.call(f"/api/QueryActivation?id={swap}")
        expect(status == 200 and response["total"] == 1, None, response)
        return response["results"][0]

    def mails(self, swap):
        return [mail for mail in self.call("/local/mail")[1] if mail["activationId"] == swap]

    def call(self, path, body=None):
        return send(self.api + path, body, {"authorization": f"Bearer {self.token}"})

    def invoke(self, function, event, swap="", replacement=""):
        """Invokes a function with an event, in which `replacement` replaces the id `swap`, and returns its response."""
        text = (EVENTS / event).read_text()
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(text.replace(swap, replacement) if swap else text)
            file.flush()
            command = ["cargo", "lambda", "invoke", function, "--invoke-address", "127.0.0.1"]
            command += ["--invoke-port", self.port, "--data-file", file.name]
            return json.loads(subprocess.check_output(command, text=True, timeout=TIMEOUT))


def start(running, command, log):
    with log.open("w") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    running.append(process)
    return log


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def send(url, body, headers):
    """Sends a POST if there is a body, else a GET. Returns the status code and the JSON of the response."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers | {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    return status, json.loads(text) if text else None


def wait_for(condition, poll):
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if result := poll():
            print(f"ok: {condition}", flush=True)
            return result
        time.sleep(0.1)
    sys.exit(f"timed out after {TIMEOUT} s: {condition}")


def expect(holds, what, actual):
    if not holds:
        sys.exit(f"failed: {what}: {actual}")
    if what:
        print(f"ok: {what}", flush=True)


main(sys.argv[1])
