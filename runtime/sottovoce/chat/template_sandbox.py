"""The Jinja environment for chat templates that nobody here wrote.

Renders what transformers renders and lets nothing else happen: no attribute that begins with an underscore, no call but
to what the tables name, no import, and no work that was not paid for. The parsed template is rewritten so that every
loop, comparison, joining, slice and output goes through a hook. Imports jinja2; only template.py imports this, when a
template is first rendered.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from string import Formatter
from types import BuiltinMethodType, MethodType
from typing import Any, Final

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateAssertionError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from sottovoce.chat import template_filters
from sottovoce.chat.template_limits import (
    CHARACTERS_A_STEP,
    MAX_NESTING,
    MAX_TOKENS,
    OPERATORS,
    Meter,
    TemplateLimitError,
    check_format_string,
)

MAX_TREE = 100  # depth of the parsed template: a chain of a hundred operators is one
NODES_A_STEP = 8  # this many parts of a loop's body count as a step

_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}
_STATEMENTS = ("for", "if", "macro", "call", "filter", "with", "generation")
_REFUSED = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block, nodes.EvalContextModifier)
_READABLE: Final[Mapping[type, frozenset[str]]] = {
    LoopContext: frozenset(
        (
            "index",
            "index0",
            "revindex",
            "revindex0",
            "first",
            "last",
            "length",
            "depth",
            "depth0",
            "previtem",
            "nextitem",
            "cycle",
            "changed",
        )
    ),
    Macro: frozenset(("name", "arguments")),
    Cycler: frozenset(("current", "next", "reset")),
    tuple: frozenset(("grouper", "list")),
}


class TemplateRefusal(Exception):
    """The template called raise_exception; the message is its own."""


class Hook:
    """A function of ours that a template may call: nothing but a hook or what the tables name is called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


class _Counted:
    """What a loop walks over, paid for item by item; as long as what it stands for, where that has a length."""

    def __init__(self, meter: Meter, values: Any) -> None:
        self.meter, self.values = meter, values

    def __iter__(self) -> Iterator[Any]:
        return self.meter.drawn(iter(self.values))

    def __len__(self) -> int:
        return len(self.values)


class _Namespace(Namespace):
    """`namespace()`: no name in it begins with an underscore, and it is not printed with what is in it."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold the name {name!r}")


class _Formatter(SandboxedFormatter):
    """str.format, whose fields pay for themselves."""

    def __init__(self, environment: "Sandbox") -> None:
        self._meter = environment.meter
        super().__init__(environment)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._meter.weigh(value)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> Any:
        check_format_string(format_spec)
        self._meter.weigh(value)
        return self._meter.sized(super().format_field(value, format_spec))


class _Generation(Extension):
    """`{% generation %}`, around what the model wrote: a scope, with marks at both ends where they are asked for."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        scope = nodes.Scope(body, lineno=line)
        opening, closing = (
            nodes.Output([_hooked("generation", [nodes.Const(end)], scope)]).set_lineno(line) for end in (0, 1)
        )
        scope.body = [opening, *body, closing]
        return scope


