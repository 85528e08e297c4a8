// An activation as the API returns it.

const formats = new Intl.DateTimeFormat('sv-SE', {
  timeZone: 'Europe/Amsterdam', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit',
  second: '2-digit', fractionalSecondDigits: 3, timeZoneName: 'longOffset',
})

function time(millis) {
  const part = Object.fromEntries(formats.formatToParts(millis).map(({ type, value }) => [type, value]))
  const offset = part.timeZoneName.replace('GMT', '') || '+00:00'
  return `${part.year}-${part.month}-${part.day}T${part.hour}:${part.minute}:${part.second}.${part.fractionalSecond}${offset}`
}

const SHOWN = {
  accepted: 'INIT', ordering: 'INIT', ordered: 'BUSY', started: 'BUSY', done: 'DONE', error: 'ERROR',
}

export function view(swap, code, mail) {
  return {
    id: swap.pk.slice('A#'.length),
    createdAt: time(swap.createdAt),
    modifiedAt: time(Math.max(swap.modifiedAt, mail?.modifiedAt ?? 0)),
    status: SHOWN[swap.phase] ?? (swap.orderNumber ? 'BUSY' : 'INIT'),
    activationType: 'SIMSWAP',
    referenceNumber: swap.reference ?? '',
    subscriptionId: swap.line,
    providerOrderNumber: swap.orderNumber,
    phoneNumber: swap.phone.replace(/^\+316/, '06-'),
    activatedDate: swap.endedAt && swap.activatedAt && time(swap.activatedAt),
    info: {
      eSim: swap.eSim,
      email: swap.email,
      confirmationCode: swap.hasCode ? code ?? '##########' : undefined,
      newSimCardNumber: swap.newSimGiven,
      delivery: mail?.state,
      profile: swap.profile,
    },
  }
}
