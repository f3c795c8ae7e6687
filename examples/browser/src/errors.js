// What can be wrong, by whose fault: of each kind the page shows the message alone, which names the value and the way out.

/** A bundle that is damaged, made for another task, or beyond this page. */
export class BundleError extends Error {
  name = 'BundleError'
}

/** Audio that cannot be used. */
export class AudioError extends Error {
  name = 'AudioError'
}

/** An option or a message that makes no sense. */
export class InputError extends Error {
  name = 'InputError'
}

/** ONNX Runtime failed. */
export class EngineError extends Error {
  name = 'EngineError'
}

/**
 * What went wrong in one line, whoever threw it.
 * @param {unknown} error
 * @returns {string}
 */
export function messageOf(error) {
  const text = error instanceof Error ? error.message : String(error)
  return text.split('\n')[0] ?? ''
}

/**
 * `text` safe to show: control characters replaced, cut at `limit`.
 * @param {unknown} value
 * @param {number} [limit]
 * @returns {string}
 */
export function printable(value, limit = 120) {
  const text = typeof value === 'string' ? value : JSON.stringify(value) ?? String(value)
  const shown = text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, '\u{FFFD}')
  return shown.length <= limit ? shown : shown.slice(0, limit - 1) + '…'
}
