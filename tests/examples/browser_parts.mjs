// One part of the browser's example on JSON from stdin: { part, ... } in, its result as JSON out. Driven by
// test_browser_parts.py, which compares with the runtime's own. Needs Node alone.

import { readFile, writeFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'

const SRC = new URL('../../examples/browser/src/', import.meta.url)
const load = (path) => import(new URL(path, SRC).href)
const floats = (values) => Float32Array.from(values, (value) => value ?? -Infinity)

const PARTS = {
  async random({ seeds, count }) {
    const { Pcg64 } = await load('random.js')
    return seeds.map((seed) => {
      const [uniform, gumbel] = [new Pcg64(BigInt(seed)), new Pcg64(BigInt(seed))]
      const draw = (one) => Array.from({ length: count }, one)
      return { uniform: draw(() => uniform.uniform()), gumbel: draw(() => gumbel.gumbel()) }
    })
  },
  async loops({ rows }) {
    const { loopStart } = await load('speech/guards.js')
    return rows.map((row) => loopStart(row))
  },
  async texts({ texts, seconds }) {
    const { compressionRatio, tooFast } = await load('speech/guards.js')
    return Promise.all(texts.map(async (one) => [await compressionRatio(one), tooFast(one, seconds)]))
  },
  async grammar({ tokens, rows }) {
    const [{ Grammar }, { readSteering }] = [await load('speech/grammar.js'), await load('speech/tokens.js')]
    const grammar = new Grammar(readSteering(tokens, rows[0].logits.length))
    return rows.map(({ logits, done }) => {
      const allowed = floats(logits)
      grammar.apply(allowed, done)
      return Array.from(allowed, (value) => (Number.isFinite(value) ? value : null))
    })
  },
  async cuts({ tokens, vocabulary, rows }) {
    const [{ cutSegments }, { readSteering }] = [await load('speech/segments.js'), await load('speech/tokens.js')]
    return rows.map(({ ids, duration }) => cutSegments(ids, readSteering(tokens, vocabulary), duration))
  },
  async pieces({ rows }) {
    const [{ pieces }, { speechSpans }] = [await load('speech/chunking.js'), await load('speech/vad.js')]
    return rows.map(({ probabilities, total }) => {
      const spans = speechSpans(floats(probabilities), total)
      return { spans, pieces: pieces(spans, floats(probabilities)) }
    })
  },
  async table({ file, special, rows }) {
    const { TokenTable } = await load('speech/tokens.js')
    const table = new TokenTable(new Uint8Array(await readFile(file)), special)
    return rows.map((row) => table.decode(row))
  },
  async wave({ files }) {
    const [{ readWave }, { toSpeech }] = [await load('audio/wav.js'), await load('audio/decode.js')]
    return Promise.all(
      files.map(async (file) => {
        const bytes = await readFile(file)
        const audio = readWave(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength))
        return audio ? Array.from(toSpeech(audio)) : null
      }),
    )
  },
  async samples({ options, seed, prompt, rows }) {
    const { Sampler, samplingOf } = await load('chat/sampling.js')
    const sampler = new Sampler(samplingOf({}, options), prompt, BigInt(seed))
    return rows.map((row) => {
      const token = sampler.choose(floats(row))
      sampler.accept(token)
      return token
    })
  },
  async bundle({ files }) {
    const { openBundle } = await load('bundle/bundle.js')
    return Promise.all(
      files.map(async (file) => {
        try {
          const bundle = await openBundle(new Blob([await readFile(file)]))
          for (const name of bundle.manifest.files.keys()) await bundle.read(name)
          return { name: bundle.manifest.name, files: [...bundle.manifest.files.keys()] }
        } catch (error) {
          return { error: `${error.name}: ${error.message}` }
        }
      }),
    )
  },
  async widen({ model, weights, out }) {
    const { widen, WIDENED } = await load('engines/widen.js')
    const wide = widen(new Uint8Array(await readFile(model)), new Uint8Array(await readFile(weights)))
    if (!wide) return null
    await writeFile(`${out}/model.onnx`, wide.model)
    await writeFile(`${out}/${WIDENED}`, wide.widened)
    return wide.widened.length
  },
}

const { part, ...given } = JSON.parse(await text(process.stdin))
process.stdout.write(JSON.stringify(await PARTS[part](given)))
