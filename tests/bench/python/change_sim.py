"""GET and POST /mvno/{accountId}/changesim/autoAssign"""

import re

from keys import open_sealed
from runtime import answer
from swap import begin
from table import barrier, caller_of, get, may_see


def refused(status, message):
    return answer(status, {"success": False, "error": {"message": message}})


def handler(event, _context):
    caller = caller_of(event)
    account, wanted = event["pathParameters"]["accountId"], event["pathParameters"]["newSim"]
    if not re.fullmatch(r"[0-9a-fA-F]{24}", account):
        return refused(404, "account")
    if wanted != "autoAssign":
        return refused(404, "sim")
    line = get(f"L#{account.lower()}", "line")
    if line is None or not may_see(caller, line):
        return refused(404, "account")
    if barrier(line):
        return refused(409, "state")
    swap = begin(caller, line, "physical", {})
    if swap is None:
        return refused(404, "sim")
    sim = get(f"S#{swap['newSim']}", "sim")

    def secret(field):
        return open_sealed(sim["pk"], field, sim[field]) if field in sim else ""

    view = {
        "simNumber": swap["newSim"],
        "imsi": sim.get("imsi", ""),
        "network": sim["network"],
        "puk1": secret("puk1"),
        "puk2": secret("puk2"),
        "pin1": secret("pin1"),
        "pin2": secret("pin2"),
        "formFactor": sim["form"],
    }
    return answer(200, {"success": True, "mvnoSim": view})
