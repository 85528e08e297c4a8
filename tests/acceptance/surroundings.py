"""The environment of the deployment: processes, a mail server, a token issuer, and proxies in front of AWS."""

import base64
import contextlib
import datetime
import email
import email.policy
import http.client
import ipaddress
import json
import os
import re
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

REGION, ACCOUNT = "eu-central-1", "000000000000"
# Seconds.
TIMEOUT = 90


class Denied(Exception):
    """IAM rejected a call of a function."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, log, environment=None):
    """Starts a process that writes its output to a file. `stop` ends it."""
    with log.open("w") as out:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


def stop(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class MailServer:
    """Receives e-mails over SMTP. `received` has the recipient and the message of each."""

    def __init__(self):
        self.received = []

        class Session(socketserver.StreamRequestHandler):
            def handle(session):
                session.reply("220 mail")
                recipient = ""
                for line in session.rfile:
                    verb = line[:4].upper()
                    if verb == b"RCPT":
                        recipient = re.search(rb"<(.*)>", line)[1].decode()
                    if verb == b"DATA":
                        session.reply("354 go on")
                        text = b"".join(iter(session.rfile.readline, b".\r\n"))
                        text = re.sub(rb"(?m)^\.\.", b".", text)
                        self.received.append((recipient, email.message_from_bytes(text, policy=email.policy.default)))
                    session.reply("221 bye" if verb == b"QUIT" else "250 ok")
                    if verb == b"QUIT":
                        return

            def reply(session, line):
                session.wfile.write(line.encode() + b"\r\n")

        self.server = serve(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session))
        self.address = "127.0.0.1:%d" % self.server.server_address[1]

    def to(self, recipient):
        return [message for to, message in self.received if to == recipient]


class Issuer:
    """Issues tokens, and serves its public key over HTTPS as OpenID discovery requires."""

    def __init__(self, directory):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self.key.public_key().public_numbers()
        jwk = {"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": base64url(to_bytes(numbers.n)), "e": base64url(to_bytes(numbers.e))}

        class Pages(BaseHTTPRequestHandler):
            def do_GET(page):
                pages = {
                    "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/jwks.json"},
                    "/jwks.json": {"keys": [jwk]},
                }
                page.send_response(200 if page.path in pages else 404)
                page.end_headers()
                page.wfile.write(json.dumps(pages.get(page.path)).encode())

            def log_message(page, *_):
                pass

        self.certificate = directory / "issuer.pem"
        self.certificate.write_bytes(self.self_signed())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.url = "https://127.0.0.1:%d" % serve(server).server_address[1]

    def self_signed(self):
        """A self-signed certificate and its private key, in PEM."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
        builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = builder.add_extension(address, critical=False).sign(self.key, hashes.SHA256())
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + private

    def token(self, role, **claims):
        claims |= {"iss": self.url, "aud": "simswap", "sub": "acceptance", "role": role, "exp": int(time.time()) + 3600}
        signed = base64url(json.dumps({"alg": "RS256", "kid": "1"}).encode()) + "." + base64url(json.dumps(claims).encode())
        return signed + "." + base64url(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))


def to_bytes(value):
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class RecordingProxy:
    """Forwards the requests of one function to AWS. Records each request, and the calls that IAM rejected."""

    def __init__(self, aws):
        self.requests, self.denied = [], []
        port = int(aws.rsplit(":", 1)[1])

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(request):
                body = request.rfile.read(int(request.headers.get("content-length", 0)))
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
                # The headers stay as they are, because the function signed the host.
                upstream.request(request.command, request.path, body, dict(request.headers))
                response = upstream.getresponse()
                text = response.read()
                headers = {name.lower(): value for name, value in request.headers.items()}
                self.requests.append((request.path, headers, body))
                if response.status in (400, 403) and b"AccessDenied" in text:
                    self.denied.append(re.search(r"not authorized to perform: [\w:]+", text.decode())[0])
                request.send_response_only(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        request.send_header(name, value)
                request.send_header("content-length", str(len(text)))
                request.end_headers()
                request.wfile.write(text)
                upstream.close()

            do_GET = do_POST = handle_any

            def log_message(request, *_):
                pass

        self.url = "http://127.0.0.1:%d" % serve(ThreadingHTTPServer(("127.0.0.1", 0), Handler)).server_address[1]


def send(url, body=None, headers={}):
    """Sends a POST if there is a body, else a GET. Returns status code, headers and JSON of the response."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers | ({} if body is None else {"content-type": "application/json"}))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            status, response_headers, text = response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        status, response_headers, text = error.code, error.headers, error.read()
    try:
        return status, response_headers, json.loads(text) if text else None
    except ValueError:
        return status, response_headers, text


def fail(what):
    sys.exit(f"failed: {what}")
