"""What a packed language model was measured to be, for a report and for the screen. Measures nothing itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce_compiler.report.gate import Check
from sottovoce_compiler.report.language import LanguageScores
from sottovoce_compiler.report.table import Table


@dataclass(frozen=True, slots=True)
class Sameness:
    """How many of `asked` texts came out as the source's own code has them; `first` is the first that did not."""

    asked: int
    equal: int
    first: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"asked": self.asked, "equal": self.equal}


@dataclass(frozen=True, slots=True)
class Validity:
    """How many of `asked` answers were what they had to be."""

    asked: int
    valid: int

    def to_json(self) -> dict[str, Any]:
        return {"asked": self.asked, "valid": self.valid, "rate": round(self.valid / max(1, self.asked), 4)}


@dataclass(frozen=True, slots=True)
class ChatCard:
    """Everything of one artifact. `template` and the validities are None for a model without a chat template.

    `json` are answers to a schema, `tool_calls` calls that the model made of its own accord where the question called
    for one, with arguments that its schema allows; `tool_calls_required` the same where a call was required.
    """

    name: str
    data: str
    data_sha256: str
    engine: str
    scores: LanguageScores | None
    tokenizer: Sameness
    template: Sameness | None
    json: Validity | None
    tool_calls: Validity | None
    tool_calls_required: Validity | None

    def to_json(self) -> dict[str, Any]:
        """The report's `quality`."""
        parts = {
            "tokenizer": self.tokenizer,
            "template": self.template,
            "json": self.json,
            "tool_calls": self.tool_calls,
            "tool_calls_required": self.tool_calls_required,
        }
        scores = {} if self.scores is None else self.scores.to_json()
        return scores | {name: part.to_json() for name, part in parts.items() if part is not None}

    def tables(self, checks: Mapping[str, Check]) -> list[Table]:
        """Each figure with its source's and its limit."""
        rows: list[tuple[str, str, str, str]] = []
        if (scores := self.scores) is not None:
            rows += [
                ("tokens scored", str(scores.tokens), "", ""),
                ("perplexity", f"{scores.perplexity:.3f}", f"{scores.source_perplexity:.3f}", ""),
                ("KL from the source, mean", f"{scores.kl:.4g}", "0", ""),
                ("KL from the source, 99th percentile", f"{scores.kl_p99:.4g}", "0", ""),
                ("same likeliest token", f"{scores.top1:.1%}", "100.0%", ""),
            ]
            limits = {
                "perplexity": ("perplexity", "{:.3f}"),
                "KL from the source, mean": ("mean KL divergence", "{:.4g}"),
            }
            rows = [
                (*row[:3], limits[row[0]][1].format(checks[limits[row[0]][0]].limit))
                if row[0] in limits and limits[row[0]][0] in checks
                else row
                for row in rows
            ]
            if (check := checks.get("share of other likeliest tokens")) is not None and check.limit is not None:
                rows[-1] = (*rows[-1][:3], f"{1 - check.limit:.1%}")
        rows.append(("texts tokenized alike", f"{self.tokenizer.equal} of {self.tokenizer.asked}", "", "all"))
        if self.template is not None:
            rows.append(("conversations rendered alike", f"{self.template.equal} of {self.template.asked}", "", "all"))
        for name, part in (
            ("answers to a schema, valid", self.json),
            ("tool calls of its own accord, valid", self.tool_calls),
            ("tool calls when required, valid", self.tool_calls_required),
        ):
            if part is not None:
                rows.append((name, f"{part.valid} of {part.asked}", "", ""))
        return [Table(f"{self.name} on {self.data}", ("", "artifact", "source", "limit"), tuple(rows))]
