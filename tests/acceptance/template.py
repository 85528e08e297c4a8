"""Reads the templates in infra, and derives the one that is deployed to the emulator."""

import copy
import json
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FUNCTION = "AWS::Serverless::Function"


class Loader(yaml.SafeLoader):
    """Reads YAML with CloudFormation's short intrinsic functions, such as `!Ref`, as the long ones."""


def construct_intrinsic(loader, name, node):
    if isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_scalar(node)
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


Loader.add_multi_constructor("!", construct_intrinsic)


def read():
    return yaml.load((ROOT / "infra/template.yaml").read_text(), Loader)


def table():
    """The text of the template of the table, which the emulator takes as it is."""
    return (ROOT / "infra/table.yaml").read_text()


def functions(template):
    """The names of the functions, without the stack's name, by logical id."""
    resources = template["Resources"].items()
    return {name: Path(part["Properties"]["CodeUri"]).name for name, part in resources if part["Type"] == FUNCTION}


def policy(template, function, name):
    """The statements of one policy of a function's role."""
    policies = template["Resources"][f"{function}Role"]["Properties"]["Policies"]
    return next(p["PolicyDocument"]["Statement"] for p in policies if p["PolicyName"] == name)


def simplified_for_emulator(statement):
    """
    A statement that the emulator can evaluate, if it cannot evaluate the real one, and else None. The emulator sets no
    condition keys of KMS and SES, and treats SendRawEmail as a call without a resource. `policies.py` evaluates the real
    statements for the recorded calls.
    """
    services = {action.split(":")[0] for action in as_list(statement.get("Action", []))}
    if services == {"ses"}:
        return {"Effect": "Allow", "Action": statement["Action"], "Resource": "*"}
    if services == {"kms"}:
        return {key: value for key, value in statement.items() if key != "Condition"}
    return None


def for_emulator(template, proxies):
    """
    The template for the emulator, as JSON. It sets the AWS endpoint of each function to its proxy in `proxies` (URLs by
    logical id), and adds a policy with simplified statements to its role. The emulator supports neither alarms over several
    metrics nor the DNS records of the mail domain: such an alarm watches its first metric only, and the outputs of the DNS
    records are left out.
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
        environment["AWS_ENDPOINT_URL"] = proxies[function]
        added = [simplified_for_emulator(statement) for statement in policy(template, function, "calls")]
        if added := [statement for statement in added if statement]:
            document = {"Version": "2012-10-17", "Statement": added}
            role = template["Resources"][f"{function}Role"]["Properties"]
            role["Policies"].append({"PolicyName": "emulator", "PolicyDocument": document})
    return json.dumps(template, indent=1)


def as_list(value):
    return value if isinstance(value, list) else [value]
