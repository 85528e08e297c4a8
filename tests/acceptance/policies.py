"""Judges the calls that the functions made by the roles' own statements, with every condition, and finds what no call needs."""

import base64
import email
import email.utils
import fnmatch
import json
import re
import urllib.parse

from template import as_list, functions, policy


class Call:
    """What IAM looks at in one call: an action, the resources it needs, and the condition keys of each."""

    def __init__(self, action, resources, **context):
        self.action, self.resources, self.context = action, resources, context

    def __repr__(self):
        return f"{self.action} on {self.resources} with {self.context}"


def calls_of(path, headers, body, account, region):
    """The actions of one request to AWS. Of an item alone its partition key is looked at, and kept to its prefix."""
    target = headers.get("x-amz-target", "")
    if target.startswith("DynamoDB_"):
        return dynamodb(target.split(".")[1], json.loads(body), f"arn:aws:dynamodb:{region}:{account}:table/")
    if target.startswith("TrentService."):
        asked = json.loads(body)
        context = {f"kms:EncryptionContext:{key}": [value] for key, value in asked.get("EncryptionContext", {}).items()}
        return [Call(f"kms:{target.split('.')[1]}", [asked["KeyId"]], **context)]
    if target.startswith("secretsmanager."):
        return [Call(f"secretsmanager:{target.split('.')[1]}", [json.loads(body)["SecretId"]])]
    if invoked := re.fullmatch(r"/2015-03-31/functions/([^/]+)/invocations", path):
        name = urllib.parse.unquote(invoked[1]).rsplit(":", 1)[-1]
        return [Call("lambda:InvokeFunction", [f"arn:aws:lambda:{region}:{account}:function:{name}"])]
    asked = {key: values[0] for key, values in urllib.parse.parse_qs(body.decode()).items()}
    if asked.get("Action") == "SendRawEmail":
        sender = email.message_from_bytes(base64.b64decode(asked["RawMessage.Data"]))["From"]
        address = email.utils.parseaddr(sender)[1]
        ses = f"arn:aws:ses:{region}:{account}"
        resources = [f"{ses}:identity/{address.split('@')[1]}", f"{ses}:configuration-set/{asked['ConfigurationSetName']}"]
        return [Call("ses:SendRawEmail", resources, **{"ses:FromAddress": [address]})]
    raise ValueError(f"a call that is not known here: {path} {target} {asked.get('Action')}")


def dynamodb(operation, asked, tables):
    if operation == "TransactWriteItems":
        items = [next(iter(item.items())) for item in asked["TransactItems"]]
        keys = [(detail.get("Item") or detail["Key"])["pk"]["S"] for _, detail in items]
        # Whether IAM sees one item's key at each item, or all of them, is not documented: both have to fit.
        return [
            Call(f"dynamodb:{kind}Item", [tables + detail["TableName"]], **leading(seen))
            for (kind, detail), key in zip(items, keys)
            for seen in ([key], keys)
        ]
    if operation == "BatchGetItem":
        return [
            Call("dynamodb:BatchGetItem", [tables + table], **leading([key["pk"]["S"] for key in wanted["Keys"]]))
            for table, wanted in asked["RequestItems"].items()
        ]
    table = tables + asked["TableName"]
    if operation == "Query":
        if index := asked.get("IndexName"):
            return [Call("dynamodb:Query", [f"{table}/index/{index}"])]
        value = re.match(r"pk = (:\w+)", asked["KeyConditionExpression"])[1]
        return [Call("dynamodb:Query", [table], **leading([asked["ExpressionAttributeValues"][value]["S"]]))]
    return [Call(f"dynamodb:{operation}", [table], **leading([(asked.get("Item") or asked["Key"])["pk"]["S"]]))]


def leading(keys):
    return {"dynamodb:LeadingKeys": sorted({key[: key.index("#") + 1] for key in keys})}


def covers(statement, call, resource):
    return (
        call.action in as_list(statement["Action"])
        and resource in as_list(statement["Resource"])
        and all(
            holds(operator, call.context.get(key), as_list(values))
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def holds(operator, actual, expected):
    if operator == "StringEquals":
        return actual is not None and all(value in expected for value in actual)
    if operator == "ForAllValues:StringLike":
        return all(any(fnmatch.fnmatchcase(value, pattern) for pattern in expected) for value in actual or [])
    raise ValueError(f"a condition that is not known here: {operator}")


def judge(function, statements, calls):
    """What is wrong with a role's statements, seen from the calls of its function: what they refuse, and what no call needs."""
    faults = [
        f"{function}: its role does not allow {call}"
        for call in calls
        for resource in call.resources
        if not any(covers(statement, call, resource) for statement in statements)
    ]
    for statement in statements:
        asked = [
            (call, resource) for call in calls for resource in call.resources if covers(statement, call, resource)
        ]
        for action in as_list(statement["Action"]):
            if action not in {call.action for call, _ in asked}:
                faults.append(f"{function}: no call needs {action} in {statement['Sid']}")
        for resource in as_list(statement["Resource"]):
            if resource not in {resource for _, resource in asked}:
                faults.append(f"{function}: no call needs {resource} in {statement['Sid']}")
        patterns = statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys", [])
        seen = {key for call, _ in asked for key in call.context.get("dynamodb:LeadingKeys", [])}
        for pattern in as_list(patterns):
            if not fnmatch.filter(seen, pattern):
                faults.append(f"{function}: no call needs the keys {pattern} in {statement['Sid']}")
    return sorted(set(faults))


def check_platform(template):
    """
    What Lambda and DynamoDB do in a role's name does not go through the function, so that no call shows it: it has to be
    exactly what the function's log, the table's key, its stream mapping and its on-failure queue make necessary.
    """
    resources = template["Resources"]
    attribute = lambda name, what: {"Fn::GetAtt": [name, what]}
    dead_letters = attribute("DeadLetters", "Arn")
    for function in functions(template):
        mapped = [
            part for part in resources.values()
            if part["Type"] == "AWS::Lambda::EventSourceMapping" and part["Properties"]["FunctionName"] == {"Ref": function}
        ]
        invoked = [
            part for part in resources.values()
            if part["Type"] == "AWS::Lambda::EventInvokeConfig" and part["Properties"]["FunctionName"] == {"Ref": function}
        ]
        wanted = [
            allow("Log", ["logs:CreateLogStream", "logs:PutLogEvents"], attribute(f"{function}Log", "Arn")),
            allow("OpenTable", "kms:Decrypt", attribute("Key", "Arn")) | {"Condition": {"StringEquals": {
                "kms:ViaService": {"Fn::Sub": "dynamodb.${AWS::Region}.amazonaws.com"},
                "kms:EncryptionContext:aws:dynamodb:tableName": {"Ref": "Table"},
            }}},
        ]
        if mapped:
            stream = ["DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"]
            wanted.append(allow("ReadStream", [f"dynamodb:{verb}" for verb in stream], attribute("Table", "StreamArn")))
        failing = [part["Properties"].get("DestinationConfig", {}).get("OnFailure") for part in mapped + invoked]
        if {"Destination": dead_letters} in failing:
            wanted.append(allow("GiveUp", "sqs:SendMessage", dead_letters))
        if (found := policy(template, function, "platform")) != wanted:
            raise SystemExit(f"{function}: what the platform does in its name is {found}, and should be {wanted}")


def allow(sid, action, resource):
    return {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource}
