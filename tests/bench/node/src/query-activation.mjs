// GET /api/QueryActivation?id=…

import { QueryCommand } from '@aws-sdk/lib-dynamodb'
import { open } from './keys.mjs'
import { answer, run } from './runtime.mjs'
import { callerOf, maySee, table, TABLE } from './table.mjs'
import { view } from './view.mjs'

run(async (event) => {
  const caller = callerOf(event)
  const id = event.queryStringParameters?.id
  if (!/^[\w-]{1,64}$/.test(id ?? '')) return answer(400, { responseStatus: { errorCode: 'ValidationException' } })
  const { Items: rows } = await table.send(new QueryCommand({
    TableName: TABLE,
    KeyConditionExpression: 'pk = :pk',
    ExpressionAttributeValues: { ':pk': `A#${id}` },
    ConsistentRead: true,
  }))
  const swap = rows.find((row) => row.sk === 'activation')
  const mails = rows.filter((row) => row.sk.startsWith('delivery#'))
  const found = swap && maySee(caller, swap) ? [swap] : []
  const results = await Promise.all(found.map(async (swap) =>
    view(swap, swap.code && await open(swap.pk, 'code', swap.code), mails.at(-1))))
  return answer(200, { offset: 0, total: results.length, results, meta: {} })
})
