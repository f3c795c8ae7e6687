// The page: two panels, and what makes it work without a network.

import { messageOf } from '../errors.js'
import { ChatPanel } from './chat.js'
import { element, showError } from './dom.js'
import { SpeechPanel } from './speech.js'

const speech = new SpeechPanel()
const chat = new ChatPanel()
const tabs = ['speech', 'chat'].map((name) => ({
  tab: element(`tab-${name}`, HTMLButtonElement),
  panel: element(name, HTMLElement),
  name,
}))

/** @param {string} name */
function select(name) {
  for (const one of tabs) {
    const chosen = one.name === name
    one.tab.setAttribute('aria-selected', String(chosen))
    one.tab.tabIndex = chosen ? 0 : -1
    one.panel.hidden = !chosen
  }
  if (location.hash.slice(1) !== name) history.replaceState(null, '', `#${name}`)
  if (name === 'chat') void chat.start().catch((error) => showError(element('chat-error', HTMLElement), messageOf(error)))
}

for (const { tab, name } of tabs) {
  tab.onclick = () => select(name)
  tab.onkeydown = (event) => {
    if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return
    const other = tabs.find((one) => one.name !== name)
    other?.tab.focus()
    if (other) select(other.name)
  }
}

/** Let the page be opened without a network, and say when it can be. */
async function workOffline() {
  const note = element('offline', HTMLElement)
  if (!navigator.serviceWorker) {
    note.textContent = 'Without https this page needs its server each time.'
    return
  }
  await navigator.serviceWorker.register('service-worker.js')
  await navigator.serviceWorker.ready
  note.textContent = 'Works without a network from now on.'
  const cores = Math.min(4, navigator.hardwareConcurrency || 1)
  const again = element('isolate', HTMLButtonElement)
  again.hidden = globalThis.crossOriginIsolated || cores < 2
  again.textContent = `Reload to use ${cores} processor cores`
  again.onclick = () => location.reload()
}

// What is dropped beside the panel must not replace the page.
for (const kind of ['dragover', 'drop']) document.addEventListener(kind, (event) => event.preventDefault())

chat.prepare()
select(location.hash === '#chat' ? 'chat' : 'speech')
void speech.start().catch((error) => showError(element('speech-error', HTMLElement), messageOf(error)))
void workOffline().catch((error) => (element('offline', HTMLElement).textContent = messageOf(error)))
