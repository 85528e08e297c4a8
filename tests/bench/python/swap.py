"""The transaction that creates a swap."""

import hashlib
import json
import random
import secrets
import time

from boto3.dynamodb.conditions import Key
from ulid import ULID

from keys import seal
from table import TABLE, table

LEASE = 60_000
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def free_sims(line, kind, now):
    shelf = f"{line['network']}#{line.get('reseller', '')}#{kind}"
    condition = Key("shelf").eq(shelf) & Key("freeFrom").lte(sortable(now))
    found = table.query(IndexName="free1", KeyConditionExpression=condition, Limit=32)
    return [row["pk"].removeprefix("S#") for row in found["Items"]]


def begin(caller, line, kind, asked, code=None, request=None):
    """Reserves a free SIM, marks the line and writes the swap, or does nothing. None if no SIM is left."""
    now = int(time.time() * 1000)
    swap_id = str(ULID.from_timestamp(now / 1000))
    pk = f"A#{swap_id}"
    shard = f"{hashlib.sha256(swap_id.encode()).digest()[0] % 16:x}"
    esim = kind == "esim"
    sealed = {}
    if code:
        sealed["code"] = seal(pk, "code", code)
    if esim:
        symbols = "".join(secrets.choice(ALPHABET) for _ in range(15))
        sealed["matchingId"] = seal(pk, "matchingId", "-".join((symbols[:5], symbols[5:10], symbols[10:])))
    candidates = free_sims(line, "esim" if esim else "card", now)
    start = random.randrange(len(candidates)) if candidates else 0
    client = table.meta.client
    for new_sim in candidates[start:] + candidates[:start]:
        swap = {
            "pk": pk, "sk": "activation", "kind": kind, "phase": "accepted",
            "swapId": swap_id, "shard": shard, "resellerShard": f"{line.get('reseller', '')}#{shard}",
            "line": line["pk"].removeprefix("L#"), "oldSim": line["sim"], "newSim": new_sim,
            "createdAt": now, "modifiedAt": now, "version": 1, "dueAt": sortable(now + LEASE),
            "smdpOrder": "none", "order": "none", "timeline": [f"{now} {caller['role']} {caller['sub']} asked"],
            **{name: line[name] for name in ("phone", "customer", "reseller", "network", "language") if name in line},
            **asked, **sealed,
        }  # fmt: skip
        mark_line = {
            "TableName": TABLE,
            "Key": {"pk": line["pk"], "sk": "line"},
            "UpdateExpression": "SET swap = :swap, swapCaller = :caller, swapRequest = :request",
            "ConditionExpression": "attribute_not_exists(swap) AND #state = :active AND porting = :no AND locked = :no "
            "AND sim = :sim AND customer = :customer AND reseller = :reseller",
            "ExpressionAttributeNames": {"#state": "state"},
            "ExpressionAttributeValues": {
                ":swap": swap_id, ":caller": sha256(caller["identity"]),
                ":request": request or f"0:{sha256(json.dumps(asked))}", ":active": "ACTIVE", ":no": False,
                ":sim": line["sim"], ":customer": line["customer"], ":reseller": line["reseller"],
            },
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }  # fmt: skip
        reserve_sim = {
            "TableName": TABLE,
            "Key": {"pk": f"S#{new_sim}", "sk": "sim"},
            "UpdateExpression": "SET #state = :busy, holder = :holder REMOVE shelf",
            "ConditionExpression": "#state = :free AND freeFrom <= :now AND network = :network "
            f"AND form {'=' if esim else '<>'} :esim AND (attribute_not_exists(reseller) OR reseller = :reseller)",
            "ExpressionAttributeNames": {"#state": "state"},
            "ExpressionAttributeValues": {
                ":busy": "BUSY", ":free": "FREE", ":holder": pk, ":now": sortable(now), ":network": line["network"],
                ":esim": "eSIM", ":reseller": line["reseller"],
            },
        }  # fmt: skip
        put = {"TableName": TABLE, "Item": swap, "ConditionExpression": "attribute_not_exists(pk)"}
        try:
            client.transact_write_items(
                TransactItems=[{"Put": put}, {"Update": mark_line}, {"Update": reserve_sim}]
            )
            return swap
        except client.exceptions.TransactionCanceledException as error:
            codes = [reason.get("Code") for reason in error.response["CancellationReasons"]]
            if codes[1] == "ConditionalCheckFailed" or codes[2] != "ConditionalCheckFailed":
                raise
    return None


def sortable(millis):
    return f"{millis:014}"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()
