"""Hooks of schemathesis: puts lines, cards, keys and a swap that the local stack knows in the place of made-up ones.

What is made up is refused as unknown at once. Only what is well-formed is replaced: faults stay as they were made.
"""

import os
import re
import zlib

import schemathesis

LINES = [
    ("65a1b2c3d4e5f60718293a01", "06-12345601"),
    ("65a1b2c3d4e5f60718293a02", "0612345602"),
    ("65a1b2c3d4e5f60718293a03", "+31612345603"),
    ("1234567890abcdef12345678", "+4520123401"),
    ("65a1b2c3d4e5f60718293a05", "004520123405"),
    ("65a1b2c3d4e5f60718293a06", "06-12345606"),
    ("65a1b2c3d4e5f60718293a07", "06-12345607"),
    ("65a1b2c3d4e5f60718293a08", "06-12345608"),
]
CARDS = ["8931086000000001011", "8931086000000001029", "8945020000000001010", "8945010000000001012", "1234567890123456789"]


@schemathesis.hook
def map_body(context, body):
    return known(body)


@schemathesis.hook
def map_query(context, query):
    if context.operation.path == "/api/ResendEsim" and query:
        return replaced(query, {"id": (r"[A-Za-z0-9_-]{1,64}", os.environ["SWAP"])})
    return known(query)


@schemathesis.hook
def map_path_parameters(context, parameters):
    return known(parameters)


@schemathesis.hook
def map_headers(context, headers):
    return known(headers)


@schemathesis.hook
def before_call(context, case, **kwargs):
    """The swap that mails are asked of stays open: schemathesis takes ids from answers, too."""
    if case.path == "/api/CancelActivation" and case.query.get("id") == os.environ["SWAP"]:
        case.query["id"] = "another"


def known(given):
    """The same given brings the same known: runs can be repeated."""
    if not isinstance(given, dict):
        return given
    digest = zlib.crc32(repr(given).encode())
    if digest % 4 == 0:
        return given
    line, phone = LINES[digest // 4 % len(LINES)]
    card = CARDS[digest // 64 % len(CARDS)]
    instead = {
        "subscriptionId": (r"[A-Za-z0-9_-]{1,64}", line),
        "accountId": (r"[0-9A-Fa-f]{24}", line),
        "phoneNumber": (r"[+0][0-9 -]*[0-9]", phone),
        "newSimCardNumber": (r"[0-9]{11,20}F?", card),
        "newSim": (r"[0-9]{11,20}F?", card),
        "Idempotency-Key": (r"[!-~]{1,255}", f"key-{digest // 1024 % 100}"),
    }
    return replaced(given, instead)


def replaced(given, instead):
    """`instead` has for a name what is well-formed, and what takes its place."""
    result = {}
    for name, value in given.items():
        pattern, other = instead.get(name, ("", None))
        fits = other is not None and isinstance(value, str) and re.fullmatch(pattern, value)
        result[name] = other if fits else value
    return result
