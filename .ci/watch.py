"""The real function binaries under `cargo lambda watch`, behind the local stack: swaps to their end, and each event of
tests/events through `cargo lambda invoke`. How the functions decide is tested elsewhere.

Takes the stack's binary. The function binaries are expected to be built; cargo and cargo-lambda to be on the path."""

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
# A first call starts the binary under `cargo run`, on a machine that may be busy.
PATIENCE = 120
CODE = "8E9!#"


def main(stack_binary):
    # So that what was started is ended then, too.
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
            ready = until("the stack is ready", lambda: re.search(r"ready at (\S+)", log.read_text()))
            watch = ["cargo", "lambda", "watch", "--offline", "--ignore-changes"]
            watch += ["--invoke-address", "127.0.0.1", "--invoke-port", port, "--env-file", str(data / "functions.env")]
            start(running, watch, directory / "watch.log")
            until("cargo lambda watch listens", lambda: listens(port))

            token = subprocess.check_output([stack_binary, "token", "ADMIN", "--data-dir", str(data)], text=True)
            world = World(ready[1], token.strip(), port)
            world.esim_swap()
            world.physical_swap()
            swap = world.invoked_swap()
            world.callbacks_and_stream_records(swap)
            world.watch_routes()
        except BaseException:
            for log in sorted(directory.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()}", file=sys.stderr)
            raise
        finally:
            # As Ctrl-C does; watch takes its functions with it.
            for process in reversed(running):
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


