// The transaction that creates a swap.

import { createHash, randomBytes, randomInt } from 'node:crypto'
import { QueryCommand, TransactWriteCommand } from '@aws-sdk/lib-dynamodb'
import { ulid } from 'ulid'
import { seal } from './keys.mjs'
import { table, TABLE } from './table.mjs'

const LEASE = 60_000
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

const sha256 = (text) => createHash('sha256').update(text).digest('hex')
const sortable = (at) => String(at).padStart(14, '0')

async function freeSims(line, kind, now) {
  const { Items } = await table.send(new QueryCommand({
    TableName: TABLE,
    IndexName: 'free1',
    KeyConditionExpression: 'shelf = :shelf AND freeFrom <= :now',
    ExpressionAttributeValues: { ':shelf': `${line.network}#${line.reseller ?? ''}#${kind}`, ':now': sortable(now) },
    Limit: 32,
  }))
  return Items.map((row) => row.pk.slice('S#'.length))
}

// Reserves a free SIM, marks the line and writes the swap, or does nothing. Undefined if no SIM is left.
export async function begin({ caller, line, kind, asked, code, request }) {
  const now = Date.now()
  const id = ulid(now)
  const pk = `A#${id}`
  const shard = (createHash('sha256').update(id).digest()[0] % 16).toString(16)
  const subscription = line.pk.slice('L#'.length)
  const esim = kind === 'esim'
  const symbols = [...randomBytes(15)].map((byte) => ALPHABET[byte & 31]).join('')
  const matchingId = esim && symbols.match(/.{5}/g).join('-')
  const secrets = {
    code: code && await seal(pk, 'code', code),
    matchingId: matchingId ? await seal(pk, 'matchingId', matchingId) : undefined,
  }
  const candidates = await freeSims(line, esim ? 'esim' : 'card', now)
  const start = candidates.length && randomInt(candidates.length)
  for (const newSim of [...candidates.slice(start), ...candidates.slice(0, start)]) {
    const swap = {
      pk, sk: 'activation', swapId: id, shard, resellerShard: `${line.reseller ?? ''}#${shard}`,
      line: subscription, phone: line.phone, customer: line.customer, reseller: line.reseller, network: line.network,
      language: line.language, kind, oldSim: line.sim, newSim, createdAt: now, modifiedAt: now, phase: 'accepted', version: 1,
      dueAt: sortable(now + LEASE), smdpOrder: 'none', order: 'none',
      timeline: [`${now} ${caller.role} ${caller.sub} asked`], ...asked, ...secrets,
    }
    try {
      await table.send(new TransactWriteCommand({
        TransactItems: [
          { Put: { TableName: TABLE, Item: swap, ConditionExpression: 'attribute_not_exists(pk)' } },
          {
            Update: {
              TableName: TABLE,
              Key: { pk: line.pk, sk: 'line' },
              UpdateExpression: 'SET swap = :swap, swapCaller = :caller, swapRequest = :request',
              ConditionExpression: 'attribute_not_exists(swap) AND #state = :active AND porting = :no AND locked = :no AND sim = :sim AND customer = :customer AND reseller = :reseller',
              ExpressionAttributeNames: { '#state': 'state' },
              ExpressionAttributeValues: {
                ':swap': id, ':caller': sha256(caller.identity), ':request': request ?? `0:${sha256(JSON.stringify(asked))}`,
                ':active': 'ACTIVE', ':no': false, ':sim': line.sim, ':customer': line.customer, ':reseller': line.reseller,
              },
              ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
            },
          },
          {
            Update: {
              TableName: TABLE,
              Key: { pk: `S#${newSim}`, sk: 'sim' },
              UpdateExpression: 'SET #state = :busy, holder = :holder REMOVE shelf',
              ConditionExpression: `#state = :free AND freeFrom <= :now AND network = :network AND form ${esim ? '=' : '<>'} :esim AND (attribute_not_exists(reseller) OR reseller = :reseller)`,
              ExpressionAttributeNames: { '#state': 'state' },
              ExpressionAttributeValues: {
                ':busy': 'BUSY', ':free': 'FREE', ':holder': pk, ':now': sortable(now), ':network': line.network,
                ':esim': 'eSIM', ':reseller': line.reseller,
              },
            },
          },
        ],
      }))
      return swap
    } catch (error) {
      const failed = error.CancellationReasons?.map((reason) => reason.Code) ?? []
      if (failed[2] !== 'ConditionalCheckFailed' || failed[1] === 'ConditionalCheckFailed') throw error
    }
  }
}
