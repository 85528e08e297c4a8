"""The table, its rows, and who may see them."""

import os

import boto3

TABLE = os.environ["TABLE"]
table = boto3.resource("dynamodb").Table(TABLE)


def get(pk, sk):
    return table.get_item(Key={"pk": pk, "sk": sk}, ConsistentRead=True).get("Item")


def caller_of(event):
    claims = event["requestContext"]["authorizer"]["jwt"]["claims"]
    role, sub = claims["role"], claims["sub"]
    claim = {"OWNER": claims.get("customer"), "RESELLER": claims.get("reseller"), "ADMIN": ""}[role]
    return {"role": role, "sub": sub, "claim": claim, "identity": f"{len(sub)}:{sub}{role}{len(claim)}:{claim}"}


def may_see(caller, row):
    of = {"OWNER": "customer", "RESELLER": "reseller"}.get(caller["role"])
    return of is None or row.get(of) == caller["claim"]


def barrier(line):
    return line["state"] != "ACTIVE" or line["porting"] or line["locked"] or "swap" in line
