#!/usr/bin/env python3
"""
Deploys infra/template.yaml onto AWS's emulator, IAM enforced, and swaps SIMs there in both dialects:

    run.py --tools DIR --emulator DIR --functions DIR --bin DIR [--without FUNCTION:ACTION]... [--each]

DIRs: the virtual environments of the two requirements files, what `cargo lambda build` made, and where `simswap` and
`simulators` are. The script runs under the emulator's Python.

Every action, resource and key of every role has to be needed by a call that a function made, and every call has to be
allowed by its role: so a role without any one of its actions fails. `--without` shows that for one action, `--each` for all,
after the run: the role alone is changed, and the swaps are made again until IAM refuses a call.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import boto3

import policies
import template as templates
from surroundings import (
    ACCOUNT, PATIENCE, REGION, Denied, Gateway, Issuer, Mail, fail, free_port, send, start, stop,
)

CODE = "8E9!#"
STACK = "simswap"


def main():
    parser = argparse.ArgumentParser()
    for name in ["tools", "emulator", "functions", "bin"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--without", action="append", default=[], metavar="FUNCTION:ACTION")
    parser.add_argument("--each", action="store_true")
    asked = parser.parse_args()
    template = templates.read()
    policies.check_platform(template)
    say("what the platform does in the functions' names is what they make necessary")
    with contextlib.ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory()))
        world = World(asked, template, directory, closing)
        try:
            world.deploy()
            world.until("the schedule sweeps", lambda: world.gateways["SweepSwaps"].asked)
            world.swap_all_kinds()
            # In a minute that five divides.
            world.until("the sweep counts the free SIMs", world.stock_is_counted, 360)
            world.check_roles()
            world.check_logs()
            for function in templates.functions(template):
                actions = {a for s in world.statements(function, "calls") for a in templates.as_list(s["Action"])}
                for action in sorted(actions):
                    if asked.each or f"{function}:{action}" in asked.without:
                        world.refused_without(function, action)
        except BaseException:
            for log in sorted(directory.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-6000:]}", file=sys.stderr)
            world.print_logs()
            raise


def say(what):
    print(f"ok: {what}", flush=True)


class World:
    """The deployment, and all around it."""

    def __init__(self, asked, template, directory, closing):
        self.asked, self.template, self.directory, self.closing = asked, template, directory, closing
        self.mail, self.issuer = Mail(), Issuer(directory)
        port = free_port()
        self.aws = f"http://127.0.0.1:{port}"
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(directory), "TMPDIR": str(directory), "AUTH": "true",
            "MINISTACK_REGION": REGION, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0", "SMTP_HOST": self.mail.address, "SSL_CERT_FILE": str(self.issuer.certificate),
        }
        emulator = start([asked.emulator / "bin/ministack"], directory / "emulator.log", environment)
        closing.callback(stop, emulator)
        self.gateways = {function: Gateway(self.aws) for function in templates.functions(template)}
        self.credentials = {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": self.aws,
        }
        self.smdp, self.network = free_port(), free_port()
        self.batch, self.memory = 0, 256
        self.until("the emulator answers", self.emulator_answers)

    def emulator_answers(self):
        with contextlib.suppress(OSError):
            return send(f"{self.aws}/_ministack/health")[0] == 200

    def client(self, service):
        return boto3.client(
            service, endpoint_url=self.aws, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def deploy(self):
        """As README says it; the network's order events are registered at its hub."""
        infra = self.directory / "infra"
        infra.mkdir()
        (self.directory / "target").mkdir()
        (self.directory / "target/lambda").symlink_to(self.asked.functions.resolve())
        gateways = {function: gateway.url for function, gateway in self.gateways.items()}
        (infra / "template.yaml").write_text(templates.for_emulator(self.template, gateways))
        self.client("s3").create_bucket(
            Bucket="deployments", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        asked = {
            "JwtIssuer": self.issuer.url, "MailDomain": "simswap.example", "SmdpUrl": f"http://127.0.0.1:{self.smdp}",
            "SmdpAddress": "smdp.example.test", "SmdpRequesterId": "1.3.6.1.4.1.99999.1",
            "NetworkUrl": f"http://127.0.0.1:{self.network}", "Architecture": "x86_64",
        } | self.secrets()
        self.guarded(asked)
        self.made = self.sam_deploy(STACK, asked | {"AllowUnauthenticatedCallbacks": "true"})
        say("sam deploy")
        self.api, self.callbacks = [
            f"{self.aws}/_aws/execute-api/{self.made[api]}/$default" for api in ("PartnerApi", "NetworkApi")
        ]
        simulators = [self.asked.bin / "simulators", self.callbacks, str(self.smdp), str(self.network)]
        self.closing.callback(stop, start(simulators, self.directory / "simulators.log"))
        hub = f"http://127.0.0.1:{self.network}/tmf-api/serviceOrdering/v4/hub"
        self.until("the network knows where we are", lambda: self.registered(hub))

    def secrets(self):
        """What we show to the peers. Both are simulated without TLS here: of the two the token alone gets to one."""
        pem = self.issuer.certificate.read_text()
        make = lambda name, secret: self.client("secretsmanager").create_secret(Name=name, SecretString=secret)["ARN"]
        certificate = make("certificate", json.dumps({"certificate": pem, "key": pem}))
        return {"SmdpClientCert": certificate, "NetworkClientCert": certificate, "NetworkToken": make("token", "t0ken")}

    def guarded(self, asked):
        """The way it is meant to be: callbacks need certificates. The emulator knows no mutual TLS, but that it is asked."""
        refused = self.sam_deploy("unguarded", asked) is None
        log = (self.directory / "unguarded.log").read_text()
        needed = "CallbackDomain is needed" in log
        self.expect(refused and needed, "without a host for callbacks it is not deployed", log)
        certificate = self.client("acm").request_certificate(DomainName="callbacks.example.com")["CertificateArn"]
        self.client("s3").put_object(Bucket="deployments", Key="peers.pem", Body=self.issuer.certificate.read_bytes())
        made = self.sam_deploy("guarded", asked | {
            "CallbackDomain": "callbacks.example.com", "CallbackCertificate": certificate,
            "CallbackTruststore": "s3://deployments/peers.pem", "SmdpSubject": "CN=smdp", "NetworkSubject": "CN=network",
        })
        apis = self.client("apigatewayv2")
        host = apis.get_domain_name(DomainName=made["CallbackHost"])
        truststore = host["MutualTlsAuthentication"]["TruststoreUri"]
        closed = apis.get_api(ApiId=made["NetworkApi"])["DisableExecuteApiEndpoint"]
        self.expect(closed and truststore == "s3://deployments/peers.pem", "callbacks come by mutual TLS alone", host)
        self.client("cloudformation").delete_stack(StackName="guarded")
        # Its schedule would go on.
        self.until("it is gone", lambda: "guarded-EveryMinute" not in str(self.client("events").list_rules()))
        self.gateways["SweepSwaps"].asked.clear()

    def sam_deploy(self, stack, parameters):
        """Physical names of what was made, by logical ids; nothing, if it was refused."""
        command = [self.asked.tools / "bin/sam", "deploy", "--template-file", self.directory / "infra/template.yaml"]
        command += ["--stack-name", stack, "--s3-bucket", "deployments", "--capabilities", "CAPABILITY_IAM"]
        command += ["--no-confirm-changeset", "--parameter-overrides"]
        command += [f"ParameterKey={name},ParameterValue={value}" for name, value in parameters.items()]
        environment = os.environ | self.credentials | {"SAM_CLI_TELEMETRY": "0"}
        with (self.directory / f"{stack}.log").open("w") as log:
            deployed = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=600)
        if deployed.returncode:
            return None
        resources = self.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        return {part["LogicalResourceId"]: part["PhysicalResourceId"] for part in resources}

    def registered(self, hub):
        with contextlib.suppress(OSError):
            return send(hub, {"callback": self.callbacks})[0] == 201

    def print_logs(self):
        """What the functions logged last."""
        logs = self.client("logs")
        for group in logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]:
            lines = logs.filter_log_events(logGroupName=group["logGroupName"])["events"][-20:]
            print("---", group["logGroupName"], *(line["message"] for line in lines), sep="\n", file=sys.stderr)

    def check_logs(self):
        """Each line has the ids that it is about, and what the dashboard shows is measured."""
        logs, metrics = self.client("logs"), set()
        for group in logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{STACK}-")["logGroups"]:
            name = group["logGroupName"]
            for event in logs.filter_log_events(logGroupName=name)["events"]:
                with contextlib.suppress(json.JSONDecodeError):
                    line = json.loads(event["message"])
                    if "_aws" in line:
                        for told in line["_aws"]["CloudWatchMetrics"]:
                            self.expect(told["Namespace"] == f"simswap/{STACK}", "", line)
                            metrics |= {metric["Name"] for metric in told["Metrics"]}
                    elif "target" in line and line["target"].split("::")[0].replace("_", "-") in name:
                        self.expect(line.get("span", {}).get("request"), "", line)
                        if name.endswith(("-fulfil-swap", "-deliver-esim")):
                            self.expect(line["span"].get("activation"), "", line)
        measured = {"SwapsAccepted", "SwapsDone", "SwapsFailed", "SubmitToMail", "SubmitToDone", "MailsByState"}
        measured |= {"OverdueSwaps", "CallbacksUnauthenticated", "PoolsLow"}
        self.expect(metrics == measured, "every line of the logs has its ids, and all is measured", metrics)

    # What callers, operators, phones and SES do.

    def swap_all_kinds(self):
        """Everything that the functions do at all. Each time with lines and stock of its own network, and with fresh functions."""
        self.new_lines()
        self.new_key()
        self.load_stock()
        swap = self.esim_swap()
        self.refusals()
        self.add_key()
        self.resent_mail(swap)
        self.phone_call(swap)
        self.reported_mail(swap)
        self.account_swaps()
        self.cancelled_swap()
        self.listings()
        self.swept_swap()

    def new_lines(self):
        self.batch += 1
        rows = ["ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING"]
        for line in range(8):
            at = self.batch * 10 + line
            rows.append(f"{self.line(line)};{self.phone(line)};C-1;R-1;NET{self.batch};{8931086000001000000 + at};{self.contact(line)};nl;ACTIVE;false")
        self.load("subscriptions", rows, 8)

    def line(self, number):
        return f"65a1b2c3d4e5f607{self.batch * 10 + number:08x}"

    def phone(self, number):
        return f"+3161{self.batch * 10 + number:07d}"

    def contact(self, number):
        return f"line{self.batch * 10 + number}@example.com"

    def load_stock(self):
        rows = ["SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN;RESELLER"]
        for form, first in [("eSIM", 8931086000002000000), ("NANO", 8931086000003000000)]:
            for sim in range(8):
                rows.append(f"{first + self.batch * 10 + sim};12345678;87654321;1234;5678;{form};NET{self.batch};;;true;R-1")
        self.load("sims", rows, 16)

    def load(self, what, rows, count):
        file = self.directory / f"{what}.csv"
        file.write_text("\n".join(rows) + "\n")
        command = [self.asked.bin / "simswap", "import", what, file, "--endpoint", self.aws, "--table", self.made["Table"]]
        environment = os.environ | self.credentials | {"KMS_KEY_ID": self.made["Key"]}
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        if f"{count} added" not in printed.stdout:
            fail(f"import {what}: {printed}")
        say(f"import {what}")

    def new_key(self):
        """Whoever first needs the data key makes it: on a table without one, each function that may, in turn."""
        self.recycle()
        wanted = {"eSim": True, "email": "a@example.com", "confirmationCode": CODE}
        for dialect, ask in [("account", lambda: self.account(0, "eSim")), ("subscription", lambda: self.submit(0, **wanted))]:
            for number in (1, 2):
                key = {"pk": {"S": "K#"}, "sk": {"S": f"key#{number:010}"}}
                self.client("dynamodb").delete_item(TableName=self.made["Table"], Key=key)
            status, _, answer = ask()
            self.expect(status == 404, f"the {dialect} dialect makes a data key, and finds no eSIM", answer)
        self.recycle()

    def add_key(self):
        """As README says it; what was sealed under the first key stays readable."""
        made = self.client("kms").generate_data_key_without_plaintext(
            KeyId=self.made["Key"], KeySpec="AES_256", EncryptionContext={"table": self.made["Table"]}
        )
        self.client("dynamodb").put_item(
            TableName=self.made["Table"], ConditionExpression="attribute_not_exists(pk)",
            Item={"pk": {"S": "K#"}, "sk": {"S": "key#0000000002"}, "wrapped": {"B": made["CiphertextBlob"]}},
        )
        self.recycle()

    def recycle(self):
        """Ends all functions that run: they would keep a key that was taken away. The emulator does it when their size changes."""
        self.memory += 1
        for function in self.gateways:
            name = self.made[function]
            self.client("lambda").update_function_configuration(FunctionName=name, MemorySize=self.memory)

    def refusals(self):
        status, _, answer = send(f"{self.api}/api/QueryActivation")
        self.expect((status, answer) == (401, {"message": "Unauthorized"}), "without a token nobody passes", (status, answer))
        token = self.issuer.token("OWNER", customer="C-2")
        status, _, answer = self.call(f"/api/QueryActivation?subscriptionId={self.line(0)}", token=token)
        self.expect(status == 200 and answer["total"] == 0, "a stranger sees nothing", answer)

    def esim_swap(self):
        """Its line named by phone, with a key: INIT, again the same answer, BUSY, the mail."""
        asked = {"phoneNumber": self.phone(0), "eSim": True, "email": f"anna{self.batch}@example.com", "confirmationCode": CODE}
        headers = {"idempotency-key": f"key-{self.batch}"}
        first = self.call("/api/SimSwapSubscription", asked, headers)
        self.expect(first[0] == 200 and first[2]["status"] == "INIT", "an eSIM swap is taken", first[2])
        again = self.call("/api/SimSwapSubscription", asked, headers)
        self.expect(again[0] == 200 and again[2] == first[2], "its key gets the same answer", again[2])
        swap = first[2]["id"]
        repeat = self.call("/api/SimSwapSubscription", asked)
        self.expect(repeat[0] == 200 and repeat[2]["id"] == swap, "so does a repeat without the key", repeat[2])
        busy = self.await_status(swap, "BUSY")
        self.expect(busy.get("providerOrderNumber"), "the network has an order", busy)
        mail = self.until("the mail comes", lambda: self.mail.to(asked["email"]))[0]
        self.expect(CODE not in str(mail), "the mail does not hold the confirmation code", "")
        self.activation_code = self.code_in(mail)
        return swap

    def code_in(self, mail):
        return re.search(r"LPA:1\$\S+", mail.get_body(("plain",)).get_content())[0]

    def resent_mail(self, swap):
        other = f"anna{self.batch}@example.net"
        status, _, answer = self.call(f"/api/ResendEsim?id={swap}", {"email": other})
        self.expect(status == 200, "the mail is asked for again, to another address", answer)
        mail = self.until("it comes there", lambda: self.mail.to(other))[0]
        self.expect(self.code_in(mail) == self.activation_code, "with the same activation code", "")

    def phone_call(self, swap):
        self.install(self.activation_code, CODE)
        done = self.await_status(swap, "DONE")
        self.expect(done.get("activatedDate") and done["info"]["profile"] == "installed", "the swap is dated", done)
        listener = f"{self.callbacks}/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent"
        event = {"event": {"serviceOrder": {"id": done["providerOrderNumber"], "state": "completed"}}}
        status, _, answer = send(listener, event)
        self.expect(status == 201, "an event that names the network's order alone is taken", answer)

    def install(self, code, confirmation):
        url = f"http://127.0.0.1:{self.smdp}/local/phone/install"
        status, _, answer = send(url, {"activationCode": code, "confirmationCode": confirmation})
        self.expect(status == 200, "the phone installs the eSIM", answer)

    def reported_mail(self, swap):
        """What SES would publish of the first mail: the emulator keeps an event destination, and tells it nothing."""
        event = {
            "eventType": "Delivery",
            "mail": {"messageId": "not-known-here", "tags": {"activation": [swap], "attempt": ["2-1"]}},
        }
        self.client("sns").publish(TopicArn=self.made["MailNews"], Message=json.dumps(event))
        self.until(
            "the mail is known to be delivered",
            lambda: self.activation(swap)["info"].get("delivery") == "delivered",
        )

    def account_swaps(self):
        """The account dialect: a card, its repeat, and an eSIM without a confirmation code."""
        status, _, answer = self.account(1, "autoAssign")
        self.expect(status == 200 and answer["mvnoSim"]["puk1"] == "12345678", "a card swap is taken", answer)
        status, _, again = self.account(1, "autoAssign")
        self.expect(again == answer, "a repeat gets the same SIM", again)
        self.until("the card's line is swapped", lambda: self.on_line(1)["status"] == "DONE")
        asked = {"idempotency-key": f"account-{self.batch}"}
        status, _, answer = self.account(2, "eSim", asked)
        self.expect(status == 200 and answer["mvnoSim"]["formFactor"] == "eSIM", "an eSIM swap is taken", answer)
        _, _, again = self.account(2, "eSim", asked)
        self.expect(again == answer, "its key gets the same SIM", again)
        mail = self.until("its mail comes", lambda: self.mail.to(self.contact(2)))[0]
        self.install(self.code_in(mail), "")
        self.until("the eSIM's line is swapped", lambda: self.on_line(2)["status"] == "DONE")

    def cancelled_swap(self):
        """Of the account dialect, which has shown the SIM's codes: the SIM is kept for its line."""
        status, _, answer = self.account(3, "eSim")
        self.expect(status == 200, "a swap is taken", answer)
        swap = self.on_line(3)["id"]
        self.await_status(swap, "BUSY")
        status, _, cancelled = self.call(f"/api/CancelActivation?id={swap}", {})
        self.expect(status == 200, "and cancelled", cancelled)
        ended = self.await_status(swap, "ERROR")
        self.expect(ended["info"]["failure"]["code"] == "cancelled", "as wished", ended)

    def listings(self):
        """Every index that lists, a cursor, and a customer and a reseller who look."""
        for role, claims in [("ADMIN", {}), ("OWNER", {"customer": "C-1"}), ("RESELLER", {"reseller": "R-1"})]:
            token = self.issuer.token(role, **claims)
            status, _, page = self.call("/api/QueryActivation?take=1", token=token)
            self.expect(status == 200 and page["total"] >= 3, f"{role} sees swaps", page)
            status, _, following = self.call(f"/api/QueryActivation?take=1&cursor={page['meta']['next']}", token=token)
            self.expect(status == 200 and following["results"] != page["results"], "and the page after", following)
        status, _, page = self.call(f"/api/QueryActivation?phoneNumber={self.phone(1).replace('+', '%2B')}")
        self.expect(status == 200 and page["total"] == 1, "a line's swaps are found by its phone number", page)

    def swept_swap(self):
        """With the stream off, the sweep alone brings the order and the mail about."""
        mappings = [self.made[f"{function}Stream"] for function in ("FulfilSwap", "DeliverEsim")]
        for mapping in mappings:
            self.client("lambda").update_event_source_mapping(UUID=mapping, Enabled=False)
        try:
            email = f"emil{self.batch}@example.com"
            status, _, answer = self.submit(4, eSim=True, email=email, confirmationCode=CODE)
            self.expect(status == 200, "a swap is taken while the stream is off", answer)
            # A row falls due when the stream should have been there: after a lease.
            self.until("the sweep brings its mail", lambda: self.sweep() and self.mail.to(email), 300)
        finally:
            for mapping in mappings:
                self.client("lambda").update_event_source_mapping(UUID=mapping, Enabled=True)

    def sweep(self):
        """Now, instead of at the next minute."""
        answer = self.client("lambda").invoke(FunctionName=self.made["SweepSwaps"])
        return answer["StatusCode"] == 200

    def stock_is_counted(self):
        log = self.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{STACK}-sweep-swaps")
        return any('"PoolsLow"' in event["message"] for event in log["events"])

    def submit(self, line, **asked):
        return self.call("/api/SimSwapSubscription", {"subscriptionId": self.line(line)} | asked)

    def account(self, line, sim, headers={}):
        return self.call(f"/mvno/{self.line(line)}/changesim/{sim}", {}, headers)

    def call(self, path, body=None, headers={}, token=None):
        answer = send(self.api + path, body, headers | {"authorization": f"Bearer {token or self.issuer.token('ADMIN')}"})
        self.check_denied()
        return answer

    def activation(self, swap):
        status, _, answer = self.call(f"/api/QueryActivation?id={swap}")
        self.expect(status == 200 and answer["total"] == 1, None, answer)
        return answer["results"][0]

    def on_line(self, line):
        status, _, answer = self.call(f"/api/QueryActivation?subscriptionId={self.line(line)}")
        self.expect(status == 200 and answer["results"], None, answer)
        return answer["results"][0]

    def await_status(self, swap, status):
        return self.until(f"it is {status}", lambda: (a := self.activation(swap))["status"] == status and a)

    # The roles.

    def check_denied(self):
        for function, gateway in self.gateways.items():
            if gateway.denied:
                raise Denied(f"{function}: {gateway.denied[0]}")

    def statements(self, function, policy):
        role = self.made[f"{function}Role"]
        document = self.client("iam").get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        return document["Statement"]

    def check_roles(self):
        faults, count, judged = [], 0, 0
        for function, gateway in self.gateways.items():
            calls = [call for asked in gateway.asked for call in policies.calls_of(*asked, ACCOUNT, REGION)]
            statements = self.statements(function, "calls")
            faults += policies.judge(function, statements, calls)
            count += len(calls)
            judged += sum(len(templates.as_list(statement["Action"])) for statement in statements)
        if faults:
            fail("\n".join(["the roles are what the functions need:", *faults]))
        say(f"the roles allow {judged} actions: each is needed, with its resources and keys, and {count} calls need no other")

    def refused_without(self, function, action):
        """Changes the one role, and swaps until a call is refused."""
        role, kept, iam = self.made[f"{function}Role"], {}, self.client("iam")
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            if policy == "platform":
                continue
            kept[policy] = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
            left = [less(statement, action) for statement in kept[policy]["Statement"]]
            document = kept[policy] | {"Statement": [statement for statement in left if statement]}
            if document["Statement"]:
                iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))
            else:
                iam.delete_role_policy(RoleName=role, PolicyName=policy)
        said, sys.stdout = sys.stdout, open(os.devnull, "w")
        try:
            self.swap_all_kinds()
        except Denied as denied:
            sys.stdout = said
            if action not in str(denied):
                raise
            say(f"without {action} for {function} it fails: {denied}")
        else:
            sys.stdout = said
            fail(f"{function} does without {action}")
        finally:
            sys.stdout = said
            for policy, document in kept.items():
                iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))
            for gateway in self.gateways.values():
                gateway.denied.clear()

    def until(self, what, look, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if seen := look():
                say(what)
                return seen
            self.check_denied()
            time.sleep(0.1)
        fail(f"within {patience} s {what}")

    def expect(self, fits, what, seen):
        self.check_denied()
        if not fits:
            fail(f"{what}: {seen}")
        if what:
            say(what)


def less(statement, action):
    """The statement without an action; nothing, if it allows no other."""
    actions = [other for other in templates.as_list(statement["Action"]) if other != action]
    return statement | {"Action": actions} if actions else None


if __name__ == "__main__":
    main()
