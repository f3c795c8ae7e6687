// The page's elements, typed.

/**
 * The element of an id. Throws where the page has none of that class: a mistake of ours, not of the user's.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} Kind
 * @returns {T}
 */
export function element(id, Kind) {
  const found = document.getElementById(id)
  if (!(found instanceof Kind)) throw new Error(`the page has no ${Kind.name} ${id}`)
  return found
}

/**
 * A new element with attributes and children; text is never taken for markup.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string>} attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, attributes, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

/**
 * Show an error, or with null none.
 * @param {HTMLElement} place
 * @param {string | null} message
 */
export function showError(place, message) {
  place.textContent = message ?? ''
  place.hidden = message === null
}

/**
 * Bytes for people.
 * @param {number} bytes
 */
export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`
}
