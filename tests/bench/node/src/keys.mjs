// Encrypts, decrypts and signs with the table's data key, which KMS unwraps once a process.

import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto'
import { DecryptCommand, KMSClient } from '@aws-sdk/client-kms'
import { QueryCommand } from '@aws-sdk/lib-dynamodb'
import { table, TABLE } from './table.mjs'

const kms = new KMSClient({})
let opened

async function unwrap() {
  const { Items: [row] } = await table.send(new QueryCommand({
    TableName: TABLE,
    KeyConditionExpression: 'pk = :pk',
    ExpressionAttributeValues: { ':pk': 'K#' },
    ScanIndexForward: false,
    Limit: 1,
    ConsistentRead: true,
  }))
  const number = Number(row.sk.slice('key#'.length))
  const { Plaintext } = await kms.send(new DecryptCommand({
    KeyId: process.env.KMS_KEY_ID,
    CiphertextBlob: row.wrapped,
    EncryptionContext: { table: TABLE },
  }))
  const derive = (use) => createHmac('sha256', Plaintext).update(`simswap ${use} ${number}`).digest()
  return { number, sealing: derive('sealing'), signing: derive('signing') }
}

const key = () => (opened ??= unwrap())

export async function seal(pk, field, text) {
  const { number, sealing } = await key()
  const nonce = randomBytes(12)
  const cipher = createCipheriv('aes-256-gcm', sealing, nonce).setAAD(Buffer.from(`${pk}\n${field}`))
  const prefix = Buffer.alloc(4)
  prefix.writeUInt32BE(number)
  return Buffer.concat([prefix, nonce, cipher.update(text), cipher.final(), cipher.getAuthTag()])
}

export async function open(pk, field, sealed) {
  const { sealing } = await key()
  const bytes = Buffer.from(sealed)
  const cipher = createDecipheriv('aes-256-gcm', sealing, bytes.subarray(4, 16))
    .setAAD(Buffer.from(`${pk}\n${field}`))
    .setAuthTag(bytes.subarray(-16))
  return Buffer.concat([cipher.update(bytes.subarray(16, -16)), cipher.final()]).toString()
}

export async function sign(purpose, text) {
  const { number, signing } = await key()
  return `${number}:${createHmac('sha256', signing).update(`${purpose}\n${text}`).digest('hex')}`
}
