// The Runtime API's client: polls for an event, passes it to the function, and posts the response, over one connection.

import http from 'node:http'

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':')

function call(method, path, body) {
  return new Promise((resolve, reject) => {
    const request = http.request({ agent, host, port, method, path: `/2018-06-01/runtime/invocation/${path}` }, (response) => {
      const parts = []
      response.on('data', (part) => parts.push(part))
      response.on('end', () => resolve({ headers: response.headers, body: Buffer.concat(parts).toString() }))
    })
    request.on('error', reject)
    request.end(body)
  })
}

export async function run(handler) {
  for (;;) {
    const { headers, body } = await call('GET', 'next')
    const id = headers['lambda-runtime-aws-request-id']
    try {
      await call('POST', `${id}/response`, JSON.stringify(await handler(JSON.parse(body))))
    } catch (error) {
      await call('POST', `${id}/error`, JSON.stringify({ errorType: error.name, errorMessage: String(error.stack) }))
    }
  }
}

export function answer(statusCode, body) {
  return { statusCode, headers: { 'content-type': 'application/json; charset=utf-8' }, body: JSON.stringify(body) }
}
