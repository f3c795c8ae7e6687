// Transcribes WAV files as the page does, in Node: node tools/transcribe.mjs BUNDLE WAV... [--language xx]. One JSON object
// a line: file, text, segments, language, seconds. For comparing with `sottovoce transcribe`.

import { readFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import * as ort from 'onnxruntime-web'
import { toSpeech } from '../src/audio/decode.js'
import { readWave } from '../src/audio/wav.js'
import { openBundle } from '../src/bundle/bundle.js'
import { openTranscriber } from '../src/speech/transcriber.js'

const { values, positionals } = parseArgs({ options: { language: { type: 'string' } }, allowPositionals: true })
const [bundle, ...files] = positionals
if (!bundle || !files.length) throw new Error('node tools/transcribe.mjs BUNDLE WAV...')
ort.env.wasm.numThreads = 1
let began = performance.now()
const transcriber = await openTranscriber(ort, await openBundle(new Blob([await readFile(bundle)])))
console.error(`opened in ${(performance.now() - began).toFixed(0)} ms`)
for (const file of files) {
  const bytes = await readFile(file)
  const audio = readWave(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength))
  if (!audio) throw new Error(`${file}: not a WAV file`)
  began = performance.now()
  const found = await transcriber.transcribe(toSpeech(audio), { language: values.language ?? null })
  const text = found.segments.map((segment) => segment.text).join('')
  console.log(JSON.stringify({ file, text, ...found, seconds: (performance.now() - began) / 1000 }))
}
await transcriber.close()
