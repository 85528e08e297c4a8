// Draws a QR code many times; prints how long one took, and the last image.

import { performance } from 'node:perf_hooks'
import QRCode from 'qrcode'

const [code, images] = [process.argv[2], Number(process.argv[3])]
const times = []
let png
for (let image = 0; image < images; image++) {
  const began = performance.now()
  png = await QRCode.toBuffer(code, { errorCorrectionLevel: 'M', margin: 4, scale: 8 })
  times.push(performance.now() - began)
}
const counted = times.slice(images / 10).sort((a, b) => a - b)
const milliseconds = counted[counted.length >> 1]
console.log(JSON.stringify({ library: 'Node, `qrcode`', milliseconds, png: png.toString('base64') }))
