"""Swaps a line to an eSIM: submits the swap, polls it, sends the QR code again, cancels, and handles errors.

Needs Python 3.11 or later, and nothing else. README.md in this folder says how to run it.
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

URL = os.environ.get("SIMSWAP_URL", "").rstrip("/")
TOKEN = os.environ.get("SIMSWAP_TOKEN", "")

# All times are in seconds. The service itself may take 28 seconds to respond.
RESPONSE_TIMEOUT = 30
ATTEMPTS = 5
LONGEST_PAUSE = 10
POLL_INTERVAL = 5
POLL_LIMIT = 300


class ApiError(Exception):
    """A response that is not a 200. `code` is None if API Gateway has sent it."""

    def __init__(self, response):
        self.status, text = response.code, response.read()
        try:
            body = json.loads(text)
        except ValueError:
            body = {}
        body = body if isinstance(body, dict) else {}
        details = body.get("responseStatus", {})
        self.code, self.fields = details.get("errorCode"), details.get("errors", [])
        self.message = details.get("message") or body.get("message") or "no message"
        retry_after = response.headers["Retry-After"]
        self.retry_after = int(retry_after) if retry_after and retry_after.isdigit() else None
        super().__init__(f"{self.status} {self.code or 'from API Gateway'}: {self.message}")

    def pause(self, default):
        """The time after which to send the request again, or None if that would not help."""
        is_temporary = self.status in (500, 503) or self.status == 429 and self.code is None
        return self.retry_after or (default if is_temporary else None)


def send(method, path, key=None, body=None):
    """Sends a request, again if that may help. All attempts have the same key, so they count as one request."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    data = json.dumps(body).encode() if body else None
    for attempt in range(1, ATTEMPTS + 1):
        request = urllib.request.Request(URL + path, data, headers, method=method)
        pause = 2 ** (attempt - 1)
        try:
            with urllib.request.urlopen(request, timeout=RESPONSE_TIMEOUT) as response:
                return json.load(response)
        except urllib.error.HTTPError as response:
            error = ApiError(response)
            pause = error.pause(pause)
        except (OSError, http.client.HTTPException) as failure:
            error = failure
        if pause is None or pause > LONGEST_PAUSE or attempt == ATTEMPTS:
            raise error
        print(f"Attempt {attempt} failed ({error}). The next one follows in {pause} s.")
        time.sleep(pause)


def submit(key, swap):
    return send("POST", "/api/SimSwapSubscription", key, swap)


def query(swap_id):
    return send("GET", f"/api/QueryActivation?id={urllib.parse.quote(swap_id)}")["results"][0]


def resend(key, swap_id, email=None):
    """Sends the QR code again, to another address if `email` is given."""
    return send("POST", f"/api/ResendEsim?id={urllib.parse.quote(swap_id)}", key, {"email": email})


def cancel(key, swap_id):
    return send("POST", f"/api/CancelActivation?id={urllib.parse.quote(swap_id)}", key)


def poll_until(swap_id, is_reached):
    """Polls a swap until `is_reached` holds for it."""
    deadline = time.monotonic() + POLL_LIMIT
    while not is_reached(swap := query(swap_id)):
        if time.monotonic() + POLL_INTERVAL > deadline:
            sys.exit(f"The swap is {swap['status']} after {POLL_LIMIT} s. Poll it once a minute from now on.")
        time.sleep(POLL_INTERVAL)
    return swap


def is_mailed_or_over(swap):
    return swap["info"].get("delivery", "pending") != "pending" or swap["status"] in ("DONE", "ERROR")


def expect_error(status, call, *arguments):
    """Makes a call that has to fail with this status code, and returns the error."""
    try:
        sys.exit(f"Expected a {status}, got the response {call(*arguments)}")
    except ApiError as error:
        expect(error.status == status, f"Expected a {status}, got {error}")
        return error


def expect(holds, otherwise):
    if not holds:
        sys.exit(otherwise)


def main(line):
    request = {"subscriptionId": line, "eSim": True, "email": "customer@example.com", "confirmationCode": "8E9!#"}

    # A 400 lists all faulty fields at once.
    error = expect_error(400, submit, str(uuid.uuid4()), {**request, "email": "", "confirmationCode": "12345678901"})
    for field in error.fields:
        print(f"Faulty field {field['fieldName']}: {field['message']}")
    names = {field["fieldName"] for field in error.fields}
    expect(names == {"email", "confirmationCode"}, "Expected two faulty fields.")

    # Store the key before you send the request. If your process ends before the response arrives, send the same request
    # with the same key again: the response contains the swap, and no second one begins.
    key = str(uuid.uuid4())
    swap = submit(key, request)
    print(f"The swap {swap['id']} is {swap['status']}.")
    expect(submit(key, request) == swap, "A repeated request has the same response.")

    # Another request for the line gets a 409 with the id of the open swap, which may have been submitted elsewhere.
    error = expect_error(409, submit, str(uuid.uuid4()), request)
    expect(error.code == "SwapInProgress", f"Expected SwapInProgress, got {error}")
    open_id = error.fields[0]["meta"]["activationId"]
    print(f"The line already has the open swap {open_id}.")
    expect(open_id == swap["id"], "The open swap is another one.")

    swap = poll_until(swap["id"], is_mailed_or_over)
    delivery = swap["info"].get("delivery")
    print(f"The swap is {swap['status']}, and its e-mail is {delivery}.")
    expect(swap["status"] == "BUSY" and delivery in ("sent", "delivered"), f"Expected an e-mail, got {swap}")

    resend(str(uuid.uuid4()), swap["id"])
    print("The QR code is sent again.")
    # Another e-mail within a minute gets a 429. `Retry-After` is longer than a program should wait: tell a person.
    error = expect_error(429, resend, str(uuid.uuid4()), swap["id"])
    expect(error.retry_after and error.retry_after > LONGEST_PAUSE, f"Expected a longer Retry-After in {error}")
    print("The QR code can be sent again in a minute.")

    # The response to a cancel request may come before the swap has ended.
    cancel(str(uuid.uuid4()), swap["id"])
    swap = poll_until(swap["id"], lambda swap: swap["status"] in ("DONE", "ERROR"))
    failure = swap["info"].get("failure", {})
    print(f"The swap is {swap['status']}: {failure.get('message')}")
    expect(failure.get("code") == "cancelled", f"Expected the failure code cancelled, got {swap}")


if __name__ == "__main__":
    if not URL or not TOKEN or len(sys.argv) != 2:
        sys.exit("Set SIMSWAP_URL and SIMSWAP_TOKEN, and give the id of a line: swap_sim.py 65a1b2c3d4e5f60718293a01")
    try:
        main(sys.argv[1])
    except ApiError as error:
        sys.exit(f"{URL} has responded with {error}")
    except (OSError, http.client.HTTPException) as failure:
        sys.exit(f"{URL} cannot be reached: {getattr(failure, 'reason', failure)}")
    except ValueError as fault:
        sys.exit(f"{URL} is not the URL of the service: {fault}")
