"""Reads infra/template.yaml, and makes what is deployed on the emulator out of it."""

import copy
import json
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FUNCTION = "AWS::Serverless::Function"


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms, read as the long ones."""


def intrinsic(loader, name, node):
    if isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_scalar(node)
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


Loader.add_multi_constructor("!", intrinsic)


def read():
    return yaml.load((ROOT / "infra/template.yaml").read_text(), Loader)


def functions(template):
    """Logical ids of the functions, each with its name without the stack's."""
    found = template["Resources"].items()
    return {name: Path(part["Properties"]["CodeUri"]).name for name, part in found if part["Type"] == FUNCTION}


def policy(template, function, name):
    """The statements of one policy in a function's role."""
    policies = template["Resources"][f"{function}Role"]["Properties"]["Policies"]
    return next(p["PolicyDocument"]["Statement"] for p in policies if p["PolicyName"] == name)


def beyond_the_emulator(statement):
    """
    The statement as the emulator can judge it, if it cannot judge the real one: it fills in no condition key of KMS and SES,
    and takes SendRawEmail for a call without a resource. The real statements are judged by `policies.py`, on the calls made.
    """
    services = {action.split(":")[0] for action in as_list(statement.get("Action", []))}
    if services == {"ses"}:
        return {"Effect": "Allow", "Action": statement["Action"], "Resource": "*"}
    if services == {"kms"}:
        return {key: value for key, value in statement.items() if key != "Condition"}
    return None


def for_emulator(template, gateways):
    """
    The template with two additions to each function: where AWS is (`gateways`, by logical id), and beside its policies one
    with the statements that the emulator cannot judge. Alarms over several metrics watch their first, and the mail domain's
    DNS records are not among the outputs: it knows neither.
    """
    template = copy.deepcopy(template)
    for output in ["MailDns1", "MailDns2", "MailDns3"]:
        del template["Outputs"][output]
    for part in template["Resources"].values():
        if part["Type"] == "AWS::CloudWatch::Alarm" and (metrics := part["Properties"].pop("Metrics", None)):
            first = next(metric["MetricStat"] for metric in metrics if "MetricStat" in metric)
            part["Properties"] |= first["Metric"] | {"Period": first["Period"], "Statistic": first["Stat"]}
    for function in functions(template):
        properties = template["Resources"][function]["Properties"]
        environment = properties.setdefault("Environment", {}).setdefault("Variables", {})
        environment["AWS_ENDPOINT_URL"] = gateways[function]
        added = [beyond_the_emulator(statement) for statement in policy(template, function, "calls")]
        if added := [statement for statement in added if statement]:
            document = {"Version": "2012-10-17", "Statement": added}
            role = template["Resources"][f"{function}Role"]["Properties"]
            role["Policies"].append({"PolicyName": "emulator", "PolicyDocument": document})
    return json.dumps(template, indent=1)


def as_list(value):
    return value if isinstance(value, list) else [value]
