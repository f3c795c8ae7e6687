"""Chat on the device: messages in, text, tool calls and JSON out."""
