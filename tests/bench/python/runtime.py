"""The Runtime API's client: polls for an event, passes it to the function, and posts the response. `python runtime.py submit-swap` runs that function."""

import http.client
import importlib
import json
import os
import sys
import traceback

PATH = "/2018-06-01/runtime/invocation"


def main(function):
    handler = importlib.import_module(function.replace("-", "_")).handler
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

    def call(method, path, body=None):
        api.request(method, f"{PATH}/{path}", body)
        response = api.getresponse()
        return response.headers, response.read()

    while True:
        headers, body = call("GET", "next")
        request = headers["lambda-runtime-aws-request-id"]
        try:
            call("POST", f"{request}/response", json.dumps(handler(json.loads(body), None)))
        except Exception as error:
            told = {"errorType": type(error).__name__, "errorMessage": traceback.format_exc()}
            call("POST", f"{request}/error", json.dumps(told))


def answer(status, body):
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json; charset=utf-8"},
        "body": json.dumps(body, ensure_ascii=False, separators=(",", ":")),
    }


if __name__ == "__main__":
    sys.modules["runtime"] = sys.modules["__main__"]
    main(sys.argv[1])
