import assert from 'node:assert/strict'
import { test } from 'node:test'
import { printable } from '../src/errors.js'
import { clock, languageName, toSrt, toText } from '../src/page/formats.js'

const segments = [
  { start: 0, end: 1.5, text: ' One.' },
  { start: 3599.9996, end: 3661.25, text: ' Two.' },
]

test('subtitles round to thousandths without a second of 60', () => {
  assert.equal(toSrt(segments), '1\n00:00:00,000 --> 00:00:01,500\nOne.\n\n2\n01:00:00,000 --> 01:01:01,250\nTwo.\n')
  assert.equal(toText(segments), 'One.\nTwo.')
})

test('a clock has hours only where there are any', () => {
  assert.deepEqual([0, 61.9, 3661].map(clock), ['0:00', '1:01', '1:01:01'])
})

test('languages have names, and codes of no standard stay codes', () => {
  assert.deepEqual(['de', 'haw', '??'].map(languageName), ['German', 'Hawaiian', '??'])
})

test('what is shown of a bundle cannot steer the page', () => {
  assert.equal(printable('a\u202eb\nc'), 'a\u{fffd}b\u{fffd}c')
  assert.equal(printable('x'.repeat(200)).length, 120)
})