class Sandbox(ImmutableSandboxedEnvironment):
    """One environment for one template; `meter` is that of the render under way, `generation` what it puts before and
    after what the model wrote, where the template says where that is."""

    intercepted_binops = frozenset(OPERATORS)

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, LoopControlExtension],
            optimized=False,  # nothing is computed while compiling
            cache_size=0,
        )
        self.meter = Meter()
        self.generation = ("", "")
        self.filters = dict[str, Any](template_filters.filters(lambda: self.meter))
        self.tests = dict[str, Any](template_filters.tests(lambda: self.meter))
        self.globals = {
            "range": Hook(self._range),
            "dict": Hook(self._dict),
            "namespace": Hook(_Namespace),
            "cycler": Hook(Cycler),
            "joiner": Hook(Joiner),
            "raise_exception": Hook(_refuse),
            "strftime_now": Hook(lambda format: clock().strftime(self._date_format(format))),
        }
        self.hook_counted = Hook(lambda values: _Counted(self.meter, values))
        self.hook_spend = Hook(lambda steps: self.meter.spend(steps))
        self.hook_shown = Hook(self._shown)
        self.hook_joined = Hook(self._joined)
        self.hook_compared = Hook(self._compared)
        self.hook_sliced = Hook(lambda value, *ends: self.meter.sized(value[slice(*ends)]))
        self.hook_key = Hook(self._key)
        self.hook_generation = Hook(lambda end: self.generation[end])

    def tree(self, source: str) -> nodes.Template:
        """The template, parsed, checked and rewritten."""
        self._check_tokens(source)
        tree = self.parse(source)
        _check_tree(tree)
        rewritten = _Rewriting().visit(tree)
        assert isinstance(rewritten, nodes.Template)
        return rewritten

    def _check_tokens(self, source: str) -> None:
        depth, before = 0, ""
        for count, (line, kind, text) in enumerate(self.lexer.tokeniter(source, None)):
            if count > MAX_TOKENS:
                raise TemplateLimitError(f"it has more than {MAX_TOKENS} parts")
            opens = (kind == "operator" and text in "([{") or (before == "block_begin" and text in _STATEMENTS)
            closes = (kind == "operator" and text in ")]}") or (before == "block_begin" and text[:3] == "end")
            depth = max(0, depth + opens - closes)
            if depth > MAX_NESTING:
                raise TemplateLimitError(f"line {line} is more than {MAX_NESTING} brackets or blocks deep")
            before = kind if kind != "whitespace" else before

    # What jinja2 asks of a sandbox.

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if attr.startswith("_"):
            return False
        if isinstance(obj, _Namespace):
            return True
        return any(isinstance(obj, kind) and attr in names for kind, names in _READABLE.items()) or any(
            isinstance(obj, kind) and attr in names for kind, names in template_filters.METHODS.items()
        )

    def getitem(self, obj: Any, argument: Any) -> Any:
        if not isinstance(argument, str | int):
            self.meter.weigh(argument)  # it is hashed
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Any:
        if isinstance(value, MethodType | BuiltinMethodType) and value.__name__ == "format":
            text = value.__self__
            if isinstance(text, str):
                return Hook(lambda *args, **kwargs: self._formatted(text, args, kwargs))
        return None

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.meter.spend(1)
        return OPERATORS[operator](self.meter, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if type(__obj) is Hook:
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            return __obj.function(*args, **kwargs)
        meter = __self.meter
        meter.spend(1 + len(args) + len(kwargs))
        if isinstance(__obj, Macro | LoopContext):
            if isinstance(__obj, LoopContext):
                args = tuple(_Counted(meter, values) for values in args)
            meter.entering()
            try:
                return __context.call(__obj, *args, **kwargs)
            finally:
                meter.leaving()
        if not isinstance(__obj, Undefined | Joiner):
            args = __self._method_arguments(__obj, args, kwargs)
        return meter.sized(__context.call(__obj, *args, **kwargs))

    def _method_arguments(self, method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """`args`, where `method` may be called with them."""
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, Cycler | LoopContext):
            self.meter.weigh(args)
            return args
        for kind, checks in template_filters.METHODS.items():
            if isinstance(owner, kind) and name in checks:
                plain = tuple(list(self.meter.drawn(one)) if isinstance(one, Iterator) else one for one in args)
                keywords = {key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")}
                checks[name](self.meter, owner, plain, keywords)
                return plain
        raise SecurityError(f"{name or type(method).__name__} cannot be called")

    # Hooks.

    def _shown(self, value: Any) -> Any:
        self.meter.room_for(self.meter.weigh(value))
        return value

    def _joined(self, *parts: Any) -> str:
        self.meter.room_for(sum(self.meter.weigh(part) for part in parts))
        return "".join(map(str, parts))

    def _compared(self, value: Any, *rest: Any) -> Any:
        """`value`, then names of comparisons and what they compare with, as in a < b < c."""
        result: Any = True
        for name, other in zip(rest[::2], rest[1::2], strict=True):
            if isinstance(other, Iterator):
                other = list(self.meter.drawn(other))
            self._pay_comparison(value, other)
            result = _COMPARISONS[name](value, other)
            if not result:
                break
            value = other
        return result

    def _pay_comparison(self, left: Any, right: Any) -> None:
        if isinstance(left, str) and isinstance(right, str):
            self.meter.spend(1 + len(right) // CHARACTERS_A_STEP)
        elif isinstance(left, list | tuple | dict) or isinstance(right, list | tuple):
            self.meter.weigh((left, right))
        else:
            self.meter.spend(1)
            if not isinstance(left, str | int | float | None):
                self.meter.weigh(left)

    def _key(self, key: Any) -> Any:
        if not isinstance(key, str | int | float | None):
            raise SecurityError(f"a {type(key).__name__} cannot be the key of an object")
        return key

    def _range(self, *ends: int) -> range:
        values = range(*ends)
        self.meter.items_for(len(values))
        return values

    def _dict(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        plain = [list(self.meter.drawn(one)) if isinstance(one, Iterator) else one for one in args]
        self.meter.weigh((plain, list(kwargs.values())))
        return dict(*plain, **kwargs)

    def _formatted(self, text: str, args: Any, kwargs: Mapping[str, Any]) -> str:
        check_format_string(text)
        kept = {key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")}
        return str(self.meter.sized(Formatter.vformat(_Formatter(self), text, args, kept)))

    def _date_format(self, format: Any) -> str:
        check_format_string(str(format))
        return str(format)


def _refuse(message: Any) -> None:
    raise TemplateRefusal(str(message)[:2000])


def _check_tree(tree: nodes.Template) -> None:
    """Raises for what a chat template has no use for, and for a tree too deep for those who walk it."""
    level: list[nodes.Node] = [tree]
    for _ in range(MAX_TREE):
        for node in level:
            if isinstance(node, _REFUSED):
                what = type(node).__name__.lower()
                raise TemplateAssertionError(f"{what!r} has no place in a chat template", node.lineno)
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise TemplateLimitError(f"line {level[0].lineno} is more than {MAX_TREE} operators deep")


def _hooked(name: str, arguments: Iterable[nodes.Node], like: nodes.Node) -> nodes.Call:
    target = nodes.EnvironmentAttribute(f"hook_{name}")
    return nodes.Call(target, list(arguments), [], None, None).set_lineno(like.lineno)  # type: ignore[return-value]


def _steps(body: Iterable[nodes.Node]) -> int:
    """What going once through `body` costs beside what its hooks count."""
    parts, text, stack = 0, 0, list(body)
    while stack:
        node = stack.pop()
        parts += 1
        text += len(node.data) if isinstance(node, nodes.TemplateData) else 0
        stack += node.iter_child_nodes()
    return 1 + parts // NODES_A_STEP + text // CHARACTERS_A_STEP


class _Rewriting(NodeTransformer):
    """Puts hooks where work is done."""

    def _paying(self, node: Any) -> Any:
        steps = _steps(node.body)
        self.generic_visit(node)
        pay = nodes.ExprStmt(_hooked("spend", [nodes.Const(steps)], node), lineno=node.lineno)
        node.body = [pay, *node.body]
        return node

    visit_Macro = visit_CallBlock = _paying

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self._paying(node)
        node.iter = _hooked("counted", [node.iter], node)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [
            part if isinstance(part, nodes.TemplateData) else _hooked("shown", [part], node) for part in node.nodes
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _hooked("joined", node.nodes, node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        compared = [part for other in node.ops for part in (nodes.Const(other.op), other.expr)]
        return _hooked("compared", [node.expr, *compared], node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = (node.arg.start, node.arg.stop, node.arg.step)
        return _hooked("sliced", [node.node, *(end or nodes.Const(None) for end in ends)], node)

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _hooked("key", [node.key], node)
        return node
