// The table, its rows, and who may see them.

import { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { DynamoDBDocumentClient, GetCommand } from '@aws-sdk/lib-dynamodb'

export const TABLE = process.env.TABLE
export const table = DynamoDBDocumentClient.from(new DynamoDBClient({}), { marshallOptions: { removeUndefinedValues: true } })

export async function get(pk, sk) {
  const { Item } = await table.send(new GetCommand({ TableName: TABLE, Key: { pk, sk }, ConsistentRead: true }))
  return Item
}

export function callerOf(event) {
  const { sub, role, customer, reseller } = event.requestContext.authorizer.jwt.claims
  const claim = { OWNER: customer, RESELLER: reseller, ADMIN: '' }[role]
  return { sub, role, customer, reseller, identity: `${sub.length}:${sub}${role}${claim.length}:${claim}` }
}

export function maySee(caller, row) {
  return caller.role === 'ADMIN' || (caller.role === 'OWNER' ? row.customer === caller.customer : row.reseller === caller.reseller)
}

export function barrier(line) {
  return line.state !== 'ACTIVE' || line.porting || line.locked || line.swap
}
