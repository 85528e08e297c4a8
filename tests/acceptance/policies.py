"""Compares the calls that the functions made with the statements of their roles, including every condition.

Finds calls that a role does not allow, and actions, resources and keys that no call needs.
"""

import base64
import email
import email.utils
import fnmatch
import json
import re
import urllib.parse

from template import as_list, functions, policy


class Call:
    """What IAM evaluates for one call: the action, the resources it needs, and the values of the condition keys."""

    def __init__(self, action, resources, **context):
        self.action, self.resources, self.context = action, resources, context

    def __repr__(self):
        return f"{self.action} on {self.resources} with {self.context}"


def calls_of(path, headers, body, account, region):
    """The calls that IAM evaluates for one request to AWS. Of an item, they have only the partition key's prefix."""
    target = headers.get("x-amz-target", "")
    if target.startswith("DynamoDB_"):
        return dynamodb(target.split(".")[1], json.loads(body), f"arn:aws:dynamodb:{region}:{account}:table/")
    if target.startswith("TrentService."):
        parameters = json.loads(body)
        context = {f"kms:EncryptionContext:{key}": [value] for key, value in parameters.get("EncryptionContext", {}).items()}
        return [Call(f"kms:{target.split('.')[1]}", [parameters["KeyId"]], **context)]
    if target.startswith("secretsmanager."):
        return [Call(f"secretsmanager:{target.split('.')[1]}", [json.loads(body)["SecretId"]])]
    if match := re.fullmatch(r"/2015-03-31/functions/([^/]+)/invocations", path):
        name = urllib.parse.unquote(match[1]).rsplit(":", 1)[-1]
        return [Call("lambda:InvokeFunction", [f"arn:aws:lambda:{region}:{account}:function:{name}"])]
    parameters = {key: values[0] for key, values in urllib.parse.parse_qs(body.decode()).items()}
    if parameters.get("Action") == "SendRawEmail":
        sender = email.message_from_bytes(base64.b64decode(parameters["RawMessage.Data"]))["From"]
        address = email.utils.parseaddr(sender)[1]
        ses = f"arn:aws:ses:{region}:{account}"
        resources = [f"{ses}:identity/{address.split('@')[1]}", f"{ses}:configuration-set/{parameters['ConfigurationSetName']}"]
        return [Call("ses:SendRawEmail", resources, **{"ses:FromAddress": [address]})]
    raise ValueError(f"unknown call: {path} {target} {parameters.get('Action')}")


def dynamodb(operation, parameters, tables):
    if operation == "TransactWriteItems":
        items = [next(iter(item.items())) for item in parameters["TransactItems"]]
        keys = [(detail.get("Item") or detail["Key"])["pk"]["S"] for _, detail in items]
        # AWS does not document whether IAM sees only an item's own key for each item, or the keys of all items. The
        # statements have to allow both.
        return [
            Call(f"dynamodb:{kind}Item", [tables + detail["TableName"]], **leading_keys(visible))
            for (kind, detail), key in zip(items, keys)
            for visible in ([key], keys)
        ]
    if operation == "BatchGetItem":
        return [
            Call("dynamodb:BatchGetItem", [tables + table], **leading_keys([key["pk"]["S"] for key in request["Keys"]]))
            for table, request in parameters["RequestItems"].items()
        ]
    table = tables + parameters["TableName"]
    if operation == "Query":
        if index := parameters.get("IndexName"):
            return [Call("dynamodb:Query", [f"{table}/index/{index}"])]
        value = re.match(r"pk = (:\w+)", parameters["KeyConditionExpression"])[1]
        return [Call("dynamodb:Query", [table], **leading_keys([parameters["ExpressionAttributeValues"][value]["S"]]))]
    return [Call(f"dynamodb:{operation}", [table], **leading_keys([(parameters.get("Item") or parameters["Key"])["pk"]["S"]]))]


def leading_keys(keys):
    return {"dynamodb:LeadingKeys": sorted({key[: key.index("#") + 1] for key in keys})}


def covers(statement, call, resource):
    return (
        call.action in as_list(statement["Action"])
        and resource in as_list(statement["Resource"])
        and all(
            is_met(operator, call.context.get(key), as_list(values))
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def is_met(operator, actual, expected):
    if operator == "StringEquals":
        return actual is not None and all(value in expected for value in actual)
    if operator == "ForAllValues:StringLike":
        return all(any(fnmatch.fnmatchcase(value, pattern) for pattern in expected) for value in actual or [])
    raise ValueError(f"unknown condition operator: {operator}")


def find_faults(function, statements, calls):
    """The faults in the statements of a function's role: calls that they do not allow, and parts that no call needs."""
    faults = [
        f"{function}: its role does not allow {call}"
        for call in calls
        for resource in call.resources
        if not any(covers(statement, call, resource) for statement in statements)
    ]
    for statement in statements:
        covered = [
            (call, resource) for call in calls for resource in call.resources if covers(statement, call, resource)
        ]
        for action in as_list(statement["Action"]):
            if action not in {call.action for call, _ in covered}:
                faults.append(f"{function}: no call needs {action} in {statement['Sid']}")
        for resource in as_list(statement["Resource"]):
            if resource not in {resource for _, resource in covered}:
                faults.append(f"{function}: no call needs {resource} in {statement['Sid']}")
        patterns = statement.get("Condition", {}).get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys", [])
        used = {key for call, _ in covered for key in call.context.get("dynamodb:LeadingKeys", [])}
        for pattern in as_list(patterns):
            if not fnmatch.filter(used, pattern):
                faults.append(f"{function}: no call needs the keys {pattern} in {statement['Sid']}")
    return sorted(set(faults))


def check_platform(template):
    """
    Checks the policies `platform`, which allow what Lambda and DynamoDB do in a role's name. These calls do not go through
    the function, so they are not recorded. Each policy has to be exactly what the function's log group, the table's key, the
    stream mapping and the on-failure queue require.
    """
    resources = template["Resources"]
    attribute = lambda resource, name: {"Fn::GetAtt": [resource, name]}
    dead_letters = attribute("DeadLetters", "Arn")
    for function in functions(template):
        mappings = [
            resource for resource in resources.values()
            if resource["Type"] == "AWS::Lambda::EventSourceMapping" and resource["Properties"]["FunctionName"] == {"Ref": function}
        ]
        invoke_configs = [
            resource for resource in resources.values()
            if resource["Type"] == "AWS::Lambda::EventInvokeConfig" and resource["Properties"]["FunctionName"] == {"Ref": function}
        ]
        expected = [
            allow("Log", ["logs:CreateLogStream", "logs:PutLogEvents"], attribute(f"{function}Log", "Arn")),
            allow("OpenTable", "kms:Decrypt", {"Ref": "Key"}) | {"Condition": {"StringEquals": {
                "kms:ViaService": {"Fn::Sub": "dynamodb.${AWS::Region}.amazonaws.com"},
                "kms:EncryptionContext:aws:dynamodb:tableName": {"Ref": "Table"},
            }}},
        ]
        if mappings:
            stream = ["DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"]
            expected.append(allow("ReadStream", [f"dynamodb:{verb}" for verb in stream], {"Ref": "TableStream"}))
        destinations = [resource["Properties"].get("DestinationConfig", {}).get("OnFailure") for resource in mappings + invoke_configs]
        if {"Destination": dead_letters} in destinations:
            expected.append(allow("GiveUp", "sqs:SendMessage", dead_letters))
        if (actual := policy(template, function, "platform")) != expected:
            raise SystemExit(f"{function}: the policy platform is {actual}, and should be {expected}")


def allow(sid, action, resource):
    return {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource}