class World:
    """A stack whose functions run under `cargo lambda watch`, and an ADMIN who calls its API."""

    def __init__(self, api, token, port):
        self.api, self.token, self.port = api, token, port

    def esim_swap(self):
        """Through the API: INIT, BUSY, the mail, the phone, DONE."""
        body = {"subscriptionId": "65a1b2c3d4e5f60718293a01", "eSim": True}
        status, answer = self.call("/api/SimSwapSubscription", body | {"email": "anna@example.com", "confirmationCode": CODE})
        expect(status == 200 and answer["status"] == "INIT", "an eSIM swap is taken", answer)
        self.install_and_finish(answer["id"])

    def physical_swap(self):
        """Through the API: INIT, DONE."""
        body = {"subscriptionId": "65a1b2c3d4e5f60718293a03", "newSimCardNumber": "8931086000000001011"}
        status, answer = self.call("/api/SimSwapSubscription", body)
        expect(status == 200 and answer["status"] == "INIT", "a physical swap is taken", answer)
        self.await_status(answer["id"], "DONE")

    def invoked_swap(self):
        """By the events of the functions that callers reach; gives the swap's id."""
        answer = self.invoke("submit-swap", "submit-swap.json")
        expect(answer["statusCode"] == 200, "submit-swap takes its event", answer)
        swap = json.loads(answer["body"])["id"]
        answer = self.invoke("query-activation", "query-activation.json")
        found = [result["id"] for result in json.loads(answer["body"])["results"]]
        expect(answer["statusCode"] == 200 and found == [swap], "query-activation takes its event", answer)
        self.install_and_finish(swap)
        answer = self.invoke("change-sim", "change-sim.json")
        sim = json.loads(answer["body"])["mvnoSim"]["simNumber"]
        expect((answer["statusCode"], sim) == (200, "1234567890123456789"), "change-sim takes its event", answer)
        return swap

    def callbacks_and_stream_records(self, swap):
        """As the files are, of a swap that nobody knows; then of one that is done. Neither is an error, nor changes anything."""
        before = self.activation(swap)
        unknown = json.loads((EVENTS / "fulfil-swap.json").read_text())["Records"][0]["dynamodb"]["Keys"]["pk"]["S"][2:]
        for named in (unknown, swap):
            for event, status in [("network-events", 204), ("network-events-downloaded", 204), ("network-events-order", 201)]:
                answer = self.invoke("network-events", f"{event}.json", unknown, named)
                expect(answer["statusCode"] == status, f"network-events takes {event}.json", answer)
            for function in ["fulfil-swap", "deliver-esim"]:
                answer = self.invoke(function, f"{function}.json", unknown, named)
                expect(answer == {"batchItemFailures": []}, f"{function} takes its event", answer)
            answer = self.invoke("mail-events", "mail-events.json", unknown, named)
            expect(answer is None, "mail-events takes its event", answer)
            answer = self.invoke("manage-swap", "manage-swap.json", unknown, named)
            expect(answer["statusCode"] == (409 if named == swap else 404), "manage-swap takes its event", answer)
        answer = self.invoke("sweep-swaps", "sweep-swaps.json")
        expect(answer["overdue"] == 0, "sweep-swaps takes its event", answer)
        expect(self.activation(swap) == before and len(self.mails(swap)) == 1, "a repeat changes nothing", before)

    def watch_routes(self):
        """Watch's own router reaches a function, which refuses who has no claims."""
        watch = f"http://127.0.0.1:{self.port}"
        for path, body, expected in [
            ("/api/SimSwapSubscription", {}, 403),
            ("/api/QueryActivation", None, 403),
            ("/api/CancelActivation", {}, 403),
            ("/api/ResendEsim", {}, 403),
            ("/mvno/1234567890abcdef12345678/changesim/eSim", None, 403),
            ("/mvno/1234567890abcdef12345678/changesim/eSim", {}, 403),
            ("/gsma/rsp2/es2plus/handleDownloadProgressInfo", {}, 400),
            ("/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent", {}, 400),
        ]:
            status, answer = send(watch + path, body, {})
            expect(status == expected, f"watch serves {path}", (status, answer))

    def install_and_finish(self, swap):
        busy = self.await_status(swap, "BUSY")
        expect(busy.get("providerOrderNumber"), "the network has an order", busy)
        mail = until("a mail comes", lambda: self.mails(swap))[0]
        with urllib.request.urlopen(f"{self.api}/local/mail/{mail['id']}") as raw:
            text = email.message_from_binary_file(raw, policy=email.policy.default).get_body(("plain",)).get_content()
        code = re.search(r"LPA:1\$\S+", text)[0]
        body = {"activationCode": code, "confirmationCode": CODE}
        status, answer = self.call("/local/phone/install", body)
        expect(status == 200, "the phone installs the eSIM", answer)
        self.await_status(swap, "DONE")
        done = until("SES has told of the mail", lambda: (a := self.activation(swap))["info"]["delivery"] == "delivered" and a)
        expect(done.get("activatedDate"), "the swap is dated", done)

    def await_status(self, swap, status):
        return until(f"{swap} is {status}", lambda: (a := self.activation(swap))["status"] == status and a)

    def activation(self, swap):
        status, answer = self.call(f"/api/QueryActivation?id={swap}")
        expect(status == 200 and answer["total"] == 1, None, answer)
        return answer["results"][0]

    def mails(self, swap):
        return [mail for mail in self.call("/local/mail")[1] if mail["activationId"] == swap]

    def call(self, path, body=None):
        return send(self.api + path, body, {"authorization": f"Bearer {self.token}"})

    def invoke(self, function, event, swap="", instead=""):
        """What `cargo lambda invoke` prints for an event that names `instead` where its file names `swap`."""
        text = (EVENTS / event).read_text()
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(text.replace(swap, instead) if swap else text)
            file.flush()
            command = ["cargo", "lambda", "invoke", function, "--invoke-address", "127.0.0.1"]
            command += ["--invoke-port", self.port, "--data-file", file.name]
            return json.loads(subprocess.check_output(command, text=True, timeout=PATIENCE))


def start(running, command, log):
    with log.open("w") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    running.append(process)
    return log


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def send(url, body, headers):
    """Status and JSON of an answer: of a POST with a body, else of a GET."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers | {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        status, text = refusal.code, refusal.read()
    return status, json.loads(text) if text else None


def until(what, look):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if seen := look():
            print(f"ok: {what}", flush=True)
            return seen
        time.sleep(0.1)
    sys.exit(f"not within {PATIENCE} s: {what}")


def expect(fits, what, seen):
    if not fits:
        sys.exit(f"not so: {what}: {seen}")
    if what:
        print(f"ok: {what}", flush=True)


main(sys.argv[1])
