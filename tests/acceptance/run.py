#!/usr/bin/env python3
"""
Deploys infra/table.yaml and infra/template.yaml to an emulator of AWS that enforces IAM, swaps SIMs there in both dialects,
and goes on with a table that is restored from the backup of the first:

    run.py --tools DIR --emulator DIR --functions DIR --bin DIR [--without FUNCTION:ACTION]... [--each]

--tools, --emulator   the virtual environments of requirements-deploy.txt and requirements-emulator.txt
--functions           the output directory of `cargo lambda build`
--bin                 the directory of the binaries `simswap` and `simulators`
--without, --each     after the swaps, remove this action, or each action in turn, from the role of its function, and repeat
                      the swaps until IAM rejects a call; FUNCTION is a logical id of the template

Run the script with the Python of the emulator's environment.

A function's role has to allow every call that the function makes, and every action, resource and key in the role has to be
needed by one of these calls.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3

import policies
import template as templates
from surroundings import (
    ACCOUNT, REGION, TIMEOUT, Denied, Issuer, MailServer, RecordingProxy, fail, free_port, send, start, stop,
)

CODE = "8E9!#"
STACK = "simswap"


def main():
    parser = argparse.ArgumentParser()
    for name in ["tools", "emulator", "functions", "bin"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--without", action="append", default=[], metavar="FUNCTION:ACTION")
    parser.add_argument("--each", action="store_true")
    options = parser.parse_args()
    template = templates.read()
    policies.check_platform(template)
    report("each policy platform allows exactly what the platform needs")
    with contextlib.ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory()))
        deployment = Deployment(options, template, directory, closing)
        try:
            deployment.deploy()
            deployment.wait_for("the schedule invokes the sweeper", lambda: deployment.proxies["SweepSwaps"].requests)
            deployment.swap_all_kinds()
            # The sweeper counts in every fifth minute of the clock.
            deployment.wait_for("the sweeper counts the free SIMs", deployment.stock_is_counted, 360)
            deployment.check_roles()
            deployment.check_logs()
            for function in templates.functions(template):
                actions = {a for s in deployment.statements(function, "calls") for a in templates.as_list(s["Action"])}
                for action in sorted(actions):
                    if options.each or f"{function}:{action}" in options.without:
                        deployment.check_rejected_without(function, action)
            deployment.restore_table()
        except BaseException:
            for log in sorted(directory.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-6000:]}", file=sys.stderr)
            deployment.print_logs()
            raise


def report(what):
    print(f"ok: {what}", flush=True)


class Deployment:
    """The deployed stack and its environment, with methods that do what callers, operators, phones and SES do."""

    def __init__(self, options, template, directory, closing):
        self.options, self.template, self.directory, self.closing = options, template, directory, closing
        self.mail, self.issuer = MailServer(), Issuer(directory)
        port = free_port()
        self.aws = f"http://127.0.0.1:{port}"
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(directory), "TMPDIR": str(directory), "AUTH": "true",
            "MINISTACK_REGION": REGION, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0", "SMTP_HOST": self.mail.address, "SSL_CERT_FILE": str(self.issuer.certificate),
        }
        emulator = start([options.emulator / "bin/ministack"], directory / "emulator.log", environment)
        closing.callback(stop, emulator)
        self.proxies = {function: RecordingProxy(self.aws) for function in templates.functions(template)}
        self.credentials = {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": self.aws,
        }
        self.smdp, self.network = free_port(), free_port()
        self.batch, self.memory = 0, 256
        self.wait_for("the emulator is ready", self.emulator_is_ready)

    def emulator_is_ready(self):
        with contextlib.suppress(OSError):
            return send(f"{self.aws}/_ministack/health")[0] == 200

    def client(self, service):
        return boto3.client(
            service, endpoint_url=self.aws, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def deploy(self):
        """Deploys as infra/README.md describes, and registers the callback URL at the network's hub."""
        infra = self.directory / "infra"
        infra.mkdir()
        (self.directory / "target").mkdir()
        (self.directory / "target/lambda").symlink_to(self.options.functions.resolve())
        urls = {function: proxy.url for function, proxy in self.proxies.items()}
        (infra / "template.yaml").write_text(templates.for_emulator(self.template, urls))
        self.client("s3").create_bucket(
            Bucket="deployments", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        parameters = {
            "JwtIssuer": self.issuer.url, "MailDomain": "simswap.example", "SmdpUrl": f"http://127.0.0.1:{self.smdp}",
            "SmdpAddress": "smdp.example.test", "SmdpRequesterId": "1.3.6.1.4.1.99999.1", "SmdpPoints": "5=disabled",
            "NetworkUrl": f"http://127.0.0.1:{self.network}", "Architecture": "x86_64",
        } | self.secrets()
        (infra / "table.yaml").write_text(templates.table())
        self.table = self.sam_deploy("simswap-table", {}, "table.yaml")["Table"]
        self.key = self.outputs("simswap-table")["Key"]
        self.parameters = parameters | self.outputs("simswap-table")
        self.check_mutual_tls(self.parameters)
        self.parameters["AllowUnauthenticatedCallbacks"] = "true"
        self.physical_ids = self.sam_deploy(STACK, self.parameters)
        report("sam deploy")
        self.api, self.callbacks = [
            f"{self.aws}/_aws/execute-api/{self.physical_ids[api]}/$default" for api in ("PartnerApi", "NetworkApi")
        ]
        simulators = [self.options.bin / "simulators", self.callbacks, str(self.smdp), str(self.network)]
        self.closing.callback(stop, start(simulators, self.directory / "simulators.log"))
        hub = f"http://127.0.0.1:{self.network}/tmf-api/serviceOrdering/v4/hub"
        self.wait_for("the network accepts the registration", lambda: self.registered(hub))

    def secrets(self):
        """Creates the credentials for the peers. The simulated peers use no TLS here, so only the token reaches one."""
        pem = self.issuer.certificate.read_text()
        make = lambda name, secret: self.client("secretsmanager").create_secret(Name=name, SecretString=secret)["ARN"]
        certificate = make("certificate", json.dumps({"certificate": pem, "key": pem}))
        return {"SmdpClientCert": certificate, "NetworkClientCert": certificate, "NetworkToken": make("token", "t0ken")}

    def check_mutual_tls(self, parameters):
        """
        Checks that a deployment needs a host for callbacks, and that this host requires certificates. The emulator does not
        perform mutual TLS, but stores its configuration.
        """
        rejected = self.sam_deploy("unguarded", parameters) is None
        log = (self.directory / "unguarded.log").read_text()
        explained = "CallbackDomain is required" in log
        self.expect(rejected and explained, "a deployment without a host for callbacks is rejected", log)
        certificate = self.client("acm").request_certificate(DomainName="callbacks.example.com")["CertificateArn"]
        self.client("s3").put_object(Bucket="deployments", Key="peers.pem", Body=self.issuer.certificate.read_bytes())
        physical_ids = self.sam_deploy("guarded", parameters | {
            "CallbackDomain": "callbacks.example.com", "CallbackCertificate": certificate,
            "CallbackTruststore": "s3://deployments/peers.pem", "SmdpSubject": "CN=smdp", "NetworkSubject": "CN=network",
        })
        apis = self.client("apigatewayv2")
        host = apis.get_domain_name(DomainName=physical_ids["CallbackHost"])
        truststore = host["MutualTlsAuthentication"]["TruststoreUri"]
        closed = apis.get_api(ApiId=physical_ids["NetworkApi"])["DisableExecuteApiEndpoint"]
        self.expect(closed and truststore == "s3://deployments/peers.pem", "callbacks require mutual TLS", host)
        self.client("cloudformation").delete_stack(StackName="guarded")
        # Otherwise its schedule would keep invoking the sweeper.
        self.wait_for("the stack is deleted", lambda: "guarded-EveryMinute" not in str(self.client("events").list_rules()))
        self.proxies["SweepSwaps"].requests.clear()

    def sam_deploy(self, stack, parameters, template="template.yaml"):
        """Deploys a stack. Returns the physical ids of its resources by logical id, or None if it failed."""
        command = [self.options.tools / "bin/sam", "deploy", "--template-file", self.directory / "infra" / template]
        command += ["--stack-name", stack, "--s3-bucket", "deployments", "--capabilities", "CAPABILITY_IAM"]
        command += ["--no-confirm-changeset"]
        if parameters:
            command += ["--parameter-overrides"]
            command += [f"ParameterKey={name},ParameterValue={value}" for name, value in parameters.items()]
        environment = os.environ | self.credentials | {"SAM_CLI_TELEMETRY": "0"}
        with (self.directory / f"{stack}.log").open("w") as log:
            deployed = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=600)
        if deployed.returncode:
            return None
        resources = self.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}

    def outputs(self, stack):
        outputs = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
        return {output["OutputKey"]: output["OutputValue"] for output in outputs}

    def registered(self, hub):
        with contextlib.suppress(OSError):
            return send(hub, {"callback": self.callbacks})[0] == 201

    def print_logs(self):
        """Prints the last log lines of each function."""
        logs = self.client("logs")
        for group in logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]:
            lines = logs.filter_log_events(logGroupName=group["logGroupName"])["events"][-20:]
            print("---", group["logGroupName"], *(line["message"] for line in lines), sep="\n", file=sys.stderr)

    def check_logs(self):
        """Checks that each log line has the ids of its invocation and swap, and that all metrics are recorded."""
        logs, metrics = self.client("logs"), set()
        for group in logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{STACK}-")["logGroups"]:
            name = group["logGroupName"]
            for event in logs.filter_log_events(logGroupName=name)["events"]:
                with contextlib.suppress(json.JSONDecodeError):
                    line = json.loads(event["message"])
                    if "_aws" in line:
                        for directive in line["_aws"]["CloudWatchMetrics"]:
                            self.expect(directive["Namespace"] == f"simswap/{STACK}", "", line)
                            metrics |= {metric["Name"] for metric in directive["Metrics"]}
                    elif "target" in line and line["target"].split("::")[0].replace("_", "-") in name:
                        self.expect(line.get("span", {}).get("request"), "", line)
                        if name.endswith(("-fulfil-swap", "-deliver-esim")):
                            self.expect(line["span"].get("activation"), "", line)
        expected = {"SwapsAccepted", "SwapsDone", "SwapsFailed", "SubmitToMail", "SubmitToDone", "MailsByState"}
        expected |= {"OverdueSwaps", "CallbacksUnauthenticated", "PoolsLow"}
        self.expect(metrics == expected, "every log line has its ids, and the expected metrics are recorded", metrics)

    # Callers, operators, phones and SES.

    def swap_all_kinds(self):
        """Exercises all code of the functions that calls AWS. Each run uses new lines and SIMs, of its own network."""
        self.import_lines()
        self.create_data_keys()
        self.import_sims()
        swap = self.esim_swap()
        self.check_tokens()
        self.rotate_data_key()
        self.resend_mail(swap)
        self.renew_code(swap)
        self.finish_on_phone(swap)
        self.report_delivery(swap)
        self.account_swaps()
        self.cancel_swap()
        self.list_swaps()
        self.swap_without_stream()

    def import_lines(self):
        self.batch += 1
        rows = ["ID;PHONE_NUMBER;CUSTOMER;RESELLER;NETWORK;CURRENT_SIM;EMAIL;LANGUAGE;STATE;PORTING"]
        for line in range(8):
            at = self.batch * 10 + line
            rows.append(f"{self.line(line)};{self.phone(line)};C-1;R-1;NET{self.batch};{8931086000001000000 + at};{self.contact(line)};nl;ACTIVE;false")
        self.import_file("subscriptions", rows, 8)

    def line(self, number):
        return f"65a1b2c3d4e5f607{self.batch * 10 + number:08x}"

    def phone(self, number):
        return f"+3161{self.batch * 10 + number:07d}"

    def contact(self, number):
        return f"line{self.batch * 10 + number}@example.com"

    def import_sims(self):
        rows = ["SIM_CARD_NUMBER;PUK1;PUK2;PIN1;PIN2;FORM_FACTOR;NETWORK;ACTIVATION_CODE;TAG;AUTO_ASSIGN;RESELLER"]
        for form, first in [("eSIM", 8931086000002000000), ("NANO", 8931086000003000000)]:
            for sim in range(8):
                rows.append(f"{first + self.batch * 10 + sim};12345678;87654321;1234;5678;{form};NET{self.batch};;;true;R-1")
        self.import_file("sims", rows, 16)

    def import_file(self, kind, rows, count):
        file = self.directory / f"{kind}.csv"
        file.write_text("\n".join(rows) + "\n")
        process = self.simswap("import", kind, file)
        if f"{count} added" not in process.stdout:
            fail(f"import {kind}: {process}")
        report(f"import {kind}")

    def simswap(self, *command):
        """Runs one of the operator's commands on the table."""
        command = [self.options.bin / "simswap", *command, "--endpoint", self.aws, "--table", self.table]
        settings = {
            "KMS_KEY_ID": self.key,
            "INSTALLATION": self.parameters.get("Installation", ""),
            "SEALING_KEY": self.parameters.get("SealingKey", ""),
        }
        environment = os.environ | self.credentials | settings
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)

    def create_data_keys(self):
        """
        Deletes the data keys, and has each function that may create one do so. The first function that needs a data key
        creates it.
        """
        self.restart_functions()
        esim = {"eSim": True, "email": "a@example.com", "confirmationCode": CODE}
        for dialect, request in [("account", lambda: self.account(0, "eSim")), ("subscription", lambda: self.submit(0, **esim))]:
            for number in (1, 2):
                key = {"pk": {"S": "K#"}, "sk": {"S": f"key#{number:010}"}}
                self.client("dynamodb").delete_item(TableName=self.table, Key=key)
            status, _, response = request()
            self.expect(status == 404, f"the {dialect} dialect creates a data key, and finds no eSIM", response)
        self.restart_functions()

    def rotate_data_key(self):
        """Adds a second data key as infra/README.md describes. Fields that the first key encrypts remain readable."""
        data_key = self.client("kms").generate_data_key_without_plaintext(
            KeyId=self.key, KeySpec="AES_256",
            EncryptionContext={"table": self.parameters.get("Installation", self.table)},
        )
        self.client("dynamodb").put_item(
            TableName=self.table, ConditionExpression="attribute_not_exists(pk)",
            Item={"pk": {"S": "K#"}, "sk": {"S": "key#0000000002"}, "wrapped": {"B": data_key["CiphertextBlob"]}},
        )
        self.restart_functions()

    def restart_functions(self):
        """
        Restarts all functions, because a running function caches the data key. The emulator restarts a function when its
        memory size changes.
        """
        self.memory += 1
        for function in self.proxies:
            name = self.physical_ids[function]
            self.client("lambda").update_function_configuration(FunctionName=name, MemorySize=self.memory)

    def check_tokens(self):
        status, _, response = send(f"{self.api}/api/QueryActivation")
        self.expect((status, response) == (401, {"message": "Unauthorized"}), "a request without a token is rejected", (status, response))
        token = self.issuer.token("OWNER", customer="C-2")
        status, _, response = self.call(f"/api/QueryActivation?subscriptionId={self.line(0)}", token=token)
        self.expect(status == 200 and response["total"] == 0, "another customer sees no swaps", response)

    def esim_swap(self):
        """Submits an eSIM swap by phone number, with an idempotency key, and repeats the request. INIT, BUSY."""
        body = {"phoneNumber": self.phone(0), "eSim": True, "email": f"anna{self.batch}@example.com", "confirmationCode": CODE}
        headers = {"idempotency-key": f"key-{self.batch}"}
        first = self.call("/api/SimSwapSubscription", body, headers)
        self.expect(first[0] == 200 and first[2]["status"] == "INIT", "an eSIM swap is accepted", first[2])
        again = self.call("/api/SimSwapSubscription", body, headers)
        self.expect(again[0] == 200 and again[2] == first[2], "a repeated request with the key gets the same response", again[2])
        swap = first[2]["id"]
        repeat = self.call("/api/SimSwapSubscription", body)
        self.expect(repeat[0] == 200 and repeat[2]["id"] == swap, "a repeated request without the key gets the same swap", repeat[2])
        busy = self.await_status(swap, "BUSY")
        self.expect(busy.get("providerOrderNumber"), "the network has accepted the order", busy)
        mail = self.wait_for("the e-mail arrives", lambda: self.mail.to(body["email"]))[0]
        self.expect(CODE not in str(mail), "the e-mail does not contain the confirmation code", "")
        self.activation_code = self.code_in(mail)
        return swap

    def code_in(self, mail):
        return re.search(r"LPA:1\$\S+", mail.get_body(("plain",)).get_content())[0]

    def other_address(self):
        return f"anna{self.batch}@example.net"

    def resend_mail(self, swap):
        """Has the QR code sent to another address, with an idempotency key, and repeats the request."""
        body, headers = {"email": self.other_address()}, {"idempotency-key": f"resend-{self.batch}"}
        status, _, response = self.call(f"/api/ResendEsim?id={swap}", body, headers)
        self.expect(status == 200, "a resend to another address is accepted", response)
        status, _, response = self.call(f"/api/ResendEsim?id={swap}", body, headers)
        self.expect(status == 200, "a repeated resend with the key is not another one", response)
        mail = self.wait_for("the e-mail arrives there", lambda: self.mail.to(self.other_address()))[0]
        self.expect(self.code_in(mail) == self.activation_code, "it has the same activation code", "")

    def renew_code(self, swap):
        status, _, response = self.call(f"/api/RenewEsim?id={swap}", {})
        self.expect(status == 200, "a renewal is accepted", response)
        mail = self.wait_for("the next e-mail arrives there", lambda: self.mail.to(self.other_address())[1:])[0]
        new_code = self.code_in(mail)
        self.expect(new_code != self.activation_code, "it has another activation code", "")
        self.activation_code = new_code

    def finish_on_phone(self, swap):
        iccid = self.install(self.activation_code, CODE)
        done = self.await_status(swap, "DONE")
        self.expect(done.get("activatedDate") and done["info"]["profile"] == "installed", "the swap has an activation date", done)
        listener = f"{self.callbacks}/tmf-api/serviceOrdering/v4/listener/serviceOrderStateChangeEvent"
        event = {"event": {"serviceOrder": {"id": done["providerOrderNumber"], "state": "completed"}}}
        status, _, response = send(listener, event)
        self.expect(status == 201, "an event that names only the network's order is accepted", response)
        status, _, response = self.call(f"/api/ReportInstalled?id={swap}", {"witness": "app"})
        self.expect((status, response.get("status")) == (200, "DONE"), "a report that the eSIM is installed changes nothing", response)
        progress = {"iccid": iccid, "notificationPointId": 5, "notificationPointStatus": {"status": "Executed-Success"}}
        status, _, response = send(f"{self.callbacks}/gsma/rsp2/es2plus/handleDownloadProgressInfo", progress)
        state = self.activation(swap)["info"]["esim"]["state"]
        self.expect((status, state) == (204, "disabled"), "what the phone does with the eSIM after the swap is shown", (response, state))

    def install(self, code, confirmation):
        url = f"http://127.0.0.1:{self.smdp}/local/phone/install"
        status, _, response = send(url, {"activationCode": code, "confirmationCode": confirmation})
        self.expect(status == 200, "the phone installs the eSIM", response)
        return response["iccid"]

    def report_delivery(self, swap):
        """Publishes SES's event. The emulator stores the event destination of SES, but sends no events to it."""
        event = {
            "eventType": "Delivery",
            "mail": {"messageId": "not-known-here", "tags": {"activation": [swap], "attempt": ["3-1"]}},
        }
        self.client("sns").publish(TopicArn=self.physical_ids["MailNews"], Message=json.dumps(event))
        self.wait_for(
            "the e-mail counts as delivered",
            lambda: self.activation(swap)["info"].get("delivery") == "delivered",
        )

    def account_swaps(self):
        """In the account dialect, swaps to a card and to an eSIM, and repeats both requests."""
        status, _, response = self.account(1, "autoAssign")
        self.expect(status == 200 and response["mvnoSim"]["puk1"] == "12345678", "a card swap is accepted", response)
        status, _, again = self.account(1, "autoAssign")
        self.expect(again == response, "a repeated request gets the same SIM", again)
        self.wait_for("the card swap is done", lambda: self.newest_on_line(1)["status"] == "DONE")
        headers = {"idempotency-key": f"account-{self.batch}"}
        status, _, response = self.account(2, "eSim", headers)
        self.expect(status == 200 and response["mvnoSim"]["formFactor"] == "eSIM", "an eSIM swap is accepted", response)
        _, _, again = self.account(2, "eSim", headers)
        self.expect(again == response, "a repeated request with the key gets the same SIM", again)
        mail = self.wait_for("its e-mail arrives", lambda: self.mail.to(self.contact(2)))[0]
        self.install(self.code_in(mail), "")
        self.wait_for("the eSIM swap is done", lambda: self.newest_on_line(2)["status"] == "DONE")

    def cancel_swap(self):
        """Cancels a swap of the account dialect. The caller has seen the SIM's codes, so the line keeps the SIM."""
        status, _, response = self.account(3, "eSim")
        self.expect(status == 200, "a swap is accepted", response)
        swap = self.newest_on_line(3)["id"]
        self.await_status(swap, "BUSY")
        status, _, cancelled = self.call(f"/api/CancelActivation?id={swap}", {})
        self.expect(status == 200, "its cancellation is accepted", cancelled)
        ended = self.await_status(swap, "ERROR")
        self.expect(ended["info"]["failure"]["code"] == "cancelled", "the swap ends as cancelled", ended)

    def list_swaps(self):
        """Queries swaps in each role, by cursor and by phone number, and so uses every index of the listings."""
        for role, claims in [("ADMIN", {}), ("OWNER", {"customer": "C-1"}), ("RESELLER", {"reseller": "R-1"})]:
            token = self.issuer.token(role, **claims)
            status, _, page = self.call("/api/QueryActivation?take=1", token=token)
            self.expect(status == 200 and page["total"] >= 3, f"{role} sees swaps", page)
            status, _, following = self.call(f"/api/QueryActivation?take=1&cursor={page['meta']['next']}", token=token)
            self.expect(status == 200 and following["results"] != page["results"], f"{role} sees the next page", following)
        status, _, page = self.call(f"/api/QueryActivation?phoneNumber={self.phone(1).replace('+', '%2B')}")
        self.expect(status == 200 and page["total"] == 1, "a line's swaps are found by its phone number", page)

    def swap_without_stream(self):
        """Turns off the stream, so that only the sweeper wakes the functions, and waits for the e-mail."""
        mappings = [self.physical_ids[f"{function}Stream"] for function in ("FulfilSwap", "DeliverEsim")]
        for mapping in mappings:
            self.client("lambda").update_event_source_mapping(UUID=mapping, Enabled=False)
        try:
            email = f"emil{self.batch}@example.com"
            status, _, response = self.submit(4, eSim=True, email=email, confirmationCode=CODE)
            self.expect(status == 200, "a swap is accepted while the stream is off", response)
            # A new row is due after one lease, to give the stream time to process it.
            self.wait_for("its e-mail arrives", lambda: self.sweep() and self.mail.to(email), 300)
        finally:
            for mapping in mappings:
                self.client("lambda").update_event_source_mapping(UUID=mapping, Enabled=True)

    def restore_table(self):
        """Restores the table as infra/README.md describes, while a swap waits for its phone, and swaps on."""
        began = time.monotonic()
        self.batch += 1
        self.import_lines()
        self.import_sims()
        swap = self.esim_swap()
        dynamodb = self.client("dynamodb")
        original, self.table = self.table, f"{self.table}-restored"
        dynamodb.restore_table_to_point_in_time(
            SourceTableName=original, TargetTableName=self.table, UseLatestRestorableTime=True,
            SSESpecificationOverride={"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": self.key},
        )
        dynamodb.get_waiter("table_exists").wait(TableName=self.table)
        dynamodb.update_table(
            TableName=self.table, StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
            DeletionProtectionEnabled=True,
        )
        ttl = {"Enabled": True, "AttributeName": "expires"}
        dynamodb.update_time_to_live(TableName=self.table, TimeToLiveSpecification=ttl)
        recovery = {"PointInTimeRecoveryEnabled": True}
        dynamodb.update_continuous_backups(TableName=self.table, PointInTimeRecoverySpecification=recovery)
        restored = dynamodb.describe_table(TableName=self.table)["Table"]
        before = dynamodb.describe_table(TableName=original)["Table"]
        indexes = [sorted(index["IndexName"] for index in table["GlobalSecondaryIndexes"]) for table in (restored, before)]
        self.expect(indexes[0] == indexes[1], "the restored table has the same indexes", indexes)
        self.parameters |= {"Table": self.table, "TableStream": restored["LatestStreamArn"], "Installation": original}
        # From here on, functions that only store secrets do without KMS.
        self.parameters["SealingKey"] = self.simswap("sealing-key").stdout.strip()
        self.physical_ids = self.sam_deploy(STACK, self.parameters)
        report(f"the table is restored and deployed, {time.monotonic() - began:.0f} s after the swap was submitted")
        # The first table must not serve anything any more.
        dynamodb.update_table(TableName=original, DeletionProtectionEnabled=False)
        dynamodb.delete_table(TableName=original)
        self.resend_mail(swap)
        self.finish_on_phone(swap)
        self.batch += 1
        self.import_lines()
        self.import_sims()
        self.finish_on_phone(self.esim_swap())
        self.account_swaps()
        self.list_swaps()
        self.swap_without_stream()

    def sweep(self):
        """Invokes the sweeper at once, instead of at the next minute."""
        response = self.client("lambda").invoke(FunctionName=self.physical_ids["SweepSwaps"])
        return response["StatusCode"] == 200

    def stock_is_counted(self):
        """A count before the first import finds no pools, and reads no index."""
        read = any(b'"free1"' in body for _, _, body in self.proxies["SweepSwaps"].requests)
        log = self.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{STACK}-sweep-swaps")
        return read and any('"PoolsLow"' in event["message"] for event in log["events"])

    def submit(self, line, **fields):
        return self.call("/api/SimSwapSubscription", {"subscriptionId": self.line(line)} | fields)

    def account(self, line, sim, headers={}):
        return self.call(f"/mvno/{self.line(line)}/changesim/{sim}", {}, headers)

    def call(self, path, body=None, headers={}, token=None):
        response = send(self.api + path, body, headers | {"authorization": f"Bearer {token or self.issuer.token('ADMIN')}"})
        self.check_denied()
        return response

    def activation(self, swap):
        status, _, response = self.call(f"/api/QueryActivation?id={swap}")
        self.expect(status == 200 and response["total"] == 1, None, response)
        return response["results"][0]

    def newest_on_line(self, line):
        status, _, response = self.call(f"/api/QueryActivation?subscriptionId={self.line(line)}")
        self.expect(status == 200 and response["results"], None, response)
        return response["results"][0]

    def await_status(self, swap, status):
        return self.wait_for(f"{swap} is {status}", lambda: (a := self.activation(swap))["status"] == status and a)

    # The roles.

    def check_denied(self):
        for function, proxy in self.proxies.items():
            if proxy.denied:
                raise Denied(f"{function}: {proxy.denied[0]}")

    def statements(self, function, policy):
        role = self.physical_ids[f"{function}Role"]
        document = self.client("iam").get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        return document["Statement"]

    def check_roles(self):
        faults, call_count, action_count = [], 0, 0
        for function, proxy in self.proxies.items():
            calls = [call for request in proxy.requests for call in policies.calls_of(*request, ACCOUNT, REGION)]
            statements = self.statements(function, "calls")
            faults += policies.find_faults(function, statements, calls)
            call_count += len(calls)
            action_count += sum(len(templates.as_list(statement["Action"])) for statement in statements)
        if faults:
            fail("\n".join(["each role allows exactly what its function needs:", *faults]))
        report(f"the roles allow all {call_count} calls, which need all {action_count} actions, with their resources and keys")

    def check_rejected_without(self, function, action):
        """Removes an action from the role of a function, and swaps until IAM rejects a call. Then restores the role."""
        role, originals, iam = self.physical_ids[f"{function}Role"], {}, self.client("iam")
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            if policy == "platform":
                continue
            originals[policy] = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
            remaining = [without_action(statement, action) for statement in originals[policy]["Statement"]]
            document = originals[policy] | {"Statement": [statement for statement in remaining if statement]}
            if document["Statement"]:
                iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))
            else:
                iam.delete_role_policy(RoleName=role, PolicyName=policy)
        stdout, sys.stdout = sys.stdout, open(os.devnull, "w")
        try:
            self.swap_all_kinds()
        except Denied as denied:
            sys.stdout = stdout
            if action not in str(denied):
                raise
            report(f"without {action}, IAM rejects a call: {denied}")
        else:
            sys.stdout = stdout
            fail(f"{function} does not need {action}")
        finally:
            sys.stdout = stdout
            for policy, document in originals.items():
                iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))
            for proxy in self.proxies.values():
                proxy.denied.clear()

    def wait_for(self, condition, poll, timeout=TIMEOUT):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if result := poll():
                report(condition)
                return result
            self.check_denied()
            time.sleep(0.1)
        fail(f"timed out after {timeout} s: {condition}")

    def expect(self, holds, what, actual):
        self.check_denied()
        if not holds:
            fail(f"{what}: {actual}")
        if what:
            report(what)


def without_action(statement, action):
    """The statement without an action, or None if it allows no other action."""
    actions = [other for other in templates.as_list(statement["Action"]) if other != action]
    return statement | {"Action": actions} if actions else None


if __name__ == "__main__":
    main()
