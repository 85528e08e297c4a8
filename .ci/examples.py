"""Runs the client examples and the Bruno collection of infra/examples against the local stack.

Usage: examples.py SIMSWAP MODULES, the path of the stack's binary and the directory of the npm packages. node, mono and
mcs must be on the path.
"""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import urllib.error
import urllib.request

from local_stack import TIMEOUT, local_stack

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "infra" / "examples"
LINES = ["65a1b2c3d4e5f60718293a01", "65a1b2c3d4e5f60718293a02", "65a1b2c3d4e5f60718293a03"]
UNAVAILABLE = b'{"responseStatus":{"errorCode":"Unavailable","message":"Not available now.","errors":[]}}'
SUBMIT, QUERY = "/api/SimSwapSubscription", "/api/QueryActivation"


def main(simswap, modules):
    modules = pathlib.Path(modules)
    with local_stack(simswap) as stack:
        token = stack.admin()
        for line, command in zip(LINES, build_examples(stack.directory, modules), strict=True):
            run_example(command, line, stack.api, token)
        run_collection(modules, stack.api, token)


def build_examples(directory, modules):
    """Compiles the examples, and returns the commands that run them."""
    # Later versions of Node run TypeScript whose types can be erased.
    tsc = ["node", modules / "typescript/bin/tsc", "--strict", "--noUnusedLocals", "--erasableSyntaxOnly"]
    tsc += ["--target", "es2022", "--module", "nodenext", "--types", "node", "--typeRoots", modules / "@types"]
    subprocess.run([*tsc, "--outDir", directory, EXAMPLES / "swap-sim.ts"], check=True)
    mcs = ["mcs", "-warnaserror", "-r:System.Net.Http.dll", "-r:System.Runtime.Serialization.dll"]
    subprocess.run([*mcs, f"-out:{directory / 'SwapSim.exe'}", EXAMPLES / "SwapSim.cs"], check=True)
    return [
        [sys.executable, EXAMPLES / "swap_sim.py"],
        ["node", directory / "swap-sim.js"],
        ["mono", directory / "SwapSim.exe"],
    ]


def run_example(command, line, api, token):
    """Runs an example through a proxy with faults, and expects exactly one swap. Then runs it where it has to fail."""
    print(f"-- {command[-1].name}", flush=True)
    with FaultyProxy(api) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        environment = os.environ | {"SIMSWAP_URL": f"http://127.0.0.1:{proxy.server_port}", "SIMSWAP_TOKEN": token}
        subprocess.run([*command, line], env=environment, check=True, timeout=TIMEOUT)
        proxy.shutdown()
    expect(proxy.faults == [], f"faults that the example did not meet: {proxy.faults}")
    expect(len(proxy.lost_keys) == 1, f"keys of the submit whose response was lost: {proxy.lost_keys}")
    page = json.loads(send("GET", f"{api}{QUERY}?subscriptionId={line}", {"Authorization": f"Bearer {token}"})[2])
    expect(page["total"] == 1, f"the example began {page['total']} swaps")
    expect_failure(command, line, api, "wrong", "401 from API Gateway: Unauthorized")
    expect_failure(command, "unknown", api, token, f"{api} has responded with 404 NotFound: ")
    # The proxy has been closed.
    closed = f"http://127.0.0.1:{proxy.server_port}"
    expect_failure(command, line, closed, token, f"{closed} cannot be reached: ")


def expect_failure(command, line, url, token, words):
    """Runs an example, which has to fail with one sentence that contains these words."""
    environment = os.environ | {"SIMSWAP_URL": url, "SIMSWAP_TOKEN": token}
    run = subprocess.run([*command, line], env=environment, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT)
    is_sentence = words in run.stderr and run.stderr.count("\n") == 1
    expect(run.returncode == 1 and is_sentence, f"expected {words!r} and nothing else, got {run}")


def run_collection(modules, api, token):
    """Runs the requests of the Bruno collection, in an order in which each gets a 200."""
    print("-- Bruno", flush=True)
    opening = ["subscription/SimSwapSubscription.bru", "subscription/QueryActivation.bru"]
    changes = [f"subscription/{name}.bru" for name in ("ResendEsim", "RenewEsim", "CancelActivation")]
    runs = [opening + changes, opening + ["subscription/ReportInstalled.bru"], ["account"]]
    for line, requests in zip(LINES, runs):
        command = ["node", modules / ".bin/bru", "run", *requests, "--env", "local"]
        for name, value in {"url": api, "token": token, "line": line}.items():
            command += ["--env-var", f"{name}={value}"]
        run = subprocess.run(command, cwd=EXAMPLES / "bruno", timeout=TIMEOUT)
        expect(run.returncode == 0, "a request of the collection")


class FaultyProxy(http.server.ThreadingHTTPServer):
    """Passes requests on to the stack, and causes each of `faults` once, in this order."""

    daemon_threads = True

    def __init__(self, api):
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = api
        self.faults = ["lose the response to an accepted submit", "503 to its retry", "429 to a query"]
        self.lost_keys = set()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.pass_on()

    def do_GET(self):
        self.pass_on()

    def pass_on(self):
        faults, key = self.server.faults, self.headers["Idempotency-Key"]
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        fault = faults[0] if faults else ""
        if fault.startswith("503") and self.path == SUBMIT:
            self.server.lost_keys.add(key)
            faults.pop(0)
            return self.respond(503, {"Retry-After": "1"}, UNAVAILABLE)
        if fault.startswith("429") and self.path.startswith(QUERY):
            faults.pop(0)
            return self.respond(429, {}, b'{"message":"Too Many Requests"}')
        headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection", "Expect")}
        status, headers, text = send(self.command, self.server.api + self.path, headers, body or None)
        if fault.startswith("lose") and self.path == SUBMIT and status == 200:
            self.server.lost_keys.add(key)
            faults.pop(0)
            self.close_connection = True
            return None
        kept = {name: headers[name] for name in ("Retry-After", "Idempotency-Replayed") if name in headers}
        return self.respond(status, kept, text)

    def respond(self, status, headers, body):
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def send(method, url, headers, body=None):
    """Returns the status code, the headers and the body of the response."""
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def expect(holds, otherwise):
    if not holds:
        sys.exit(f"failed: {otherwise}")


main(*sys.argv[1:])
