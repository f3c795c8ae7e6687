"""The commands of the host: one module each, imported when it is called."""
