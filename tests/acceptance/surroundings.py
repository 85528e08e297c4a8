"""What surrounds the deployment on this machine: AWS's emulator, who issues tokens, where mail goes, and what the functions call."""

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
PATIENCE = 90


class Denied(Exception):
    """IAM refused a call of a function."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, log, environment=None):
    """A process that ends with this one, its output in a file."""
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


class Mail:
    """Takes mail over SMTP and keeps it: `taken` holds the recipient and the message of each."""

    def __init__(self):
        self.taken = []

        class Session(socketserver.StreamRequestHandler):
            def handle(session):
                session.say("220 mail")
                recipient = ""
                for line in session.rfile:
                    verb = line[:4].upper()
                    if verb == b"RCPT":
                        recipient = re.search(rb"<(.*)>", line)[1].decode()
                    if verb == b"DATA":
                        session.say("354 go on")
                        text = b"".join(iter(session.rfile.readline, b".\r\n"))
                        text = re.sub(rb"(?m)^\.\.", b".", text)
                        self.taken.append((recipient, email.message_from_bytes(text, policy=email.policy.default)))
                    session.say("221 bye" if verb == b"QUIT" else "250 ok")
                    if verb == b"QUIT":
                        return

            def say(session, line):
                session.wfile.write(line.encode() + b"\r\n")

        self.server = serve(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session))
        self.address = "127.0.0.1:%d" % self.server.server_address[1]

    def to(self, recipient):
        return [message for to, message in self.taken if to == recipient]


class Issuer:
    """Issues tokens, and shows its key over HTTPS as OpenID discovery wants it."""

    def __init__(self, directory):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self.key.public_key().public_numbers()
        jwk = {"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": encoded(number(numbers.n)), "e": encoded(number(numbers.e))}

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
        """Certificate and key, both PEM."""
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
        signed = encoded(json.dumps({"alg": "RS256", "kid": "1"}).encode()) + "." + encoded(json.dumps(claims).encode())
        return signed + "." + encoded(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))


def number(value):
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Gateway:
    """Stands between one function and AWS, passes everything on, and keeps what was asked and what IAM refused."""

    def __init__(self, aws):
        self.asked, self.denied = [], []
        port = int(aws.rsplit(":", 1)[1])

        class Pass(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(request):
                body = request.rfile.read(int(request.headers.get("content-length", 0)))
                onward = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                # The host is part of what the function signed.
                onward.request(request.command, request.path, body, dict(request.headers))
                answer = onward.getresponse()
                text = answer.read()
                headers = {name.lower(): value for name, value in request.headers.items()}
                self.asked.append((request.path, headers, body))
                if answer.status in (400, 403) and b"AccessDenied" in text:
                    self.denied.append(re.search(r"not authorized to perform: [\w:]+", text.decode())[0])
                request.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        request.send_header(name, value)
                request.send_header("content-length", str(len(text)))
                request.end_headers()
                request.wfile.write(text)
                onward.close()

            do_GET = do_POST = handle_any

            def log_message(request, *_):
                pass

        self.url = "http://127.0.0.1:%d" % serve(ThreadingHTTPServer(("127.0.0.1", 0), Pass)).server_address[1]


def send(url, body=None, headers={}):
    """Status, headers and JSON of an answer: of a POST with a body, else of a GET."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers | ({} if body is None else {"content-type": "application/json"}))
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            status, head, text = answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as refusal:
        status, head, text = refusal.code, refusal.headers, refusal.read()
    try:
        return status, head, json.loads(text) if text else None
    except ValueError:
        return status, head, text


def fail(what):
    sys.exit(f"not so: {what}")
