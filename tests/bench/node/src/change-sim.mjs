// GET and POST /mvno/{accountId}/changesim/autoAssign

import { open } from './keys.mjs'
import { answer, run } from './runtime.mjs'
import { begin } from './swap.mjs'
import { barrier, callerOf, get, maySee } from './table.mjs'

const refused = (status, message) => answer(status, { success: false, error: { message } })

run(async (event) => {
  const caller = callerOf(event)
  const { accountId, newSim } = event.pathParameters
  if (!/^[0-9a-f]{24}$/i.test(accountId)) return refused(404, 'account')
  if (newSim !== 'autoAssign') return refused(404, 'sim')
  const line = await get(`L#${accountId.toLowerCase()}`, 'line')
  if (!line || !maySee(caller, line)) return refused(404, 'account')
  if (barrier(line)) return refused(409, 'state')
  const swap = await begin({ caller, line, kind: 'physical', asked: {} })
  if (!swap) return refused(404, 'sim')
  const sim = await get(`S#${swap.newSim}`, 'sim')
  const secret = (field) => sim[field] ? open(sim.pk, field, sim[field]) : ''
  return answer(200, {
    success: true,
    mvnoSim: {
      simNumber: swap.newSim,
      imsi: sim.imsi ?? '',
      network: sim.network,
      puk1: await secret('puk1'),
      puk2: await secret('puk2'),
      pin1: await secret('pin1'),
      pin2: await secret('pin2'),
      formFactor: sim.form,
    },
  })
})
