// POST /api/SimSwapSubscription, for an eSIM.

import { sign } from './keys.mjs'
import { answer, run } from './runtime.mjs'
import { begin } from './swap.mjs'
import { barrier, callerOf, get, maySee } from './table.mjs'
import { view } from './view.mjs'

const faulty = (field) => answer(400, { responseStatus: { errorCode: 'ValidationException', errors: [{ fieldName: field }] } })
const refused = (status, errorCode) => answer(status, { responseStatus: { errorCode } })

run(async (event) => {
  const caller = callerOf(event)
  const { subscriptionId, eSim, email, confirmationCode, referenceNumber = '' } = JSON.parse(event.body)
  if (typeof subscriptionId !== 'string' || !subscriptionId) return faulty('subscriptionId')
  if (eSim !== true) return faulty('eSim')
  if (!/^[^@\s]+@[^@\s]+$/.test(email ?? '')) return faulty('email')
  if (!/^[\x21-\x7e]{1,10}$/.test(confirmationCode ?? '')) return faulty('confirmationCode')
  if (referenceNumber.length > 15) return faulty('referenceNumber')

  const line = await get(`L#${subscriptionId}`, 'line')
  if (!line || !maySee(caller, line)) return refused(404, 'NotFound')
  if (barrier(line)) return refused(409, 'Conflict')
  const request = await sign('request', JSON.stringify([subscriptionId, referenceNumber, eSim, email, confirmationCode, null]))
  const asked = { eSim, email, hasCode: true, reference: referenceNumber || undefined }
  const swap = await begin({ caller, line, kind: 'esim', asked, code: confirmationCode, request })
  return swap ? answer(200, view(swap, confirmationCode)) : refused(404, 'NotFound')
})
