"""An activation as the API returns it."""

from datetime import datetime
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("Europe/Amsterdam")
SHOWN = {
    "accepted": "INIT", "ordering": "INIT", "ordered": "BUSY", "started": "BUSY", "done": "DONE", "error": "ERROR",
}


def view(swap, code=None, mail=None):
    shown = {
        "id": swap["pk"].removeprefix("A#"),
        "createdAt": time(swap["createdAt"]),
        "modifiedAt": time(max(swap["modifiedAt"], mail["modifiedAt"] if mail else 0)),
        "status": SHOWN.get(swap["phase"]) or ("BUSY" if "orderNumber" in swap else "INIT"),
        "activationType": "SIMSWAP",
        "referenceNumber": swap.get("reference", ""),
        "subscriptionId": swap["line"],
        "providerOrderNumber": swap.get("orderNumber"),
        "phoneNumber": swap["phone"].replace("+316", "06-", 1),
        "activatedDate": time(swap["activatedAt"]) if "endedAt" in swap and "activatedAt" in swap else None,
        "info": present(
            {
                "eSim": swap.get("eSim"),
                "email": swap.get("email"),
                "confirmationCode": (code or "##########") if swap.get("hasCode") else None,
                "newSimCardNumber": swap.get("newSimGiven"),
                "delivery": mail["state"] if mail else None,
                "profile": swap.get("profile"),
            }
        ),
    }
    return present(shown)


def time(millis):
    return datetime.fromtimestamp(float(millis) / 1000, ZONE).isoformat(timespec="milliseconds")


def present(fields):
    return {name: value for name, value in fields.items() if value is not None}
