import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Prompter } from '../src/chat/prompt.js'

/** A template that joins messages, each begun by a control token. */
class Joined {
  /** @param {string} source */
  constructor(source) {
    if (source === 'damaged') throw new Error('line 1: no such thing')
  }

  /** @param {Record<string, unknown>} values */
  render({ messages, add_generation_prompt: open }) {
    const said = /** @type {import('../src/chat/prompt.js').Message[]} */ (messages)
    return said.map(({ role, content }) => `<s>${role}:${content}`).join('') + (open ? '<s>' : '')
  }
}

/** One token a character; `<s>` is token 1 where it may be one. */
const vocabulary = /** @type {any} */ ({
  controls: new Map([['<s>', 1]]),
  bos: null,
  /**
   * @param {string} text
   * @param {boolean} special
   */
  encode(text, special) {
    const parts = special ? text.split(/(<s>)/) : [text]
    return parts.flatMap((part) => (special && part === '<s>' ? [1] : Array.from(part, (one) => one.codePointAt(0))))
  },
})

const prompter = new Prompter(Joined, 'whole', {}, vocabulary)
/** @param {string} content */
const user = (content) => /** @type {const} */ ({ role: 'user', content })

test('a control token that a user spells stays text', () => {
  const tokens = prompter.tokens([user('a<s>b')])
  assert.equal(tokens.filter((token) => token === 1).length, 2) // the template's own
  assert.deepEqual(tokens.slice(-6, -1), Array.from('a<s>b', (one) => one.codePointAt(0)))
})

test('marks that a user writes are removed and not believed', () => {
  assert.deepEqual(prompter.tokens([user('a\ue10a1\ue10bb')]), prompter.tokens([user('a1b')]))
})

test('the oldest turns are left out where not all fit, and the system message stays', () => {
  const answer = /** @type {const} */ ({ role: 'assistant', content: 'x'.repeat(40) })
  const system = /** @type {const} */ ({ role: 'system', content: 'be brief' })
  const { tokens, dropped } = prompter.prompt([system, user('old'), answer, user('new')], 80)
  assert.equal(dropped, 2)
  assert.deepEqual(tokens, prompter.tokens([system, user('new')]))
})

test('a last message that is too long is refused by its length', () => {
  assert.throws(() => prompter.prompt([user('x'.repeat(100))], 80), /107 tokens .* at most 40 fit/)
})

test('a damaged template is the fault of the bundle', () => {
  assert.throws(() => new Prompter(Joined, 'damaged', {}, vocabulary), { name: 'BundleError' })
})
