"""POST /api/SimSwapSubscription, for an eSIM."""

import json
import re

from keys import sign
from runtime import answer
from swap import begin
from table import barrier, caller_of, get, may_see
from view import view


def faulty(field):
    return answer(400, {"responseStatus": {"errorCode": "ValidationException", "errors": [{"fieldName": field}]}})


def refused(status, code):
    return answer(status, {"responseStatus": {"errorCode": code}})


def handler(event, _context):
    caller = caller_of(event)
    body = json.loads(event["body"])
    subscription, email, code = body.get("subscriptionId"), body.get("email"), body.get("confirmationCode")
    reference = body.get("referenceNumber", "")
    if not isinstance(subscription, str) or not subscription:
        return faulty("subscriptionId")
    if body.get("eSim") is not True:
        return faulty("eSim")
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", email or ""):
        return faulty("email")
    if not re.fullmatch(r"[\x21-\x7e]{1,10}", code or ""):
        return faulty("confirmationCode")
    if len(reference) > 15:
        return faulty("referenceNumber")

    line = get(f"L#{subscription}", "line")
    if line is None or not may_see(caller, line):
        return refused(404, "NotFound")
    if barrier(line):
        return refused(409, "Conflict")
    canonical = json.dumps([subscription, reference, True, email, code, None], separators=(",", ":"), ensure_ascii=False)
    asked = {"eSim": True, "email": email, "hasCode": True}
    if reference:
        asked["reference"] = reference
    swap = begin(caller, line, "esim", asked, code=code, request=sign("request", canonical))
    return answer(200, view(swap, code)) if swap else refused(404, "NotFound")
