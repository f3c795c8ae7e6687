// Transcripts and times as text.

/** @typedef {import('../speech/transcriber.js').Segment} Segment */

/**
 * One line a segment.
 * @param {readonly Segment[]} segments
 */
export function toText(segments) {
  return segments.map(({ text }) => text.trim()).join('\n')
}

/**
 * SubRip subtitles.
 * @param {readonly Segment[]} segments
 */
export function toSrt(segments) {
  return segments
    .map(({ start, end, text }, i) => `${i + 1}\n${srtTime(start)} --> ${srtTime(end)}\n${text.trim()}\n`)
    .join('\n')
}

/**
 * Minutes and seconds, with hours where there are any.
 * @param {number} seconds
 */
export function clock(seconds) {
  const whole = Math.floor(seconds)
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60]
  const rest = String(whole % 60).padStart(2, '0')
  return hours ? `${hours}:${String(minutes).padStart(2, '0')}:${rest}` : `${minutes}:${rest}`
}

/**
 * "German" for "de", in English as the page is.
 * @param {string} code
 */
export function languageName(code) {
  try {
    return new Intl.DisplayNames('en', { type: 'language' }).of(code) ?? code
  } catch {
    return code // Whisper's codes are not all of the standard
  }
}

/**
 * Hand the user a file.
 * @param {string} name
 * @param {string} text
 */
export function save(name, text) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob([text], { type: 'text/plain' }))
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
}

/** @param {number} seconds */
function srtTime(seconds) {
  const thousandths = Math.round(seconds * 1000)
  const part = (/** @type {number} */ value, width = 2) => String(value).padStart(width, '0')
  const [hours, minutes] = [Math.floor(thousandths / 3600000), Math.floor(thousandths / 60000) % 60]
  return `${part(hours)}:${part(minutes)}:${part(Math.floor(thousandths / 1000) % 60)},${part(thousandths % 1000, 3)}`
}
