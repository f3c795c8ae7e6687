"""A scorecard of a chat model, and a gate that it passes."""

from sottovoce_compiler.report.chat_card import ChatCard, Sameness, Validity
from sottovoce_compiler.report.chat_gate import ChatGate
from sottovoce_compiler.report.language import LanguageScores

GATE = ChatGate(max_kl=0.1, max_perplexity_increase=0.2, min_top1=0.9)
SCORES = LanguageScores(1000, 20.0, 21.0, 0.05, 0.2, 0.95)
CARD = ChatCard(
    "nano",
    "some text",
    "abc",
    "llama.cpp b1",
    SCORES,
    Sameness(12, 12),
    Sameness(14, 14),
    Validity(4, 4),
    Validity(4, 0),
    Validity(4, 3),
)
