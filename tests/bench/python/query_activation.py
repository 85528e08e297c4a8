"""GET /api/QueryActivation?id=…"""

import re

from boto3.dynamodb.conditions import Key

from keys import open_sealed
from runtime import answer
from table import caller_of, may_see, table
from view import view


def handler(event, _context):
    caller = caller_of(event)
    swap_id = (event.get("queryStringParameters") or {}).get("id", "")
    if not re.fullmatch(r"[\w-]{1,64}", swap_id):
        return answer(400, {"responseStatus": {"errorCode": "ValidationException"}})
    rows = table.query(KeyConditionExpression=Key("pk").eq(f"A#{swap_id}"), ConsistentRead=True)["Items"]
    swap = next((row for row in rows if row["sk"] == "activation"), None)
    mails = [row for row in rows if row["sk"].startswith("delivery#")]
    results = []
    if swap and may_see(caller, swap):
        code = open_sealed(swap["pk"], "code", swap["code"]) if "code" in swap else None
        results.append(view(swap, code, mails[-1] if mails else None))
    return answer(200, {"offset": 0, "total": len(results), "results": results, "meta": {}})
