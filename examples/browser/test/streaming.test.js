import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Chat } from '../src/chat/chat.js'

/** An engine whose next token is the last one plus one, and that notes what it is given. */
class Counting {
  context = 20
  length = 0
  /** @type {number[]} */
  seen = []

  /** @param {number} length */
  truncate(length) {
    this.length = Math.min(this.length, length)
  }

  /**
   * @param {number[]} tokens
   * @param {() => Promise<boolean>} stopped
   */
  async evaluate(tokens, stopped) {
    if (await stopped()) return null
    this.seen.push(...tokens)
    this.length += tokens.length
    const logits = new Float32Array(32)
    logits[(tokens.at(-1) ?? 0) + 1] = 9
    return logits
  }
}

const vocabulary = { ends: new Set([12]), bytes: (/** @type {number} */ token) => (token === 8 ? [0xc3] : token === 9 ? [0xa9] : [65]) }

/** @param {number[]} prompt */
function chat(prompt) {
  const engine = new Counting()
  const decoded = { ...vocabulary, bytes: (/** @type {number} */ token) => Uint8Array.from(vocabulary.bytes(token)) }
  const made = new Chat(/** @type {any} */ (engine), /** @type {any} */ (decoded), /** @type {any} */ ({ prompt: () => ({ tokens: prompt, dropped: 0 }) }), {})
  return { engine, made }
}

/**
 * @param {Chat} made
 * @param {import('../src/chat/chat.js').Options} [options]
 * @param {() => Promise<boolean>} [stopped]
 */
async function all(made, options = {}, stopped) {
  const deltas = []
  for await (const delta of made.stream([], { temperature: 0, ...options }, stopped)) deltas.push(delta)
  return { text: deltas.map(({ text }) => text).join(''), last: deltas.at(-1) }
}

test('an answer ends at its end token, and half a character waits for its other half', async () => {
  const { made } = chat([3, 4, 6])
  const { text, last } = await all(made)
  assert.equal(text, 'AéAA') // 7, 8 and 9, 10, 11
  assert.deepEqual({ reason: last?.reason, tokens: last?.tokens, prompt: last?.prompt }, { reason: 'stop', tokens: 5, prompt: 3 })
})

test('a prompt that begins like the last one is not evaluated again', async () => {
  const { engine, made } = chat([3, 4, 6])
  await all(made)
  engine.seen = []
  const { last } = await all(made)
  assert.equal(last?.cached, 2)
  assert.equal(engine.seen[0], 6)
})

test('an answer ends at the limit and where it is stopped', async () => {
  assert.equal((await all(chat([3]).made, { maxTokens: 2 })).last?.reason, 'length')
  let asked = 0
  const { last } = await all(chat([3]).made, {}, async () => ++asked > 3)
  assert.deepEqual([last?.reason, last?.tokens], ['stopped', 3])
})
