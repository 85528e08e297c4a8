"""Encrypts, decrypts and signs with the table's data key, which KMS unwraps once a process."""

import functools
import hashlib
import hmac
import os

import boto3
from boto3.dynamodb.conditions import Key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from table import TABLE, table

kms = boto3.client("kms")


@functools.cache
def key():
    found = table.query(KeyConditionExpression=Key("pk").eq("K#"), ScanIndexForward=False, Limit=1, ConsistentRead=True)
    row = found["Items"][0]
    number = int(row["sk"].removeprefix("key#"))
    opened = kms.decrypt(
        KeyId=os.environ["KMS_KEY_ID"], CiphertextBlob=row["wrapped"].value, EncryptionContext={"table": TABLE}
    )

    def derive(use):
        return hmac.digest(opened["Plaintext"], f"simswap {use} {number}".encode(), hashlib.sha256)

    return number, AESGCM(derive("sealing")), derive("signing")


def seal(pk, field, text):
    number, sealing, _ = key()
    nonce = os.urandom(12)
    return number.to_bytes(4, "big") + nonce + sealing.encrypt(nonce, text.encode(), f"{pk}\n{field}".encode())


def open_sealed(pk, field, sealed):
    _, sealing, _ = key()
    data = bytes(sealed.value)
    return sealing.decrypt(data[4:16], data[16:], f"{pk}\n{field}".encode()).decode()


def sign(purpose, text):
    number, _, signing = key()
    tag = hmac.digest(signing, f"{purpose}\n{text}".encode(), hashlib.sha256)
    return f"{number}:{tag.hex()}"
